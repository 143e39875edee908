package portmap

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// unpublishUnrecorded removes what the reference has left for the attachment, and
// what is ours of it by the kernel's comments.
func (j *job) unpublishUnrecorded(ctx context.Context) error {
	err := j.locked(ctx, func(c *nft.Conn) error {
		defer j.unmark(ctx, c)
		if err := j.recover(c); err != nil {
			return err
		}
		j.findBlocks()
		if err := j.delLostLocalnet(ctx, c); err != nil {
			return err
		}
		if !c.Available() {
			return j.delLegacy(ctx)
		}
		return errors.Join(j.delTranslated(ctx, c), j.delLegacy(ctx), j.delRules(ctx, c))
	})
	j.flushTargets()
	return err
}

// delLostLocalnet ends route_localnet where this suite has made it: where the
// attachment has elements, or there is the guard that comes with it.
func (j *job) delLostLocalnet(ctx context.Context, c *nft.Conn) error {
	if len(j.Mappings) == 0 {
		return nil
	}
	if err := j.findLocalnet(); err != nil || j.Localnet == "" {
		return err
	}
	ours := false
	if c.Available() {
		info, err := c.GetChain(layoutOf(false).guard())
		if err != nil && !nft.Missing(err) {
			return err
		}
		ours = info != nil
	}
	for _, legacy := range []bool{false, true} {
		tool := iptables.Tool{Legacy: legacy}
		if ours || legacy && !tool.Loaded("raw") || !legacy && !c.Available() {
			continue
		}
		t, err := j.look(ctx, c, tool)
		if err != nil {
			return err
		}
		ours = t.guarded
	}
	if !ours {
		return nil
	}
	return j.leaveLocalnet(ctx, c)
}

// delRules removes the reference's rules in its nftables tables. They name the
// container, not its network: with a known address only those to that are this
// attachment's.
func (j *job) delRules(ctx context.Context, c *nft.Conn) error {
	for _, v6 := range []bool{false, true} {
		l := layoutOf(v6)
		there, err := c.HasTable(l.table)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		err = c.Update(ctx, "unpublish ports of "+j.key.ContainerID, func(tx *nft.Tx) error {
			if err := j.delTheirs(c, tx, l); err != nil || !tx.Empty() {
				return err
			}
			return j.sweep(c, tx, l)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// delTheirs removes the attachment's rules from one of the tables, and the whole
// table where they were the last rules and no network of ours is in it.
func (j *job) delTheirs(c *nft.Conn, tx *nft.Tx, l layout) error {
	ours, err := c.Rules(l.chain(networks))
	if err != nil {
		return err
	}
	found, stays := false, len(ours) > 0
	for _, name := range theirChains {
		rules, err := c.Rules(l.chain(name))
		if err != nil {
			return err
		}
		for _, r := range rules {
			if ownerOfRule(r).is(j.key.ContainerID) && j.concerns(r, l.v6) {
				found = true
				tx.DeleteRule(l.chain(name), r.Handle)
			} else if r.Target == "" && r.Comment != "" {
				stays = true
			}
		}
	}
	if found && !stays {
		tx.DeleteTable(l.table)
	}
	return nil
}

func (j *job) concerns(r nft.RuleInfo, v6 bool) bool {
	known := false
	for _, t := range j.Targets {
		if t.Addr().Is6() != v6 {
			continue
		}
		known = true
		own := func(v []byte) bool { return slices.Equal(v, t.Addr().AsSlice()) }
		if slices.ContainsFunc(r.Values, own) || slices.ContainsFunc(r.Loads, own) {
			return true
		}
	}
	return !known
}

// sweep removes the elements of those that go, and the network's chain where it is
// not needed.
func (j *job) sweep(c *nft.Conn, tx *nft.Tx, l layout) error {
	elements := func() error {
		sets, err := l.existing(c)
		for _, set := range sets {
			err = errors.Join(err, sweepSet(c, tx, set, j.goes))
		}
		return errors.Join(err, j.delSingles(c, tx, l))
	}
	info, err := c.GetChain(l.network(j.key.Network))
	if err != nil {
		return err
	}
	needed := false
	switch {
	case info != nil:
		needed, err = j.networkNeeded()
	case j.stale == nil && !j.search:
		return nil
	}
	if err != nil {
		return err
	}
	if info == nil || needed {
		return elements()
	}
	return j.delNetwork(c, tx, l, elements)
}

func sweepSet(c *nft.Conn, tx *nft.Tx, set nft.Set, stale func(owner) bool) error {
	elems, err := c.Elements(set)
	if err != nil {
		return err
	}
	if set.Interval {
		for _, r := range intervals(elems) {
			if stale(ownerOf(r.elems[0].Comment)) {
				tx.Remove(set, r.elems...)
			}
		}
		return nil
	}
	for _, e := range elems {
		// One that expires may be gone when the transaction comes, which would then fail.
		if !e.Expires && stale(ownerOf(e.Comment)) {
			tx.Remove(set, nft.Elem{Key: e.Key})
		}
	}
	return nil
}

// gc removes what is left of the network's attachments that do not live: stray
// elements, and the reference's chains.
func gc(ctx context.Context, c *plugin.Call, _ config) error {
	j := &job{key: journal.Key{Network: c.Conf.Name, Plugin: "portmap"}, dir: c.Journal, gate: c.Gate, note: c.Note}
	return j.locked(ctx, func(n *nft.Conn) error {
		living, err := c.ValidAttachments()
		if err != nil {
			return err
		}
		var errs []error
		if n.Available() {
			errs = append(errs, j.gcElements(ctx, n, living))
		}
		ids, err := j.commented(ctx, n)
		errs = append(errs, err)
		for _, id := range ids {
			if slices.ContainsFunc(living, func(a plugin.Attachment) bool { return a.ContainerID == id }) {
				continue
			}
			dead := *j
			dead.key.ContainerID = id
			errs = append(errs, dead.delTranslated(ctx, n), dead.delLegacy(ctx), dead.dropOwnMarkers(ctx, n))
		}
		return errors.Join(append(errs, j.gcShared(ctx, n))...)
	})
}

// gcShared removes the shared chains of iptables-nft that the reference, which
// never does, left behind its last container.
func (j *job) gcShared(ctx context.Context, n *nft.Conn) error {
	var errs []error
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		info, err := n.GetChain(nft.Chain{Table: nft.Table{Family: f, Name: "nat"}, Name: dnatChain})
		if err == nil && info != nil {
			err = j.delShared(ctx, n, f)
		}
		if !nft.Missing(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (j *job) gcElements(ctx context.Context, n *nft.Conn, living []plugin.Attachment) error {
	alive, ids := map[owner]bool{}, map[string]bool{}
	for _, a := range living {
		ids[journal.Cut(a.ContainerID, 32)] = true
		alive[ownerOf(comment(journal.Key{Network: j.key.Network, ContainerID: a.ContainerID, IfName: a.IfName}))] = true
	}
	j.stale = func(o owner) bool { return o.network == journal.Cut(j.key.Network, networkRoom) && !alive[o] }
	j.gone = func(id string) bool { return !ids[id] }
	for _, v6 := range []bool{false, true} {
		err := n.Update(ctx, "collect published ports of "+j.key.Network, func(tx *nft.Tx) error {
			return j.sweep(n, tx, layoutOf(v6))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Collect removes the elements of one owner, whose names a comment may have cut, or
// without an interface all that the container has, also by iptables; and the
// network's chain where nothing needs it. Without a container it removes the chain
// alone.
func Collect(ctx context.Context, g gate.Gate, dir journal.Dir, k journal.Key) error {
	k.Plugin = "portmap"
	j := &job{key: k, dir: dir, gate: g, note: func(string, ...any) {}}
	own := ownerOf(comment(journal.Key{Network: k.Network, ContainerID: k.ContainerID, IfName: "-"}))
	j.stale = func(o owner) bool {
		return k.ContainerID != "" && o.id == own.id && o.network == own.network && (k.IfName == "" || o.ifName == k.IfName)
	}
	j.gone = func(id string) bool {
		return k.ContainerID != "" && k.IfName == "" && id == journal.Cut(k.ContainerID, 32)
	}
	return j.locked(ctx, func(n *nft.Conn) error {
		if err := j.dropOwnMarkers(ctx, n); err != nil { // without a container it has none
			return err
		}
		if k.ContainerID != "" && k.IfName == "" {
			if err := errors.Join(j.delTranslated(ctx, n), j.delLegacy(ctx), j.forgetTheirs(ctx, n)); err != nil {
				return err
			}
		}
		for _, v6 := range []bool{false, true} {
			err := n.Update(ctx, "collect published ports of "+k.Network+" "+k.ContainerID, func(tx *nft.Tx) error {
				return j.sweep(n, tx, layoutOf(v6))
			})
			if err != nil && !nft.Missing(err) {
				return err
			}
		}
		return nil
	})
}

// forgetTheirs removes the reference's rules of the container from the nftables
// tables. They do not say which of its networks they are for.
func (j *job) forgetTheirs(ctx context.Context, c *nft.Conn) error {
	if !c.Available() {
		return nil
	}
	for _, v6 := range []bool{false, true} {
		err := c.Update(ctx, "unpublish ports of "+j.key.ContainerID, func(tx *nft.Tx) error { return j.delTheirs(c, tx, layoutOf(v6)) })
		if err != nil && !nft.Missing(err) {
			return err
		}
	}
	return nil
}

// commented returns the containers of the network that iptables has chains of,
// as the comments of the rules that lead there say.
func (j *job) commented(ctx context.Context, c *nft.Conn) (ids []string, err error) {
	take := func(comment string) {
		if id, ok := strings.CutPrefix(comment, `dnat name: "`+j.key.Network+`" id: "`); ok {
			ids = append(ids, strings.TrimSuffix(id, `"`))
		}
	}
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		if !c.Available() {
			break
		}
		rules, err := c.Rules(nft.Chain{Table: nft.Table{Family: f, Name: "nat"}, Name: dnatChain})
		if err != nil && !nft.Missing(err) {
			return nil, err
		}
		for _, r := range rules {
			take(r.Comment)
		}
	}
	for _, tool := range iptables.Both(true) {
		if !tool.Loaded("nat") {
			continue
		}
		saved, err := tool.Save(ctx, "nat")
		if err != nil {
			return nil, err
		}
		for _, l := range iptables.Parse(saved) {
			take(l.Value("--comment"))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
