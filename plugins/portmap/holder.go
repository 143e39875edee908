package portmap

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// Port is a port that the record of an attachment says that it has published.
type Port struct {
	Host, Container, Count uint16
	HostIP                 netip.Addr // not valid: any
	Protocol               string     // "tcp", "udp", "sctp"
	// Holder is the container that has the port in the kernel's maps, where that
	// is another one, and Element names what it has there for nft(8).
	Holder, Element string
}

// String returns the port's host side as people write it.
func (p Port) String() string {
	m := mapping{HostIP: p.HostIP, Host: p.Host, Count: p.Count}
	for _, proto := range protos {
		if proto.String() == p.Protocol {
			m.Proto = proto
		}
	}
	return m.String()
}

// Ports returns what the record says was published, and who has it. Of what
// iptables publishes the holder is not known.
func Ports(r journal.Record) (list []Port, err error) {
	j := &job{key: r.Key}
	if err := r.GetState(&j.publication); err != nil {
		return nil, fmt.Errorf("record of %s: %w", r.ContainerID, err)
	}
	holders := map[string][2]string{}
	if !j.byIPTables() && len(j.Mappings) > 0 {
		if holders, err = j.holders(); err != nil {
			return nil, err
		}
	}
	for _, m := range j.Mappings {
		h := holders[m.String()]
		list = append(list, Port{m.Host, m.Container, m.Count, m.HostIP, m.Proto.String(), h[0], h[1]})
	}
	return list, nil
}

// holders returns other containers that have elements with the keys of j's, by
// the mapping, and those elements.
func (j *job) holders() (others map[string][2]string, err error) {
	c, err := nft.Dial(nil, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	others = map[string][2]string{}
	return others, j.each(func(g group, target netip.Prefix) error {
		for _, m := range j.pick(g.v6) {
			p := g.place(m, target.Addr(), j.owner())
			found, err := c.Find(p.set, p.elems[0].Key)
			if err != nil {
				return err
			}
			for _, e := range found {
				if o := ownerOf(e.Comment); !e.Expires && !o.is(j.key.ContainerID) {
					others[m.String()] = [2]string{o.id, p.element()}
				}
			}
		}
		return nil
	})
}

// element names the first element as nft(8) does.
func (p placed) element() string {
	key := fmt.Sprintf("%s . %d", p.m.Proto, p.m.Host)
	switch {
	case p.m.Count > 1:
		key = fmt.Sprintf("%d-%d", p.m.Host, p.m.last())
	case p.m.HostIP.IsValid():
		key = p.m.HostIP.String() + " . " + key
	}
	return fmt.Sprintf("%s %s %s '{ %s }'", p.set.Table.Family, p.set.Table.Name, p.set.Name, key)
}
