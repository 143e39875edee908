// Package link sets up the sandbox's interface once it exists, and compares it
// later with what was set up.
package link

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sha2"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// DAD says what to do about duplicate address detection, which keeps an IPv6
// address unusable for one to two seconds.
type DAD int

// What can be done about duplicate address detection.
const (
	// NoDAD uses an address at once: IPAM guarantees that it is unique on a
	// bridge or a point-to-point link.
	NoDAD DAD = iota
	// OptimisticDAD uses an address at once and detects duplicates meanwhile,
	// for links to a LAN (RFC 4429). CHECK reports what it found.
	OptimisticDAD
	// WaitDAD waits until detection has ended, and fails where it found one.
	WaitDAD
)

// Setup is what the sandbox's interface is to become.
type Setup struct {
	Name  string
	Index int
	// IPs and Routes are those of the IPAM result; both empty is a link of
	// layer 2, which is only brought up.
	IPs    []*current.IPConfig
	Routes []*types.Route
	DAD    DAD
	// First are routes that come before Routes: what reaches their gateways.
	First []nl.Route
	// NoPrefixRoutes keeps the kernel from adding a route to each address's
	// subnet: the link does not reach it without a gateway.
	NoPrefixRoutes bool
	// SetMAC, if set, becomes the link's hardware address before it is up.
	SetMAC net.HardwareAddr
	// MAC is the link's hardware address, of which its neighbours are told, who may
	// remember an address's last owner; nil tells nobody: where the hardware address
	// is made of the address they remember the right one.
	MAC net.HardwareAddr
	// LAN heeds the advertisements of the routers on the link, where it has an
	// IPv6 address at all.
	LAN bool
	// AcceptRA leaves router advertisements and, where no IPv6 address was
	// given, IPv6 itself to the kernel: for users of SLAAC. Otherwise neither
	// is on before the link is first up (CVE-2020-10749, CVE-2024-32473).
	AcceptRA bool
	// Peer is the index on the host of a veth's other end: Configure then returns
	// when packets pass. 0 is a link that does not depend on another end.
	Peer int
}

// Configure brings the sandbox's interface up with its addresses and routes.
func Configure(p *nl.Pair, s Setup) error {
	addrs, err := s.addrs()
	if err != nil {
		return err
	}
	routes, err := Routes(s.Index, s.IPs, s.Possible())
	if err != nil {
		return err
	}
	if err := sysctl.Set(p.NS, p.Gate, s.sysctls(addrs)...); err != nil {
		return err
	}
	var batch, late []*nl.Message
	for _, a := range addrs {
		m := nl.AddAddr(a)
		if a.Prefix.Addr().Is4() {
			batch = append(batch, m) // before the link is up, which announces it (arp_notify)
		} else {
			late = append(late, m)
		}
	}
	batch = append(batch, s.bringUp(addrs)...)
	batch = append(batch, linkLocal(s, addrs)...)
	batch = append(batch, late...)
	for _, r := range append(s.First, routes...) {
		r.OnLink = s.NoPrefixRoutes && r.Gateway.IsValid() // which no prefix says
		batch = append(batch, nl.PrependRoute(r))          // a second network of a container has a default route, too
	}
	if err := p.Sandbox.Do(batch...); err != nil {
		return err
	}
	if err := s.settle(p, addrs); err != nil {
		return err
	}
	if s.DAD == WaitDAD {
		return waitDAD(p, s.Index) // after which the kernel announces (ndisc_notify)
	}
	if s.Peer == 0 {
		announce6(p.NS, s, addrs)
	}
	return nil
}

func (s Setup) addrs() ([]nl.Addr, error) {
	all := make([]nl.Addr, 0, len(s.IPs))
	for _, ip := range s.IPs {
		p, err := PrefixOf(ip.Address)
		if err != nil {
			return nil, err
		}
		a := nl.Addr{Index: s.Index, Prefix: p}
		if s.NoPrefixRoutes {
			a.Flags = unix.IFA_F_NOPREFIXROUTE
		}
		if p.Addr().Is6() && s.DAD == NoDAD {
			a.Flags |= unix.IFA_F_NODAD
		}
		if p.Addr().Is6() && s.DAD == OptimisticDAD {
			a.Flags |= unix.IFA_F_OPTIMISTIC
		}
		all = append(all, a)
	}
	return all, nil
}

// bringUp sets the hardware address and brings the link up. Where neighbours are
// to be told, the kernel sends a gratuitous ARP when that happens (arp_notify,
// here without a write to /proc); otherwise it does so from the next time on. A
// bridge sends it to each of its ports, which is the only cost of an ADD that
// grows with the containers.
func (s Setup) bringUp(addrs []nl.Addr) []*nl.Message {
	const inetConf, arpNotify = 1, 22 // IFLA_INET_CONF, IPV4_DEVCONF_ARP_NOTIFY
	tell := nl.SetLink("announce addresses of "+s.Name, s.Index)
	tell.Begin(unix.IFLA_AF_SPEC).Begin(unix.AF_INET).Begin(inetConf).Uint32(arpNotify, 1).End().End()
	if s.optimistic(addrs) {
		genMode(tell, genNone)
	}
	tell.End()
	up := nl.SetUp(s.Name, s.Index)
	if s.SetMAC != nil {
		up.Attr(unix.IFLA_ADDRESS, s.SetMAC) // which the kernel sets before the flags
	}
	if s.MAC != nil || s.optimistic(addrs) {
		return []*nl.Message{tell, up}
	}
	return []*nl.Message{up, tell}
}

func (s Setup) optimistic(addrs []nl.Addr) bool { return s.DAD == OptimisticDAD && hasV6(addrs) }

// From linux/if_link.h, IN6_ADDR_GEN_MODE_….
const (
	genEUI64 = iota
	genNone
)

// genMode says how the kernel chooses the link-local address when the link comes
// up.
func genMode(m *nl.Message, mode uint8) *nl.Message {
	return m.Begin(unix.AF_INET6).Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, mode).End()
}

// linkLocal gives an optimistic link a link-local address that is usable at
// once. The kernel may not ask for a neighbour from an optimistic address (RFC
// 4429), and its own link-local one is as optimistic as the others: then the
// container would speak to nobody before detection ends. This one is unique as
// the address is that it is made from. What the kernel does at the next up is
// as ever.
func linkLocal(s Setup, addrs []nl.Addr) []*nl.Message {
	if !s.optimistic(addrs) {
		return nil
	}
	var all []byte
	for _, a := range addrs {
		all = append(all, a.Prefix.Addr().AsSlice()...)
	}
	sum := sha2.Sum256(all)
	ip := [16]byte{0xfe, 0x80}
	copy(ip[8:], sum[:])
	a := nl.Addr{Index: s.Index, Prefix: netip.PrefixFrom(netip.AddrFrom16(ip), 64), Scope: unix.RT_SCOPE_LINK, Flags: unix.IFA_F_NODAD}
	back := nl.SetLink("leave link-local addresses of "+s.Name+" to the kernel", s.Index).Begin(unix.IFLA_AF_SPEC)
	return []*nl.Message{nl.AddAddr(a), genMode(back, genEUI64).End()}
}

// IPv6Off is the setting that turns IPv6 off on the link.
func IPv6Off(name string) sysctl.Setting { return conf6(name, "disable_ipv6", "1") }

func conf6(link, key, value string) sysctl.Setting {
	// Hosts started with ipv6.disable=1 have no such key, and need none.
	return sysctl.Setting{Key: "net/ipv6/conf/" + link + "/" + key, Value: value, IfExists: true}
}

// sysctls returns the settings that must hold before the link is up.
func (s Setup) sysctls(addrs []nl.Addr) []sysctl.Setting {
	conf := func(key, value string) sysctl.Setting { return conf6(s.Name, key, value) }
	switch {
	case hasV6(addrs):
		var set []sysctl.Setting
		if !s.AcceptRA && !s.LAN {
			set = append(set, conf("accept_ra", "0"))
		}
		better := func(key, value string) sysctl.Setting {
			c := conf(key, value)
			c.Optional = true
			return c
		}
		set = append(set, s.dadSysctls(conf, better)...)
		return append(set,
			better("keep_addr_on_down", "1"),
			better("ndisc_notify", "1"),
			sysctl.Setting{Key: "net/ipv6/conf/lo/disable_ipv6", Value: "0", IfExists: true},
			// Last, since it may be what brings IPv6 up on a link that is. Without it
			// the address below is refused, so its absence is an error there.
			conf("disable_ipv6", "0"))
	case len(addrs) > 0 && !s.AcceptRA:
		return []sysctl.Setting{IPv6Off(s.Name)}
	default:
		return nil // layer 2: nobody said that IPv6 is not wanted
	}
}

// dadSysctls returns the settings for duplicate address detection; better makes
// those that only save time.
func (s Setup) dadSysctls(conf, better func(key, value string) sysctl.Setting) []sysctl.Setting {
	switch s.DAD {
	case OptimisticDAD:
		return []sysctl.Setting{better("optimistic_dad", "1"), better("use_optimistic", "1")}
	case WaitDAD:
		return []sysctl.Setting{conf("enhanced_dad", "1"), conf("accept_dad", "1")}
	default:
		return []sysctl.Setting{better("accept_dad", "0")} // the addresses say so themselves
	}
}

// Possible returns the routes without those of IPv6 where Configure leaves IPv6
// off, since IPAM gave no address of it: lists for one stack and for both often
// have the same routes. The result names what was made.
func (s Setup) Possible() []*types.Route {
	if len(s.IPs) == 0 || s.AcceptRA || slices.ContainsFunc(s.IPs, func(ip *current.IPConfig) bool { return AddrOf(ip.Address.IP).Is6() }) {
		return s.Routes
	}
	return slices.DeleteFunc(slices.Clone(s.Routes), func(r *types.Route) bool { return AddrOf(r.Dst.IP).Is6() })
}

// Routes returns the result's routes for the kernel. One without a gateway goes
// through the first gateway that the addresses of its family have.
func Routes(index int, ips []*current.IPConfig, routes []*types.Route) ([]nl.Route, error) {
	gw4, gw6 := gateways(ips)
	all := make([]nl.Route, 0, len(routes))
	for _, r := range routes {
		dst, err := PrefixOf(r.Dst)
		if err != nil {
			return nil, fmt.Errorf("route: %w", err)
		}
		if err := sound(r, dst); err != nil {
			return nil, fmt.Errorf("route to %s: %w", dst, err)
		}
		n := nl.Route{
			Dst: dst.Masked(), Index: index, Gateway: gw6, Priority: uint32(r.Priority), MTU: r.MTU, AdvMSS: r.AdvMSS,
		}
		if dst.Addr().Is4() {
			n.Gateway = gw4
		}
		if r.GW != nil {
			n.Gateway = GatewayOf(r.GW)
		}
		if r.Table != nil {
			n.Table = uint32(*r.Table)
		}
		if r.Scope != nil {
			n.Scope = uint8(*r.Scope)
		}
		if n.Scope >= unix.RT_SCOPE_LINK && r.GW == nil {
			n.Gateway = netip.Addr{} // a route of this scope has none
		}
		all = append(all, n)
	}
	return all, nil
}

// sound refuses what the kernel's numbers would cut to something else.
func sound(r *types.Route, dst netip.Prefix) error {
	within := func(what string, n int, most int64) error {
		if n < 0 || int64(n) > most {
			return fmt.Errorf("%s %d: not from 0 to %d", what, n, most)
		}
		return nil
	}
	errs := []error{within("mtu", r.MTU, math.MaxUint32), within("advmss", r.AdvMSS, math.MaxUint32), within("priority", r.Priority, math.MaxUint32)}
	if r.Table != nil {
		errs = append(errs, within("table", *r.Table, math.MaxUint32))
	}
	if r.Scope != nil {
		errs = append(errs, within("scope", *r.Scope, math.MaxUint8))
	}
	if gw := AddrOf(r.GW); len(r.GW) > 0 && gw.Is4() != dst.Addr().Is4() {
		errs = append(errs, fmt.Errorf("gateway %s is of another family", r.GW))
	}
	return errors.Join(errs...)
}

func gateways(ips []*current.IPConfig) (v4, v6 netip.Addr) {
	for _, ip := range ips {
		gw := GatewayOf(ip.Gateway)
		if gw.Is4() && !v4.IsValid() {
			v4 = gw
		}
		if gw.Is6() && !v6.IsValid() {
			v6 = gw
		}
	}
	return v4, v6
}

// AddrOf converts an address; one that is none becomes the invalid Addr.
func AddrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// GatewayOf is AddrOf of a gateway: one that is unspecified is none, as to the
// kernel.
func GatewayOf(ip net.IP) netip.Addr {
	if ip.IsUnspecified() {
		return netip.Addr{}
	}
	return AddrOf(ip)
}

// PrefixOf converts an address with its mask, host bits kept.
func PrefixOf(n net.IPNet) (netip.Prefix, error) {
	ones, bits := n.Mask.Size()
	a := AddrOf(n.IP)
	if !a.IsValid() || bits == 0 || a.Is6() && bits != 128 {
		return netip.Prefix{}, fmt.Errorf("address %s: not one with a mask", n.String())
	}
	if a.Is4() && bits == 128 {
		return netip.Prefix{}, fmt.Errorf("address ::ffff:%s/%d: an IPv4 address in IPv6 (write %s/%d)", a, ones, a, max(ones-96, 0))
	}
	p := netip.PrefixFrom(a, ones)
	if !p.IsValid() {
		return netip.Prefix{}, fmt.Errorf("address %s: prefix length %d", n.IP, ones)
	}
	return p, nil
}

// IPNet converts a prefix for a result.
func IPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
