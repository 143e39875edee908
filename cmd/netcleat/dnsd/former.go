package dnsd

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// formerly is the plugin in the keys of containers that containers/dnsname attached.
const formerly = "containers/dnsname"

// formers answers with the names that containers/dnsname left on all networks.
func (s *server) formers() error {
	var errs []error
	for network := range dnsname.Formers(s.dir) {
		errs = append(errs, s.former(network))
	}
	return errors.Join(errs...)
}

// former answers with the names that containers/dnsname left on a network, unless its
// own dnsmasq does; s.mu is held. What its file no longer has is forgotten.
func (s *server) former(network string) error {
	f, found := dnsname.FormerOf(s.dir, network)
	var list []*entry
	var err error
	if found && !f.Runs() {
		list, err = s.inherit(network, f)
	}
	var errs []error
	for _, e := range list {
		if old := s.book.get(e.Key); old != nil && slices.Equal(old.Addrs, e.Addrs) && slices.Equal(old.all(), e.all()) {
			continue
		}
		if s.enter(e) {
			errs = append(errs, s.open(e))
		}
	}
	for _, k := range s.left[network] {
		if !slices.ContainsFunc(list, func(e *entry) bool { return e.Key == k }) {
			s.forget(k)
		}
	}
	delete(s.left, network)
	for _, e := range list {
		s.left[network] = append(s.left[network], e.Key)
	}
	return errors.Join(append(errs, err)...)
}

// inherit makes entries of the file's lines. Whether such a container has a way out is
// not known: nothing is forwarded for it, and its resolver asks the next server.
func (s *server) inherit(network string, f dnsname.Former) (list []*entry, err error) {
	lines, err := f.Hosts()
	if err != nil {
		return nil, err
	}
	link := f.Option("interface")
	on, err := net.InterfaceByName(link)
	if err != nil {
		return nil, nil // the bridge was removed, and with it all that was on it
	}
	prefixes, err := prefixesOf(on)
	if err != nil {
		return nil, err
	}
	byName := map[string]*entry{}
	for _, words := range lines {
		addr, err := netip.ParseAddr(words[0])
		name, ok := dnsname.Canonical(words[1])
		i := slices.IndexFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
		if err != nil || !ok || i < 0 {
			continue
		}
		e := byName[name]
		if e == nil {
			k := journal.Key{Network: network, ContainerID: name, Plugin: formerly}
			e = &entry{Key: k, sandbox: formerly + " " + network + " " + name}
			e.Domain, _ = dnsname.Canonical(f.Option("domain"))
			e.Link, e.Index, e.Names = link, on.Index, []string{name}
			byName[name], list = e, append(list, e)
		}
		e.Addrs = append(e.Addrs, netip.PrefixFrom(addr, prefixes[i].Bits()))
		if gw := prefixes[i].Addr(); !slices.Contains(e.Gateways, gw) {
			e.Gateways = append(e.Gateways, gw)
		}
		for _, alias := range words[2:] {
			if alias, ok := dnsname.Canonical(alias); ok && !slices.Contains(e.all(), alias) {
				e.Aliases = append(e.Aliases, alias)
			}
		}
	}
	return list, nil
}

// prefixesOf are an interface's addresses, but for those of the link alone.
func prefixesOf(on *net.Interface) (list []netip.Prefix, err error) {
	all, err := on.Addrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			list = append(list, p)
		}
	}
	return list, err
}
