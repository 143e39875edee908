package portmap

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// recover settles what an attachment without a record has published by the elements
// that name it, where the call does not say.
func (j *job) recover(c *nft.Conn) error {
	if len(j.Mappings) > 0 && len(j.Targets) > 0 || !c.Available() {
		return nil
	}
	for _, v6 := range []bool{false, true} {
		l := layoutOf(v6)
		info, err := c.GetChain(l.network(j.key.Network))
		if nft.Missing(err) || err == nil && info == nil {
			continue
		}
		if err != nil {
			return err
		}
		if err := l.eachMap(c, j.learn); err != nil {
			return err
		}
	}
	return nil
}

// learn takes over the attachment's own of a map's elements.
func (j *job) learn(set nft.Set, elems []nft.Elem) error {
	own := func(e nft.Elem) bool { return !e.Expires && ownerOf(e.Comment) == ownerOf(j.owner()) }
	if set.Interval {
		i := slices.IndexFunc(protos, func(p proto) bool { return strings.HasPrefix(set.Name, "ranges_"+p.String()) })
		for _, r := range intervals(elems) {
			if own(r.elems[0]) {
				j.know(mapping{Proto: protos[i], Host: r.first, Container: r.first, Count: r.last - r.first + 1}, nil)
			}
		}
		return nil
	}
	for _, e := range elems {
		const port = 4 // as a part of a key or of data
		if !own(e) || len(e.Data) < port {
			continue
		}
		tail := portOf(e.Key)
		m := mapping{Proto: proto(tail[0]), Host: binary.BigEndian.Uint16(tail[port:]), Count: 1}
		m.HostIP, _ = netip.AddrFromSlice(e.Key[:len(e.Key)-len(tail)]) // none is any
		m.Container = binary.BigEndian.Uint16(e.Data[len(e.Data)-port:])
		j.know(m, e.Data[:len(e.Data)-port])
	}
	return nil
}

func (j *job) know(m mapping, target []byte) {
	if !slices.Contains(j.Mappings, m) {
		j.Mappings = append(j.Mappings, m)
	}
	ip, is := netip.AddrFromSlice(target)
	if is && !slices.ContainsFunc(j.Targets, func(t netip.Prefix) bool { return t.Addr() == ip }) {
		j.Targets = append(j.Targets, netip.PrefixFrom(ip, ip.BitLen()))
	}
}

// unrecordedConflict looks in iptables' rules for other containers that publish one
// of the ports and have no record, or none that can be read; known are the chains of
// those that have one.
func (j *job) unrecordedConflict(ctx context.Context, c *nft.Conn, known map[string]bool) error {
	for _, v6 := range []bool{false, true} {
		for _, tool := range []iptables.Tool{{V6: v6}, {V6: v6, Legacy: true}} {
			if !j.publishes(v6) {
				continue
			}
			some, err := anyUnknown(c, tool, known)
			if err != nil {
				return err
			}
			if !some {
				continue
			}
			saved, err := tool.Save(ctx, "nat")
			if err == nil {
				err = j.conflictInLines(iptables.Parse(saved), known, v6)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// anyUnknown reports whether the tool's table has chains of other containers than
// the known ones: to read it takes a process.
func anyUnknown(c *nft.Conn, tool iptables.Tool, known map[string]bool) (bool, error) {
	if tool.Legacy {
		return tool.Loaded("nat"), nil
	}
	if !c.Available() || !tool.Translated() {
		return false, nil
	}
	family := nft.IPv4
	if tool.V6 {
		family = nft.IPv6
	}
	rules, err := c.Rules(nft.Chain{Table: nft.Table{Family: family, Name: "nat"}, Name: dnatChain})
	if nft.Missing(err) {
		err = nil
	}
	return slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return isContainers(r.Target) && !known[r.Target] }), err
}

func (j *job) conflictInLines(lines []iptables.Line, known map[string]bool, v6 bool) error {
	owners := map[string]owner{}
	for _, l := range lines {
		if o, is := commentOwner(l.Value("--comment")); is && l.Chain == dnatChain {
			owners[l.Value("-j")] = o
		}
	}
	for _, l := range lines {
		o, entered := owners[l.Chain]
		published, is := mappingOf(l)
		if known[l.Chain] || !entered || !is || o.is(j.key.ContainerID) {
			continue
		}
		for _, m := range j.pick(v6) {
			if !m.overlaps(published) {
				continue
			}
			if err := j.conflict(m, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// commentOwner is who the comment of a rule that leads to a container's chain names.
func commentOwner(comment string) (o owner, is bool) {
	names, ours := strings.CutPrefix(comment, `dnat name: "`)
	network, id, is := strings.Cut(strings.TrimSuffix(names, `"`), `" id: "`)
	return owner{id: journal.Cut(id, idRoom), network: journal.Cut(network, networkRoom)}, ours && is
}

// mappingOf reads a rule that leads to a container.
func mappingOf(l iptables.Line) (m mapping, is bool) {
	if _, maps := destinationOf(l); !maps {
		return m, false
	}
	i := slices.IndexFunc(protos, func(p proto) bool { return p.String() == l.Value("-p") })
	first, last, _ := strings.Cut(l.Value("--dport"), ":")
	from, err := strconv.ParseUint(first, 10, 16)
	if i < 0 || err != nil {
		return m, false
	}
	m = mapping{Proto: protos[i], Host: uint16(from), Count: 1}
	if to, err := strconv.ParseUint(last, 10, 16); err == nil && to > from {
		m.Count = uint16(to-from) + 1
	}
	if p, err := netip.ParsePrefix(l.Value("-d")); err == nil {
		m.HostIP = p.Addr()
	}
	return m, true
}
