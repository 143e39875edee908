package overlay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/test/cluster/lab"
)

// BenchmarkOverlay compares an overlay network with one that is made by hand of a
// bridge, veth pairs and a VXLAN interface with one remote host: bits a second and the
// median time of a round trip by TCP, in turns.
func BenchmarkOverlay(b *testing.B) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		b.Skip("no iperf3 here: scripts/test-deps installs it")
	}
	s := withEtcd(b)
	h1, h3 := s.Hosts[0], s.Hosts[2]
	ours := [2]*lab.Container{s.add(h1, web, "a"), s.add(h3, web, "c")}
	hand := [2]*lab.Container{s.byHand(h1, h3, "10.200.0.1"), s.byHand(h3, h1, "10.200.0.2")}
	for _, pair := range [][2]*lab.Container{ours, hand} {
		must(b, lab.Until(s.ctx, "they reach each other", func() error { return pair[0].Ping(s.ctx, pair[1].Addr[0]) }))
		_, err := pair[1].Host.Sh(s.ctx, fmt.Sprintf("ip netns exec %[1]s iperf3 -s -D; ip netns exec %[1]s %[2]s serve 80 >/dev/null 2>&1 &", pair[1].Name, s.peer()))
		must(b, err)
	}
	var bits, trips [2][]float64
	for turn := 0; b.Loop(); turn++ {
		for i := range 2 {
			n := (i + turn) % 2
			pair := [][2]*lab.Container{ours, hand}[n]
			bits[n] = append(bits[n], s.throughput(pair[0], pair[1]))
		}
		for i := range 2 * parts {
			n := (i + turn) % 2
			pair := [][2]*lab.Container{ours, hand}[n]
			trips[n] = append(trips[n], s.roundTrip(pair[0], pair[1]))
		}
	}
	b.ReportMetric(median(bits[0])/1e9, "overlay-Gbit/s")
	b.ReportMetric(median(bits[1])/1e9, "by-hand-Gbit/s")
	b.ReportMetric(median(bits[0])/median(bits[1]), "throughput-ratio")
	b.ReportMetric(median(trips[0])/1000, "overlay-µs")
	b.ReportMetric(median(trips[1])/1000, "by-hand-µs")
	b.ReportMetric(median(trips[1])/median(trips[0]), "latency-ratio")
}

// parts is how many times round trips are measured in each turn.
const parts = 5

// BenchmarkOverlayNewBlock measures from the return of an ADD, which had to claim a block,
// until the container answers one of another host.
func BenchmarkOverlayNewBlock(b *testing.B) {
	s := withEtcd(b)
	h1, h3 := s.Hosts[0], s.Hosts[2]
	single := strings.NewReplacer(`"blockSize": 28`, `"blockSize": 32`, "10.100.0.0/24", "10.100.0.0/20").Replace(web)
	s.add(h1, single, "first")
	p := s.newPinger(s.add(h3, single, "c"))
	var took []float64
	known := 0
	for i := 0; b.Loop(); {
		before, err := h3.Sh(s.ctx, "bridge fdb show dev vxlan100")
		must(b, err)
		c := s.add(h1, single, fmt.Sprint("new", i))
		if start := time.Now(); !strings.Contains(before, c.MAC) {
			p.answered(c.Addr[0])
			took = append(took, time.Since(start).Seconds()*1000)
		} else {
			known++ // the block was claimed in advance
		}
		i++
	}
	if len(took) == 0 {
		b.Fatal("no ADD has claimed a block")
	}
	b.ReportMetric(median(took), "ms")
	b.ReportMetric(took[len(took)-1], "max-ms")
	b.ReportMetric(float64(len(took)), "blocks")
	b.ReportMetric(float64(known), "claimed-before")
}

// pinger sends echo requests from a container without a program in between.
type pinger struct {
	t    testing.TB
	conn net.PacketConn
}

func (s *story) newPinger(c *lab.Container) *pinger {
	s.t.Helper()
	ns, err := netns.Open(c.Host.Path("/run/netns/" + c.Name))
	must(s.t, err)
	s.t.Cleanup(func() { _ = ns.Close() })
	p := &pinger{t: s.t}
	must(s.t, ns.Do(func() (err error) {
		p.conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	}))
	s.t.Cleanup(func() { _ = p.conn.Close() })
	return p
}

// answered sends a request each millisecond until an answer comes.
func (p *pinger) answered(a netip.Addr) {
	p.t.Helper()
	request := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0} // type, code, checksum, identifier, sequence number
	to, buf := &net.IPAddr{IP: a.AsSlice()}, make([]byte, 1500)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if _, err := p.conn.WriteTo(request, to); err != nil {
			p.t.Fatal(err)
		}
		must(p.t, p.conn.SetReadDeadline(time.Now().Add(time.Millisecond)))
		for {
			n, from, err := p.conn.ReadFrom(buf)
			if err != nil {
				break // no answer yet
			}
			if n > 0 && buf[0] == 0 && from.String() == a.String() {
				return
			}
		}
	}
	p.t.Fatalf("%s does not answer", a)
}

// BenchmarkOverlayKilled counts the packets that are lost, of a hundred a second, between
// containers of two hosts while what controls forwarding is killed and starts again.
func BenchmarkOverlayKilled(b *testing.B) {
	for name, one := range map[string]struct {
		program string
		start   func(*lab.Host, context.Context) error
	}{
		"daemons": {lab.Daemon, (*lab.Host).StartDaemon},
		"etcd":    {lab.Etcd, (*lab.Host).StartMember},
	} {
		b.Run(name, func(b *testing.B) {
			s := withEtcd(b)
			s.lost(b, s.add(s.Hosts[1], web, "b"), s.add(s.Hosts[2], web, "c"), func() {
				for _, h := range s.Hosts {
					must(b, h.Kill(s.ctx, one.program))
				}
				for _, h := range s.Hosts {
					must(b, one.start(h, s.ctx))
				}
				s.inStep()
			})
		})
	}
	for name, host := range map[string]int{"reflector": 0, "bgpd": 2} {
		b.Run(name, func(b *testing.B) {
			s := newStory(b)
			for _, h := range s.Hosts {
				s.startFRR(h)
			}
			from, to := s.add(s.Hosts[1], evpn(2), "b"), s.add(s.Hosts[2], evpn(3), "c")
			reached := func() {
				must(b, lab.Until(s.ctx, "they reach each other", func() error { return errors.Join(from.Ping(s.ctx, to.Addr[0]), to.Ping(s.ctx, from.Addr[1])) }))
			}
			reached()
			s.lost(b, from, to, func() {
				must(b, s.Hosts[host].Kill(s.ctx, "bgpd"))
				s.startBGP(s.Hosts[host])
				must(b, lab.Until(s.ctx, "bgpd speaks to others", func() error {
					out, err := s.Hosts[host].Run(s.ctx, "vtysh", "-c", "show bgp l2vpn evpn summary json")
					if err == nil && strings.Count(out, `"state":"Established"`) != 2 {
						err = errors.New(out)
					}
					return err
				}))
				reached()
			})
		})
	}
}

// lost reports how many packets are lost while something is disturbed.
func (s *story) lost(b *testing.B, from, to *lab.Container, disturb func()) {
	b.Helper()
	var sent, received int
	for b.Loop() {
		n, m := s.packets(from, to, disturb)
		sent, received = sent+n, received+m
	}
	b.ReportMetric(float64(sent)/float64(b.N), "sent")
	b.ReportMetric(float64(sent-received)/float64(b.N), "lost")
}

// byHand makes a container on a bridge of its own with a VXLAN interface to another host.
func (s *story) byHand(h, other *lab.Host, addr string) *lab.Container {
	s.t.Helper()
	_, err := h.Sh(s.ctx, fmt.Sprintf(`
		ip link add hand0 mtu 1450 up type bridge
		ip link add handx mtu 1450 master hand0 up type vxlan id 999 local %s remote %s dev up0 dstport 4790
		ip netns add hand
		ip link add handv mtu 1450 master hand0 up type veth peer name eth0 mtu 1450 netns hand
		ip -n hand addr add %s/24 dev eth0
		ip -n hand link set eth0 up`, h.Addr, other.Addr, addr))
	must(s.t, err)
	return &lab.Container{Name: "hand", Host: h, Addr: []netip.Addr{netip.MustParseAddr(addr)}}
}

// throughput is what TCP carries in two seconds, in bits a second.
func (s *story) throughput(from, to *lab.Container) float64 {
	s.t.Helper()
	out, err := from.In(s.ctx, "iperf3", "-J", "-t", "2", "-O", "0.5", "-c", to.Addr[0].String())
	must(s.t, err)
	var r struct {
		End struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	must(s.t, json.Unmarshal([]byte(out), &r))
	return r.End.Received.Bits
}

// roundTrip is the median time of round trips by TCP, in nanoseconds.
func (s *story) roundTrip(from, to *lab.Container) (took float64) {
	s.t.Helper()
	out, err := from.In(s.ctx, s.peer(), "trips", netip.AddrPortFrom(to.Addr[0], 7).String(), "4000")
	must(s.t, err)
	_, err = fmt.Sscan(out, &took)
	must(s.t, err)
	return took
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
