package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/veth"
)

// The table of ingressPolicy. Its rules are always the same; which bridges they
// are for is in the sets.
var (
	table   = nft.Table{Family: nft.Inet, Name: "cni_firewall"}
	hook    = nft.Chain{Table: table, Name: "forward", Hook: &nft.Hook{Type: "filter", Num: unix.NF_INET_FORWARD, Priority: -10}}
	bridges = nft.Set{Table: table, Name: "bridges", Key: []nft.Type{nft.TypeName}}
	within  = nft.Set{Table: table, Name: "within", Key: []nft.Type{nft.TypeName, nft.TypeName}}
	apart   = nft.Set{Table: table, Name: "apart", Key: []nft.Type{nft.TypeName, nft.TypeName}}
)

// findLink finds the bridge that the policy is for, and the container's port.
func (j *job) findLink(c *nl.Conn, prev *current.Result) error {
	if j.Policy == open {
		return nil
	}
	if len(prev.Interfaces) == 0 {
		return cnierr.Config("interface needs to be set for ingress policy %q, make sure to chain \"firewall\" plugin with \"bridge\"", string(j.Policy))
	}
	for _, i := range prev.Interfaces {
		if !onHost(i) {
			continue
		}
		l, err := c.LinkByName(i.Name)
		if err != nil {
			return fmt.Errorf("ingressPolicy %s: %w", j.Policy, err)
		}
		if err := j.look(c, l); err != nil {
			return err
		}
	}
	if j.Link == "" {
		return cnierr.Config("ingressPolicy %s: prevResult has no interface of the host, make sure to chain \"firewall\" plugin with \"bridge\"", string(j.Policy))
	}
	if j.Policy == isolated && j.Bridge && j.Port == "" {
		return cnierr.Config("ingressPolicy isolated: prevResult does not name the container's port of bridge %s", j.Link)
	}
	return nil
}

// look takes the bridge itself, or a port of one, or any other link on its own.
func (j *job) look(c *nl.Conn, l *nl.Link) error {
	switch {
	case l.Kind == "bridge":
		j.Link, j.Bridge = l.Name, true
	case l.PortKind == "bridge":
		j.Port = l.Name
		if j.Bridge {
			return nil
		}
		master, err := c.LinkByIndex(l.Master)
		if err != nil {
			return fmt.Errorf("ingressPolicy %s: bridge of %s: %w", j.Policy, l.Name, err)
		}
		j.Link, j.Bridge = master.Name, true
	case j.Link == "":
		j.Link = l.Name
	}
	return nil
}

// elements are what the sets have for the attachment's bridge.
func (j *job) elements() map[*nft.Set]nft.Elem {
	name, note := nft.PadName(j.Link), j.note()
	pair := nft.Parts(name, name)
	m := map[*nft.Set]nft.Elem{&bridges: {Key: name, Comment: note}, &within: {Key: pair, Comment: note}}
	if j.Policy == isolated {
		m[&apart] = nft.Elem{Key: pair, Comment: note}
	}
	return m
}

// note is the comment of the network's elements.
func (j *job) note() string { return journal.Cut("net: "+j.key.Network, 120) }

// isolate enforces the policy. Where that cannot be done ADD fails: a container
// is never more open than its configuration says.
func (j *job) isolate(ctx context.Context, c *nft.Conn) error {
	if j.Policy == open || j.Policy == "" {
		return nil
	}
	if !c.Available() {
		return cnierr.Newf(cnierr.UnsupportedField, "ingressPolicy %s: the kernel lacks nf_tables", j.Policy)
	}
	err := c.Update(ctx, "isolate "+j.Link, func(tx *nft.Tx) error {
		have, err := c.Ruleset(table)
		if err != nil {
			return err
		}
		if have.Lacks(isolation()...) != nil {
			ensureTable(have, tx)
		}
		for set, e := range j.elements() {
			found, err := c.Find(*set, e.Key)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				tx.Add(*set, e)
			}
		}
		return nil
	})
	if err != nil || j.Policy != isolated || !j.Bridge {
		return err
	}
	return j.isolatePort()
}

func ensureTable(have nft.Ruleset, tx *nft.Tx) {
	tx.EnsureTable(table, "CNI firewall plugin: ingressPolicy")
	tx.EnsureChain(hook)
	for _, s := range []nft.Set{bridges, within, apart} {
		tx.EnsureSet(s)
	}
	tx.Ensure(have, isolation()...)
}

// isolation is the rules that look the bridges up.
func isolation() []nft.Rule {
	in, out := nft.Meta(unix.NFT_META_IIFNAME, 0), nft.Meta(unix.NFT_META_OIFNAME, 4)
	return []nft.Rule{
		{Chain: hook, Comment: "isolated", Exprs: []nft.Expr{in, out, nft.InSet(apart.Name, 0), nft.Decide(nft.Drop)}},
		{Chain: hook, Comment: "same bridge", Exprs: []nft.Expr{in, out, nft.InSet(within.Name, 0), nft.Decide(nft.Return)}},
		{Chain: hook, Comment: "another bridge", Exprs: []nft.Expr{
			in, nft.InSet(bridges.Name, 0), nft.Meta(unix.NFT_META_OIFNAME, 0), nft.InSet(bridges.Name, 0), nft.Decide(nft.Drop),
		}},
	}
}

// isolatePort keeps frames between the bridge's ports from each other; they do
// not pass the rules unless br_netfilter has them do so.
func (j *job) isolatePort() error {
	on, err := j.portIsolated()
	if err != nil || on {
		return err
	}
	err = j.setPort("isolate port "+j.Port, 1)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = cnierr.With(cnierr.UnsupportedField, err)
	}
	j.flagged = err == nil
	return err
}

// restorePort takes isolatePort back. DEL need not: the port goes with its link.
func (j *job) restorePort() error {
	if !j.flagged {
		return nil
	}
	return j.setPort("stop isolating port "+j.Port, 0)
}

func (j *job) setPort(what string, on uint8) error {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, j.gate)
	if err != nil {
		return err
	}
	m := nl.SetLinkByName(what, j.Port)
	m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_SLAVE_KIND, "bridge")
	m.Begin(unix.IFLA_INFO_SLAVE_DATA).Uint8(unix.IFLA_BRPORT_ISOLATED, on).End().End()
	return errors.Join(c.Do(m), c.Close())
}

// portIsolated reports whether the port has the flag.
func (j *job) portIsolated() (on bool, err error) {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	l, err := c.LinkByName(j.Port)
	if err != nil {
		return false, err
	}
	nl.Attrs(l.PortInfo, func(typ uint16, d []byte) {
		if typ == unix.IFLA_BRPORT_ISOLATED {
			on = nl.Uint8(d) != 0
		}
	})
	return on, nil
}

// unisolate removes the bridge from the sets where no other attachment of any
// network has a policy for it, and the table after the last bridge.
func (j *job) unisolate(ctx context.Context, c *nft.Conn) error {
	if j.Policy == open || j.Policy == "" || !c.Available() {
		return nil
	}
	shared, err := j.linkNeeded(func(o needs) bool { return o.Policy != open })
	strict := false
	if err == nil && shared && j.Policy == isolated {
		strict, err = j.linkNeeded(func(o needs) bool { return o.Policy == isolated })
	}
	if err != nil {
		return err
	}
	return c.Update(ctx, "end policy of "+j.Link, func(tx *nft.Tx) error {
		gone := j.elements()
		if shared {
			delete(gone, &bridges)
			delete(gone, &within)
		}
		if strict {
			delete(gone, &apart)
		}
		if err := remove(c, tx, gone); err != nil || tx.Empty() || shared {
			return err
		}
		all, err := c.Elements(bridges)
		if err == nil && !slices.ContainsFunc(all, func(e nft.Elem) bool { return !slices.Equal(e.Key, nft.PadName(j.Link)) }) {
			tx.DeleteTable(table)
		}
		return err
	})
}

// remove removes those of the elements that are there.
func remove(c *nft.Conn, tx *nft.Tx, elems map[*nft.Set]nft.Elem) error {
	for set, e := range elems {
		found, err := c.Find(*set, e.Key)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			tx.Remove(*set, nft.Elem{Key: e.Key})
		}
	}
	return nil
}

// gcIsolation ends the policy of bridges that the sets have from the network.
func (j *job) gcIsolation(ctx context.Context, c *nft.Conn) error {
	all, err := c.Elements(bridges)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range all {
		if e.Comment == j.note() {
			errs = append(errs, j.endPolicy(ctx, c, strings.TrimRight(string(e.Key), "\x00")))
		}
	}
	return errors.Join(errs...)
}

// endPolicy ends whatever policy a bridge has that no other attachment needs.
func (j *job) endPolicy(ctx context.Context, c *nft.Conn, bridge string) error {
	if bridge == "" {
		return nil
	}
	dead := *j
	dead.needs = needs{Policy: isolated, Link: bridge, Bridge: true}
	return dead.unisolate(ctx, c)
}

// linkNeeded reports whether another attachment has such a policy for the bridge.
// A link that is no bridge is one container's alone.
func (j *job) linkNeeded(match func(needs) bool) (bool, error) {
	if !j.Bridge {
		return false, nil
	}
	on := func(o needs) bool { return o.Link == j.Link && match(o) }
	needed, err := j.needed(on)
	if needed || err != nil {
		return needed, err
	}
	names, err := j.dir.Networks()
	for _, n := range names {
		if needed || err != nil {
			break
		}
		needed, err = j.neededIn(n, on)
	}
	if needed || err != nil {
		return needed, err
	}
	return j.unrecordedOnLink(names)
}

// unrecordedOnLink reports whether a container on the bridge, of whichever network,
// runs without a record. Other networks need no firewall: one of theirs that any
// plugin has a record of is no sign that this one's was lost.
func (j *job) unrecordedOnLink(networks []string) (bool, error) {
	known, err := j.known()
	for _, n := range networks {
		if err != nil {
			return false, err
		}
		if n == journal.NetworkName(j.key.Network) {
			continue
		}
		var records []journal.Record
		records, err = j.dir.Readable(n)
		for _, r := range records {
			known = append(known, r.Key)
		}
	}
	if err != nil {
		return false, err
	}
	lost, err := veth.UnrecordedOn(j.Link, known)
	return slices.ContainsFunc(lost, j.stays), err
}

func (j *job) checkIsolation(c *nft.Conn) error {
	if j.Policy == open || j.Policy == "" {
		return nil
	}
	have, err := c.Ruleset(table)
	if err != nil {
		return err
	}
	if lacks := have.Lacks(isolation()...); lacks != nil {
		return cnierr.Check("ingressPolicy %s: %s is missing in %s (netcleat reconcile restores it)", j.Policy, lacks, table)
	}
	for set, e := range j.elements() {
		found, err := c.Find(*set, e.Key)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return cnierr.Check("ingressPolicy %s: %s is not in set %s of %s (netcleat reconcile restores it)", j.Policy, j.Link, set.Name, table)
		}
	}
	if j.Policy != isolated || !j.Bridge {
		return nil
	}
	on, err := j.portIsolated()
	if err == nil && !on {
		return cnierr.Check("ingressPolicy isolated: port %s is not isolated (netcleat reconcile restores it)", j.Port)
	}
	return err
}
