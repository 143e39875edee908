package create

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/plugins/dnsname"
)

// host is what there is on the host already.
type host struct {
	Links    map[string]string // names, and of which kind they are
	Alts     map[string]string // alternative names, and whose they are
	Addrs    []held            // addresses' subnets, and routes
	Local    []local
	Networks []network
	// Global is the host's own part of an IPv6 address (RFC 4193).
	Global [5]byte
}

// local is an address of the host.
type local struct {
	Addr netip.Addr
	Link string
}

// network is one that is configured, or that something is attached to.
type network struct {
	Name, Bridge string
	Where        string // the file, or what else tells of it
	Subnets      []netip.Prefix
}

// draft is a network in the making.
type draft struct {
	request
	host    host
	plugins []*object // the main one first
}

// plan returns the list that the request asks for, or says why it cannot be.
func plan(r request, h host) (list, error) {
	p := &draft{request: r, host: h}
	if err := p.nameFree(); err != nil {
		return list{}, err
	}
	p.assemble()
	for _, o := range r.Options {
		if err := p.set(o[0], o[1]); err != nil {
			return list{}, err
		}
	}
	for _, step := range []func() error{p.parentFits, p.bridgeFree, p.fits, p.chooseSubnets, p.addIPAM} {
		if err := step(); err != nil {
			return list{}, err
		}
	}
	p.addCapabilities()
	l := list{CNIVersion: "1.0.0", CNIVersions: []string{"1.0.0", "1.1.0"}, Name: r.Name, DisableGC: true, Mark: mark, Labels: r.Labels}
	for _, o := range p.plugins {
		l.Plugins = append(l.Plugins, *o)
	}
	return l, nil
}

func (p *draft) nameFree() error {
	for _, n := range p.host.Networks {
		if n.Name == p.Name {
			return fmt.Errorf("network %q: exists already: %s", p.Name, n.Where)
		}
	}
	return nil
}

// assemble chooses the plugins: as nerdctl and podman do.
func (p *draft) assemble() {
	main := object{{"type", p.Driver}}
	routed := !p.Internal && p.IPAM != noIPAM
	switch p.Driver {
	case "bridge":
		main.set("bridge", p.bridgeName())
		if routed || p.Names == With {
			main.set("isGateway", true)
		}
		if routed {
			main.set("ipMasq", true)
		}
		main.set("hairpinMode", true)
	case "ptp":
		main.set("ipMasq", true)
	case "macvlan", "ipvlan", "vlan":
		main.set("master", "")
	}
	p.plugins = []*object{&main}
	if p.Driver != "bridge" && p.Driver != "ptp" {
		return
	}
	if routed {
		firewall := object{{"type", "firewall"}}
		if p.Driver == "bridge" {
			firewall.set("ingressPolicy", "same-bridge")
		}
		p.plugins = append(p.plugins, &object{{"type", "portmap"}, {"capabilities", object{{"portMappings", true}}}}, &firewall)
	}
	p.plugins = append(p.plugins, &object{{"type", "tuning"}})
	if p.Names == With {
		p.plugins = append(p.plugins, p.names())
	}
}

// names is the plugin that gives containers names. They have a domain, too, as those of
// podman have, unless the network's name cannot be a part of one.
func (p *draft) names() *object {
	conf := object{{"type", dnsname.Name}}
	if domain, ok := dnsname.Canonical("dns." + p.Name); ok {
		conf.set("domainName", domain)
	}
	conf.set("capabilities", object{{"aliases", true}})
	return &conf
}

// plugin returns the plugin's configuration, or nil.
func (p *draft) plugin(name string) *object {
	for _, o := range p.plugins {
		if o.get("type") == name {
			return o
		}
	}
	return nil
}

// maxLinkName is what the kernel takes, without the final zero byte.
const maxLinkName = 15

// bridgeName is br-NAME, or where no link can have that name br- and a part of
// a hash, as nerdctl has it.
func (p *draft) bridgeName() string {
	if name := "br-" + p.Name; len(name) <= maxLinkName {
		return name
	}
	hash := sha256.Sum256([]byte(p.Name))
	return "br-" + hex.EncodeToString(hash[:6])
}

func (p *draft) bridgeFree() error {
	if p.Driver != "bridge" {
		return nil
	}
	bridge, _ := p.plugins[0].get("bridge").(string)
	other := "-o com.docker.network.bridge.name=NAME names another"
	for _, n := range p.host.Networks {
		if n.Bridge == bridge {
			return fmt.Errorf("bridge %q: is that of network %s (%s): %s", bridge, n.Name, n.Where, other)
		}
	}
	_, exists := p.host.Links[bridge]
	if _, alt := p.host.Alts[bridge]; exists || alt {
		return fmt.Errorf("bridge %q: the host has an interface of that name already: %s", bridge, other)
	}
	return nil
}

func (p *draft) needsParent() bool {
	return slices.Contains([]string{"macvlan", "ipvlan", "vlan"}, p.Driver)
}

// parentFits looks for the parent, and writes it down.
func (p *draft) parentFits() error {
	switch {
	case !p.needsParent() && p.Parent != "":
		return fmt.Errorf("parent %q: driver %s has none", p.Parent, p.Driver)
	case !p.needsParent():
		return nil
	case p.Parent == "":
		return fmt.Errorf("parent is missing: driver %s needs one: --parent IF (there are: %s)", p.Driver, strings.Join(p.links(), ", "))
	}
	if name, ok := p.host.Alts[p.Parent]; ok {
		p.Parent = name
	}
	if _, exists := p.host.Links[p.Parent]; exists {
		p.plugins[0].set("master", p.Parent)
		return nil
	}
	link, id, tagged := strings.Cut(p.Parent, ".")
	if _, exists := p.host.Links[link]; exists && tagged {
		return fmt.Errorf("parent %q: no such interface (ip link add link %s name %s type vlan id %s makes it)", p.Parent, link, p.Parent, id)
	}
	return fmt.Errorf("parent %q: no such interface (there are: %s)", p.Parent, strings.Join(p.links(), ", "))
}

// links are the host's that can be a parent.
func (p *draft) links() (names []string) {
	for name, kind := range p.host.Links {
		if name != "lo" && kind != "veth" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// fits refuses what contradicts itself.
func (p *draft) fits() error {
	main := p.plugins[0]
	switch {
	case p.Internal && p.Driver == "ptp":
		return fmt.Errorf("internal: driver ptp reaches even its own network by the host's routes: use driver bridge")
	case p.Internal && main.get("ipMasq") == true:
		return fmt.Errorf("internal: contradicts ipMasq, which is for what leaves the network")
	case p.Names == With && p.Driver == "bridge" && main.get("isGateway") != true:
		return fmt.Errorf("option isGateway: without it the host has no address on the network, and names are not answered: add --no-dns")
	case p.bindsHost() && p.plugin("portmap").get("backend") != "nftables":
		return fmt.Errorf("option %s: is a condition of portmap's nftables backend: leave portmap.backend out", optHostBinding)
	case p.Driver == "vlan" && main.get("vlanId") == nil:
		return fmt.Errorf("driver vlan: -o vlanId=NUMBER is missing")
	case p.alone() && slices.ContainsFunc(p.Subnets, func(n *subnet) bool { return n.Gateway.IsValid() }):
		return fmt.Errorf("gateway: ipvlan of layer 3 has none, the host routes: leave it out")
	case p.Driver == "dummy" && slices.ContainsFunc(p.Subnets, func(n *subnet) bool { return n.Gateway.IsValid() }):
		return fmt.Errorf("gateway: driver dummy leads nowhere: leave it out")
	}
	return nil
}

// bindsHost reports whether ports are published at one address of the host.
func (p *draft) bindsHost() bool {
	o := p.plugin("portmap")
	return o != nil && o.get("conditionsV4") != nil
}

// alone reports whether containers have no neighbours: ipvlan of layer 3.
func (p *draft) alone() bool {
	mode, _ := p.plugins[0].get("mode").(string)
	return p.Driver == "ipvlan" && strings.HasPrefix(mode, "l3")
}

// chooseSubnets refuses subnets that are somebody's, and chooses those that
// nobody names.
func (p *draft) chooseSubnets() error {
	if !p.ranged() {
		return nil
	}
	taken := p.taken()
	v4, v6 := false, false
	for _, n := range p.Subnets {
		v4, v6 = v4 || n.Prefix.Addr().Is4(), v6 || n.Prefix.Addr().Is6()
		if h, is := overlapping(taken, n.Prefix); is {
			return fmt.Errorf("subnet %s: overlaps with %s", n.Prefix, h.By)
		}
	}
	if p.IPAM == clusterLocal {
		return nil // they are all named
	}
	if p.IPv4 && !v4 {
		n, err := free4(taken)
		if err != nil {
			return err
		}
		p.Subnets = slices.Insert(p.Subnets, 0, &subnet{Prefix: n})
	}
	if p.IPv6 && !v6 {
		n, err := free6(p.host.Global, p.Name, taken)
		if err != nil {
			return err
		}
		p.Subnets = append(p.Subnets, &subnet{Prefix: n})
	}
	return nil
}

// taken is what the network must not overlap with. Containers on a parent share
// its LAN, so what it leads to is none of that.
func (p *draft) taken() (all []held) {
	for _, n := range p.host.Networks {
		for _, s := range n.Subnets {
			all = append(all, held{Prefix: s, By: fmt.Sprintf("subnet %s of network %s (%s)", s, n.Name, n.Where)})
		}
	}
	for _, h := range p.host.Addrs {
		if !p.onParent(h.Link) {
			all = append(all, h)
		}
	}
	return all
}

// onParent reports whether the link is the parent, or an interface of the host in
// one of the parent's VLANs.
func (p *draft) onParent(link string) bool {
	return p.Parent != "" && (link == p.Parent || strings.HasPrefix(link, p.Parent+"."))
}

// addIPAM writes down where addresses come from, and the default routes.
func (p *draft) addIPAM() error {
	main := p.plugins[0]
	switch p.IPAM {
	case noIPAM:
		return nil
	case dhcp:
		main.set("ipam", object{{"type", dhcp}})
		return nil
	}
	var ranges [][]object
	var routes []object
	for _, n := range p.Subnets {
		set, err := p.rangeSet(n)
		if err != nil {
			return err
		}
		ranges = append(ranges, set)
		if dst := defaultRoute(n.Prefix); !slices.ContainsFunc(routes, func(o object) bool { return o.get("dst") == dst }) {
			route := object{{"dst", dst}}
			if p.alone() {
				route.set("scope", scopeLink)
			}
			routes = append(routes, route)
		}
	}
	ipam := object{{"type", p.IPAM}, {"ranges", ranges}}
	if !p.Internal && p.Driver != "dummy" {
		ipam.set("routes", routes)
	}
	main.set("ipam", ipam)
	return nil
}

// addCapabilities says what runtimes may ask for: an address, a hardware address.
func (p *draft) addCapabilities() {
	var all object
	if p.ranged() {
		all.set("ips", true)
	}
	if p.Driver == "bridge" || p.Driver == "macvlan" || p.Driver == "ptp" {
		all.set("mac", true)
	}
	if len(all) > 0 {
		p.plugins[0].set("capabilities", all)
	}
}

// scopeLink is a route's to what is on the link itself (rtnetlink(7)).
const scopeLink = 253

func defaultRoute(n netip.Prefix) string {
	if n.Addr().Is4() {
		return "0.0.0.0/0"
	}
	return "::/0"
}

// rangeSet is what host-local hands out of a subnet. On a parent's LAN the host's
// own addresses are left out.
func (p *draft) rangeSet(n *subnet) (set []object, err error) {
	named := !p.alone() && p.Driver != "dummy"
	if named && !n.Gateway.IsValid() {
		n.Gateway = n.Prefix.Addr().Next()
	}
	for _, l := range p.host.Local {
		if !p.onParent(l.Link) || !n.Prefix.Contains(l.Addr) {
			continue
		}
		if l.Addr == n.Gateway && p.Driver != "vlan" && !p.Internal {
			return nil, fmt.Errorf("gateway %s: is the host's own on %s, which containers on it cannot reach: --gateway ROUTER", l.Addr, l.Link)
		}
		n.Omit = append(n.Omit, l.Addr)
	}
	all, err := n.spans()
	if err != nil {
		return nil, err
	}
	whole := len(all) == 1 && !n.Range.IsValid() && len(n.Omit) == 0
	for _, s := range all {
		o := object{{"subnet", n.Prefix}}
		if !whole {
			o.set("rangeStart", s.first)
			o.set("rangeEnd", s.last)
		}
		if named {
			o.set("gateway", n.Gateway)
		}
		set = append(set, o)
	}
	return set, nil
}
