package dhcpd

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/netcleat/netcleat/pkg/ipmath"
)

func TestChecksums(t *testing.T) {
	for _, payload := range []string{"", "x", "an even number of them", "and an odd number of them"} {
		b := datagram(netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.1.0.1"), []byte(payload))
		if len(b) != 28+len(payload) || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			t.Errorf("%q: %d bytes, header says %d", payload, len(b), binary.BigEndian.Uint16(b[2:]))
		}
		if sum := ipmath.Checksum(0, b[:20]); sum != 0 {
			t.Errorf("%q: IP checksum is off by %#x", payload, sum)
		}
		if sum := ipmath.Checksum(17+uint32(8+len(payload)), b[12:]); sum != 0 {
			t.Errorf("%q: UDP checksum is off by %#x", payload, sum)
		}
	}
}

// ack is an answer as a server would send it.
func ack(mods ...dhcpv4.Modifier) answer {
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IP{10, 1, 2, 3}),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 1, 0, 1})), dhcpv4.WithNetmask(net.CIDRMask(16, 32)),
	}, mods...)...)
	if err != nil {
		panic(err)
	}
	m.OpCode = dhcpv4.OpcodeBootReply
	return answer{DHCPv4: m}
}

func TestTimes(t *testing.T) {
	option := func(code dhcpv4.OptionCode, s uint32) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptGeneric(code, binary.BigEndian.AppendUint32(nil, s)))
	}
	lease := func(lease, t1, t2 uint32) answer {
		return ack(option(dhcpv4.OptionIPAddressLeaseTime, lease), option(dhcpv4.OptionRenewTimeValue, t1), option(dhcpv4.OptionRebindingTimeValue, t2))
	}
	for name, test := range map[string]struct {
		a    answer
		want [3]time.Duration
	}{
		"no times":            {ack(), [3]time.Duration{30 * time.Minute, 52*time.Minute + 30*time.Second, time.Hour}},
		"server's times":      {lease(100, 20, 40), [3]time.Duration{20 * time.Second, 40 * time.Second, 100 * time.Second}},
		"T1 after T2":         {lease(80, 50, 40), [3]time.Duration{40 * time.Second, 70 * time.Second, 80 * time.Second}},
		"T2 after the lease":  {lease(80, 20, 90), [3]time.Duration{40 * time.Second, 70 * time.Second, 80 * time.Second}},
		"no time at all":      {lease(0, 0, 0), [3]time.Duration{1500 * time.Millisecond, 2625 * time.Millisecond, 3 * time.Second}},
		"for ever (RFC 2131)": {lease(0xffffffff, 0, 0), [3]time.Duration{0xffffffff * time.Second / 2, 0xffffffff * time.Second / 8 * 7, 0xffffffff * time.Second}},
	} {
		b, err := bind(test.a, nil, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := [3]time.Duration{b.Renew, b.Rebind, b.Expire}; got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestRoutes(t *testing.T) {
	static := dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionStaticRoutingTable, []byte{10, 0, 0, 0, 10, 1, 0, 2, 192, 168, 7, 0, 10, 1, 0, 3, 224, 0, 0, 0, 10, 1, 0, 4, 1, 2}))
	router := dhcpv4.WithRouter(net.IP{10, 1, 0, 1})
	for name, test := range map[string]struct {
		a    answer
		want []string
	}{
		"none":                 {ack(), nil},
		"router":               {ack(router), []string{"0.0.0.0/0 10.1.0.1"}},
		"static and router":    {ack(static, router), []string{"10.0.0.0/8 10.1.0.2", "192.168.7.0/24 10.1.0.3", "0.0.0.0/0 10.1.0.1"}},
		"classless beats both": {ack(static, router, dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: &net.IPNet{IP: net.IP{10, 9, 8, 7}, Mask: net.CIDRMask(24, 32)}, Router: net.IP{10, 1, 0, 9}}))), []string{"10.9.8.0/24 10.1.0.9"}},
	} {
		b, err := bind(test.a, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range b.Routes {
			got = append(got, r.Dst.String()+" "+r.Gateway.String())
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The client's identity is the reference's, so that a host that changes over
// keeps its addresses.
func TestClientID(t *testing.T) {
	r := record{}
	r.ContainerID, r.Network, r.IfName = "c1", "lan", "eth0"
	if got := string(r.clientID()); got != "\x00c1/lan/eth0" {
		t.Errorf("%q", got)
	}
	r.ContainerID = string(make([]byte, 300))
	if n := len(r.clientID()); n != 255 {
		t.Errorf("%d bytes", n)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, a := range []answer{ack(), ack(dhcpv4.WithRouter(net.IP{10, 1, 0, 1}), dhcpv4.WithDomainSearchList("a.lan", "b.lan"), dhcpv4.WithDNS(net.IP{10, 1, 0, 53}))} {
		f.Add(datagram(netip.MustParseAddr("10.1.0.1"), broadcastIP, a.ToBytes()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &wire{mac: make(net.HardwareAddr, 6)}
		if len(b) > 28+34 {
			copy(w.xid[:], b[28+4:])
			copy(w.mac, b[28+28:])
		}
		m, err := w.parse(b)
		if err != nil || !sound(answer{DHCPv4: m}) {
			return
		}
		lease, err := bind(answer{DHCPv4: m}, []byte{6, 15, 119}, 0)
		if err != nil {
			return
		}
		if lease.Renew <= 0 || lease.Renew >= lease.Rebind || lease.Rebind >= lease.Expire {
			t.Errorf("times: %v %v %v", lease.Renew, lease.Rebind, lease.Expire)
		}
		for _, r := range lease.Routes {
			if !r.Dst.IsValid() {
				t.Errorf("route: %+v", r)
			}
		}
		lease.result(0)
	})
}
