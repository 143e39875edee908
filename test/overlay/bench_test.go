package overlay

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// BenchmarkOverlay compares an overlay network with one that is made by hand of a
// bridge, veth pairs and a VXLAN interface with one remote host: bits a second and the
// time of a round trip, in turns.
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
		_, err := pair[1].Host.Sh(s.ctx, "ip netns exec "+pair[1].Name+" iperf3 -s -D")
		must(b, err)
	}
	var bits, trips [2][]float64
	for b.Loop() {
		for i, pair := range [][2]*lab.Container{ours, hand} {
			bits[i] = append(bits[i], s.throughput(pair[0], pair[1]))
			trips[i] = append(trips[i], s.roundTrip(pair[0], pair[1]))
		}
	}
	b.ReportMetric(median(bits[0])/1e9, "overlay-Gbit/s")
	b.ReportMetric(median(bits[1])/1e9, "by-hand-Gbit/s")
	b.ReportMetric(median(bits[0])/median(bits[1]), "throughput-ratio")
	b.ReportMetric(median(trips[0])*1000, "overlay-µs")
	b.ReportMetric(median(trips[1])*1000, "by-hand-µs")
	b.ReportMetric(median(trips[1])/median(trips[0]), "latency-ratio")
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

// roundTrip is the average of pings, in milliseconds.
func (s *story) roundTrip(from, to *lab.Container) (avg float64) {
	s.t.Helper()
	out, err := from.In(s.ctx, "ping", "-q", "-c", "300", "-i", "0.002", to.Addr[0].String())
	must(s.t, err)
	_, numbers, _ := strings.Cut(out, "mdev = ")
	_, err = fmt.Sscanf(strings.ReplaceAll(numbers, "/", " "), "%f %f", new(float64), &avg)
	must(s.t, err)
	return avg
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
