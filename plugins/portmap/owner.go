package portmap

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nft"
)

// An element's comment names its owner: container, interface and network, of
// which the first and the last are cut so that all fit into the kernel's room.
const (
	idRoom      = 76
	networkRoom = 34
)

func comment(k journal.Key) string {
	return journal.Cut(k.ContainerID, idRoom) + " " + k.IfName + " " + journal.Cut(k.Network, networkRoom)
}

func (j *job) owner() string { return comment(j.key) }

// owner is what an element's comment says.
type owner struct{ id, ifName, network string }

func ownerOf(comment string) owner {
	w := strings.SplitN(comment+"  ", " ", 4)
	return owner{w[0], w[1], w[2]}
}

func (o owner) is(containerID string) bool { return o.id == journal.Cut(containerID, idRoom) }

// find returns the owner's record, and whether its sandbox lives. One without a
// record is dead: the journal lives as long as the rules.
func (o owner) find(dir journal.Dir) (journal.Record, bool) {
	k := journal.Key{Network: o.network, ContainerID: o.id, IfName: o.ifName, Plugin: "portmap"}
	r, err := dir.Read(k)
	if err != nil && (strings.Contains(o.id, "~") || strings.Contains(o.network, "~")) {
		r, err = o.search(dir)
	}
	if err != nil {
		return r, false
	}
	return r, netns.Is(r.Netns, r.NetnsID)
}

// recorded reports whether the owner has a record.
func (o owner) recorded(dir journal.Dir) bool {
	_, err := dir.Read(journal.Key{Network: o.network, ContainerID: o.id, IfName: o.ifName, Plugin: "portmap"})
	if err != nil {
		_, err = o.search(dir)
	}
	return err == nil
}

// search looks through all records for an owner whose names were cut.
func (o owner) search(dir journal.Dir) (journal.Record, error) {
	names, err := dir.Networks()
	for _, n := range names {
		records, _ := dir.Network(n)
		for _, r := range records {
			if r.Plugin == "portmap" && comment(r.Key) == o.id+" "+o.ifName+" "+o.network {
				return r, nil
			}
		}
	}
	if err == nil {
		err = fmt.Errorf("no record of %s", o.id)
	}
	return journal.Record{}, err
}

// networkNeeded reports whether another attachment of the network publishes. One
// that is about to will look for what is shared itself.
func (j *job) networkNeeded() (bool, error) {
	return j.dir.Any(j.key.Network, publishes, func(r journal.Record) bool { return r.Key != j.key && len(r.State) > 0 })
}

func publishes(plugin string) bool { return plugin == "portmap" }

// localnetNeeded reports whether another attachment needs route_localnet where
// this one does: of its own network, or of another one on the same bridge. The
// containers of one network are on one bridge, so of each other network one that
// needs it anywhere is looked at.
func (j *job) localnetNeeded() (bool, error) {
	needed, err := j.networkNeeded()
	if needed || err != nil || j.Localnet == "" {
		return needed, err
	}
	names, err := j.dir.Networks()
	for _, n := range names {
		if needed || err != nil {
			break
		}
		p := publication{}
		needed, err = j.dir.Any(n, publishes, func(r journal.Record) bool {
			return r.Key != j.key && (r.GetState(&p) != nil || p.Localnet != "")
		})
		needed = needed && (p.Localnet == "" || p.Localnet == j.Localnet)
	}
	return needed, err
}

// leaveLocalnet has the kernel no longer route packets from 127.0.0.1 to the
// container's network, where nobody else needs that. It comes before the guard
// goes.
func (j *job) leaveLocalnet(ctx context.Context, c *nft.Conn) error {
	if j.Localnet == "" {
		return nil
	}
	needed, err := j.localnetNeeded()
	if err == nil && !needed {
		needed, err = j.localnetSeen(ctx, c)
	}
	if err != nil || needed {
		return err
	}
	return j.unrouteLocalnet()
}

// localnetSeen reports whether the kernel has published ports of others near the
// container, of which no record speaks.
func (j *job) localnetSeen(ctx context.Context, c *nft.Conn) (bool, error) {
	if c.Available() {
		found, err := j.others(c, layoutOf(false))
		if err != nil || found.siblings || found.nearby {
			return true, err
		}
	}
	for _, tool := range []iptables.Tool{{}, {Legacy: true}} {
		some, err := anyOf(c, tool)
		if err != nil {
			return true, err
		}
		if !some {
			continue
		}
		saved, err := tool.Save(ctx, "nat")
		if err != nil || slices.ContainsFunc(iptables.Parse(saved), j.isNearby) {
			return true, err
		}
	}
	return false, nil
}

// anyOf reports whether the tool's IPv4 tables have published ports: to read them
// takes a process.
func anyOf(c *nft.Conn, tool iptables.Tool) (bool, error) {
	if tool.Legacy {
		return tool.Loaded("nat"), nil
	}
	if !c.Available() {
		return false, nil
	}
	info, err := c.GetChain(nft.Chain{Table: nft.Table{Family: nft.IPv4, Name: "nat"}, Name: dnatChain})
	if nft.Missing(err) {
		err = nil
	}
	return info != nil, err
}

// isNearby reports whether a rule leads to another container near this one.
func (j *job) isNearby(l iptables.Line) bool {
	to := l.Value("--to-destination")
	ip, err := netip.ParseAddr(to)
	if at, perr := netip.ParseAddrPort(to); perr == nil {
		ip, err = at.Addr(), nil
	}
	return err == nil && isContainers(l.Chain) && l.Chain != j.chainName("DN") && j.isNear(ip.AsSlice())
}

// String returns the mapping's host side as people write it.
func (m mapping) String() string {
	ip := "*"
	if m.HostIP.IsValid() {
		ip = m.HostIP.String()
	}
	if m.Count > 1 {
		return fmt.Sprintf("%s:%d-%d/%s", ip, m.Host, m.last(), m.Proto)
	}
	return fmt.Sprintf("%s:%d/%s", ip, m.Host, m.Proto)
}

// Published lists what the record of an attachment says that it has published,
// as people write it: "*:8080->80/tcp".
func Published(r journal.Record) (list []string) {
	var p publication
	if r.GetState(&p) != nil {
		return nil
	}
	for _, m := range p.Mappings {
		host, proto, _ := strings.Cut(m.String(), "/")
		to := fmt.Sprint(m.Container)
		if m.Count > 1 {
			to += fmt.Sprintf("-%d", m.Container+m.Count-1)
		}
		list = append(list, host+"->"+to+"/"+proto)
	}
	return list
}
