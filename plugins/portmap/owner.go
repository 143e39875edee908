package portmap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
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

// owner is what an element's comment says. iptables' comments say no interface, and
// those of the reference's nftables rules no network either.
type owner struct{ id, ifName, network string }

func ownerOf(comment string) owner {
	w := strings.SplitN(comment+"  ", " ", 4)
	return owner{w[0], w[1], w[2]}
}

func (o owner) is(containerID string) bool { return o.id == journal.Cut(containerID, idRoom) }

// find returns the owner's record of published ports, which may be missing or not
// to be read, and all records of its attachment, in whichever network's directory:
// the comment may have cut its names.
func (o owner) find(dir journal.Dir) (own *journal.Record, all []journal.Record, err error) {
	networks := []string{o.network}
	if o.network == "" || strings.Contains(o.id+o.network, "~") {
		if networks, err = dir.Networks(); err != nil {
			return nil, nil, err
		}
	}
	for _, n := range networks {
		records, nerr := dir.Network(n)
		err = errors.Join(err, nerr)
		for _, r := range records {
			if k := ownerOf(comment(r.Key)); k.id != o.id || o.network != "" && k.network != o.network || o.ifName != "" && k.ifName != o.ifName {
				continue
			}
			all = append(all, r)
			if r.Plugin == "portmap" {
				own = &r
			}
		}
	}
	return own, all, err
}

// judge says whether the owner exists. Without a record of its ports nothing says
// which sandbox they lead to, unless another record shows that it is alive.
func (o owner) judge(dir journal.Dir) (evidence.Verdict, error) {
	own, all, err := o.find(dir)
	j, jerr := evidence.New()
	if jerr != nil {
		return evidence.Verdict{}, jerr
	}
	v := j.Of(all)
	if own == nil && v.State != evidence.Alive {
		v = evidence.Verdict{State: evidence.Unknown, Why: "its record of published ports is missing"}
		if err != nil {
			v.Why = fmt.Sprintf("its record cannot be read: %v", err)
		}
	}
	return v, j.Close()
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
	if err := j.findNear(); err != nil {
		return false, err
	}
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

// anyOf reports whether the tool's IPv4 tables publish ports of containers: to read
// them takes a process. Markers publish nothing.
func anyOf(c *nft.Conn, tool iptables.Tool) (bool, error) {
	if tool.Legacy {
		return tool.Loaded("nat"), nil
	}
	if !c.Available() {
		return false, nil
	}
	rules, err := c.Rules(markers())
	if nft.Missing(err) {
		err = nil
	}
	return slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return isContainers(r.Target) }), err
}

// isNearby reports whether a rule leads to another container near this one, or to
// another interface of it.
func (j *job) isNearby(l iptables.Line) bool {
	ip, is := destinationOf(l)
	return is && isContainers(l.Chain) && (l.Chain != j.chainName("DN") || !j.isOwn(ip, nil)) && j.isNear(ip.AsSlice())
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
