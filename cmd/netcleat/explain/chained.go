package explain

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/pkg/look"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sysctl"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// chained looks at what a plugin after the first was to do. What firewall was to
// do, forwarded looks at.
func (x *exam) chained(_ context.Context, c conf, missing []string) error {
	switch c.Type {
	case "portmap":
		return x.published(slices.Contains(missing, c.Type))
	case "tuning":
		return x.tuned(c)
	case "bandwidth", "sbr":
		want := map[string]string{"bandwidth": "its limits", "sbr": "its rules and routes in the sandbox"}[c.Type]
		switch {
		case slices.Contains(missing, c.Type):
			x.problem(c.Type, want, "they are missing, or others than they were", Restore)
		case x.row.Recorded:
			x.fine(c.Type, want, "so they are")
		}
	}
	return nil
}

// published looks at published ports.
func (x *exam) published(missing bool) error {
	var ports []portmap.Port
	for _, r := range x.row.Attachment().Records {
		if r.Plugin == "portmap" {
			var err error
			if ports, err = portmap.Ports(r); err != nil {
				return err
			}
		}
	}
	if len(ports) == 0 {
		if len(x.row.Ports) > 0 && !x.rules.Speaks(x.row.Container) {
			x.problem("portmap", "published "+strings.Join(x.row.Ports, " "), "no rule speaks of the container", again)
		}
		return nil
	}
	for _, p := range ports {
		want := fmt.Sprintf("port %s to the container's %d", p, p.Container)
		switch {
		case p.Holder != "":
			x.problem("portmap", want, "container "+p.Holder+" has it", finding.Mend{
				Command: "nft delete element " + p.Element + " && netcleat reconcile", When: "takes it away from that container",
			})
		case missing:
			x.problem("portmap", want, "it is missing in the firewall, or what leads to it", Restore)
		default:
			x.fine("portmap", want, "OK")
		}
		x.hijacked(want, p)
		if err := x.sockets(p); err != nil {
			return err
		}
	}
	return nil
}

// hijacked looks whether a rule that comes first sends what is for the port
// elsewhere.
func (x *exam) hijacked(want string, p portmap.Port) {
	if p.HostIP.Is6() {
		return
	}
	for _, at := range x.reachable() {
		l, to := at.link, at.addr
		if l.Name == x.gatewayLink() {
			continue
		}
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			to = p.HostIP
		}
		v := x.rules.Redirected(ruleset.Packet{Src: world4, Dst: to, In: l.Name, Proto: p.Protocol, Port: p.Host, Local: true})
		if v == nil || strings.Contains(v.Chain, " cni_hostport ") || strings.Contains(v.Chain, " CNI-") {
			continue
		}
		x.problem("portmap", want, fmt.Sprintf("%s sends what comes over %s elsewhere before: %s", v.Chain, l.Name, v.By),
			finding.Do("publish another port of the host, or have whoever made that rule remove it"))
		return
	}
}

// reached is an address at which others reach the host, and the link that has it.
type reached struct {
	link *nl.Link
	addr netip.Addr
}

// reachable are the host's links with the first IPv4 address of each.
func (w *worker) reachable() []reached {
	// Without addresses nothing is published.
	all, _ := look.Once(w.look, "addresses to reach the host at", func() (all []reached, err error) {
		for _, index := range slices.Sorted(maps.Keys(w.links)) {
			addrs, err := w.hostAddrs(index)
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(addrs, func(a nl.Addr) bool { return a.Prefix.Addr().Is4() })
			if i >= 0 && !addrs[i].Prefix.Addr().IsLoopback() {
				all = append(all, reached{w.links[index], addrs[i].Prefix.Addr()})
			}
		}
		return all, nil
	})
	return all
}

// sockets remarks on who listens on the host and who does not in the sandbox.
func (x *exam) sockets(p portmap.Port) error {
	if p.Count > 1 {
		return nil
	}
	proto, known := protocols[p.Protocol]
	if !known {
		return nil
	}
	outside, err := x.listeners(proto)
	if err != nil {
		return err
	}
	if sockets := outside[p.Host]; len(sockets) > 0 {
		x.note("portmap", fmt.Sprintf("port %s of the host free", p), x.owner(sockets)+" listens there: what comes from others goes to the container, not to it", finding.Mend{})
	}
	inside, err := listeners(x.pair.NS, proto)
	if err != nil {
		return err
	}
	if len(inside[p.Container]) == 0 {
		x.note("portmap", fmt.Sprintf("somebody to answer on port %d/%s in the sandbox", p.Container, p.Protocol), "nobody listens there", finding.Mend{})
	}
	return nil
}

// tuning is what is read of tuning's configuration.
type tuning struct {
	Sysctl   map[string]string `json:"sysctl"`
	MAC      string            `json:"mac"`
	MTU      int               `json:"mtu"`
	Promisc  bool              `json:"promisc"`
	AllMulti *bool             `json:"allmulti"`
	TxQLen   *int              `json:"txQLen"`
	Args     struct {
		CNI *tuning `json:"cni"`
	} `json:"args"`
}

// tuned looks at sysctls and attributes of the interface.
func (x *exam) tuned(c conf) error {
	var t tuning
	if err := json.Unmarshal(c.raw, &t); err != nil {
		return fmt.Errorf("tuning: configuration: %w", err)
	}
	keys := make([]string, 0, len(t.Sysctl))
	for k := range t.Sysctl {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		x.tunedSysctl(k, t.Sysctl[k])
	}
	x.tunedLink(t)
	return nil
}

// tunedMTU is the MTU that tuning gives the interface, 0 for none.
func (x *exam) tunedMTU() int {
	for _, c := range x.confs[1:] {
		var t tuning
		if c.Type == "tuning" && json.Unmarshal(c.raw, &t) == nil && t.MTU != 0 {
			return t.MTU
		}
	}
	return 0
}

func (x *exam) tunedSysctl(name, value string) {
	key := name
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		key = strings.Map(func(r rune) rune {
			if r == '.' {
				return '/'
			}
			if r == '/' {
				return '.'
			}
			return r
		}, key)
	}
	key = strings.Replace(key, "IFNAME", x.sandbox.Name, 1)
	now, err := sysctl.Get(x.pair.NS, key)
	have := ""
	switch {
	case err != nil:
		return // it may only be written: tuning's CHECK knows
	case !sysctl.Equal(now, value):
		have = "it is " + now
	}
	x.judge("tuning", name+" = "+value, have, finding.Run(x.inside(setting(key, value))))
}

func (x *exam) tunedLink(t tuning) {
	set := func(want, option string, same bool) {
		have := ""
		if !same {
			have = "it is not"
		}
		x.judge("tuning", want+" on "+x.sandbox.Name, have, finding.Run(x.inside("ip link set "+finding.Quote(x.sandbox.Name)+" "+option)))
	}
	l := x.sandbox
	const promisc, allMulti = 0x100, 0x200 // IFF_PROMISC, IFF_ALLMULTI
	if mac, err := net.ParseMAC(t.MAC); err == nil && t.Args.CNI == nil {
		set("MAC "+mac.String(), "address "+mac.String(), mac.String() == l.MAC.String())
	}
	if t.MTU != 0 && t.Args.CNI == nil {
		set(fmt.Sprintf("MTU %d", t.MTU), fmt.Sprintf("mtu %d", t.MTU), l.MTU == t.MTU)
	}
	if t.Promisc {
		set("promisc", "promisc on", l.Flags&promisc != 0)
	}
	if t.AllMulti != nil {
		set(fmt.Sprintf("allmulti %v", *t.AllMulti), "allmulticast "+map[bool]string{true: "on", false: "off"}[*t.AllMulti], (l.Flags&allMulti != 0) == *t.AllMulti)
	}
	if t.TxQLen != nil {
		set(fmt.Sprintf("txQLen %d", *t.TxQLen), fmt.Sprintf("txqueuelen %d", *t.TxQLen), l.TxQLen == *t.TxQLen)
	}
}
