// Package masq gives the containers of a network the host's address when they
// speak to the world beyond it.
//
// With nftables there is one rule for each prefix of which a network hands out
// every address, in the reference's table, or for each address where the host is
// not its gateway or nothing is known of what the network hands out. It is made with
// the first container in the prefix and removed with the last, so that all others
// cost a look. A container that is attached with ipMasq off, to whichever network, is
// exempt from it (Exempt). With iptables there is one chain a container, named and
// commented as the reference's.
package masq

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/fields"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/scope"
	"github.com/netcleat/netcleat/pkg/undo"
	"github.com/netcleat/netcleat/pkg/veth"
)

// Attachment is whom to masquerade. Its record (of plugin bridge or ptp) must be
// in the journal before Add, and until after Del.
type Attachment struct {
	Gate        gate.Gate
	Journal     journal.Dir
	Network     string
	ContainerID string
	IfName      string
	Addrs       []netip.Prefix // addresses with the network's prefix length; Del needs none
	Backend     *string        // ipMasqBackend: "nftables", "iptables", or nil
	// Scope is what the network hands out. It is empty where the host is not the
	// prefix's gateway: machines that are no containers have it, too.
	Scope scope.Scope

	off    bool                // ipMasq is off: it is exempt where another's rule has its address
	gc     bool                // the call is a GC: living says whose rules stay
	living []plugin.Attachment // the valid ones
}

// Of is the call's attachment, with what its record says of it; for DEL, where
// there is none, with what the configuration and prevResult say.
func Of(c *plugin.Call, backend *string) Attachment {
	a := Attachment{
		Gate: c.Gate, Journal: c.Journal, Network: c.Conf.Name, ContainerID: c.ContainerID, IfName: c.IfName, Backend: backend,
	}
	switch {
	case c.Entry != nil && (c.Verb != plugin.Del || len(c.Entry.IPs) > 0):
		a.take(c.Entry.Record)
	case c.Verb == plugin.Del:
		r := journal.Record{Key: c.Key(c.Conf.Type), Config: c.Stdin}
		if prev, err := c.PrevResult(); err == nil && prev != nil {
			r.IPs, _ = link.AddrsOf(prev, c.IfName)
		}
		a.take(r)
	}
	return a
}

// OfRecord is the attachment that a record is of.
func OfRecord(g gate.Gate, dir journal.Dir, r journal.Record) Attachment {
	a := Attachment{Gate: g, Journal: dir, Network: r.Network, ContainerID: r.ContainerID, IfName: r.IfName}
	a.Backend = a.take(r).Backend
	return a
}

// take takes over what a record says of masquerading, and returns its configuration.
func (a *Attachment) take(r journal.Record) conf {
	c := confOf(r)
	a.Addrs, a.Scope, a.off = r.IPs, c.scopeOf(r), !c.IPMasq
	return c
}

// CheckBackend returns the error for an ipMasqBackend that is none, for parsers. ""
// is as good as unset.
func CheckBackend(name *string) error {
	if name == nil || *name == "" || *name == string(iptables.NFTables) || *name == string(iptables.IPTables) {
		return nil
	}
	return cnierr.Config("unknown ipmasq backend %q", *name)
}

// configured is the backend that the configuration names, or "".
func (a Attachment) configured() iptables.Backend {
	if a.Backend == nil || CheckBackend(a.Backend) != nil {
		return ""
	}
	return iptables.Backend(*a.Backend)
}

// locked runs fn with a socket and under the network's lock.
func (a Attachment) locked(ctx context.Context, fn func(*nft.Conn) error) error {
	return nft.Shared{Dir: a.Journal, What: "masquerade of " + a.Network, Gate: a.Gate}.Locked(ctx, fn)
}

// Settle masquerades the attachment where on says so, or else exempts it from the
// rule of its network. steps takes that back.
func Settle(ctx context.Context, a Attachment, on bool, steps *undo.Stack) error { //nolint:revive // what ipMasq says
	settle := Exempt
	if on {
		settle = Add
	}
	takeBack, err := settle(ctx, a)
	steps.Push("remove masquerading", takeBack)
	return err
}

// Add masquerades the attachment. undo takes that back.
func Add(ctx context.Context, a Attachment) (undo func() error, err error) {
	undo = func() error { return Del(context.WithoutCancel(ctx), a) }
	if len(a.Addrs) == 0 {
		return undo, nil
	}
	return undo, a.locked(ctx, func(c *nft.Conn) error { return a.add(ctx, c) })
}

func (a Attachment) add(ctx context.Context, c *nft.Conn) error {
	if a.isMade(c) {
		return nil
	}
	return a.backend(c).add(ctx, c)
}

// isMade reports whether the rules are there that the choice of a backend, which
// costs more than to look for them, was made for earlier.
func (a Attachment) isMade(c *nft.Conn) bool {
	if a.configured() != "" {
		return false
	}
	made, err := a.made(c)
	return err == nil && made
}

// Del removes what Add or the reference made for the attachment, with either
// backend, and the network's rules where no other attachment needs them. Where
// nothing of that exists it does nothing.
func Del(ctx context.Context, a Attachment) error {
	return a.locked(ctx, func(c *nft.Conn) error {
		return errors.Join(a.leave(), a.delRules(ctx, c), a.delLegacy(ctx))
	})
}

// Check compares the kernel's rules with what Add makes.
func Check(ctx context.Context, a Attachment) (err error) {
	c, err := nft.Look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if a.isMade(c) {
		return nil
	}
	return a.backend(c).compare(ctx, c)
}

// GC removes what is left of the network's attachments that do not live: chains,
// what the reference made, and the rules of a network that nobody uses. living is
// asked under the lock.
func GC(ctx context.Context, a Attachment, living func() ([]plugin.Attachment, error)) error {
	return a.locked(ctx, func(c *nft.Conn) error {
		valid, err := living()
		if err != nil {
			return err
		}
		a.gc, a.living = true, valid
		return errors.Join(a.gcRules(ctx, c), a.gcLegacy(ctx))
	})
}

// Reconcile restores what an attachment needs, by its record alone.
func Reconcile(ctx context.Context, g gate.Gate, dir journal.Dir, r journal.Record) error {
	a := OfRecord(g, dir, r)
	if a.off {
		_, err := Exempt(ctx, a)
		return err
	}
	if Check(ctx, a) == nil {
		return nil
	}
	return a.locked(ctx, func(c *nft.Conn) error {
		return a.backend(c).restore(ctx, c)
	})
}

// conf is what bridge's and ptp's configurations say of masquerading.
type conf struct {
	IPMasq           bool    `json:"ipMasq"`
	Backend          *string `json:"ipMasqBackend"`
	IsGateway        bool    `json:"isGateway"`
	IsDefaultGateway bool    `json:"isDefaultGateway"`
}

func confOf(r journal.Record) (c conf) {
	if o, err := fields.Parse(r.Config); err == nil {
		_ = o.Into(&c) // what is of another type says nothing
	}
	return c
}

// scopeOf returns what the network of the record hands out behind its gateway, which
// with ptp is always the host.
func (c conf) scopeOf(r journal.Record) scope.Scope {
	if r.Plugin == "bridge" && !c.IsGateway && !c.IsDefaultGateway {
		return scope.Scope{}
	}
	return scope.Of(r.Config)
}

// users are the plugins whose records may need the network's rules.
var users = []string{"bridge", "ptp"}

func masquerades(plugin string) bool { return slices.Contains(users, plugin) }

// leave has others no longer count on this attachment to end what they share.
func (a Attachment) leave() error {
	var errs []error
	for _, plugin := range users {
		k := journal.Key{Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName, Plugin: plugin}
		errs = append(errs, a.Journal.Leave(k))
	}
	return errors.Join(errs...)
}

func (a Attachment) owns(r journal.Record) bool {
	return r.Network == a.Network && r.ContainerID == a.ContainerID && r.IfName == a.IfName
}

// needed reports whether another attachment of the network is masqueraded. One that
// has no address yet will look for the rules itself. Of one that runs without a
// record nobody knows whether it is.
func (a Attachment) needed() (bool, error) {
	some, err := a.Journal.Any(a.Network, masquerades, func(r journal.Record) bool {
		return !a.owns(r) && confOf(r).IPMasq && len(r.IPs) > 0
	})
	if some || err != nil {
		return some, err
	}
	lost, err := a.unrecorded()
	return len(lost) > 0, err
}

// unrecorded returns the network's other attachments that run without a record,
// by their host ends' aliases. For GC, they are those of its list.
func (a Attachment) unrecorded() ([]string, error) {
	known := []journal.Key{{Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName}}
	records, err := a.Journal.Readable(a.Network)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if masquerades(r.Plugin) {
			known = append(known, r.Key)
		}
	}
	lost, err := veth.Unrecorded(a.Network, known)
	if a.gc {
		lost = slices.DeleteFunc(lost, func(alias string) bool {
			return !slices.ContainsFunc(a.living, func(v plugin.Attachment) bool { return a.aliasOf(v) == alias })
		})
	}
	return lost, err
}

func (a Attachment) aliasOf(v plugin.Attachment) string {
	return veth.Alias(journal.Key{Network: a.Network, ContainerID: v.ContainerID, IfName: v.IfName})
}

// others returns the records of a network's attachments, but for this one, that pick
// selects, but not of those that go.
func (a Attachment) others(network string, pick func(journal.Record) bool) ([]journal.Record, error) {
	all, err := a.Journal.Readable(network)
	var some []journal.Record
	for _, r := range all {
		if masquerades(r.Plugin) && !a.owns(r) && pick(r) && !a.Journal.Leaving(r.Key) {
			some = append(some, r)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", network, err)
	}
	return some, nil
}

// siblings returns the masqueraded addresses of the container's other
// interfaces on the network, and of other containers with the same chain: it is
// theirs, too.
func (a Attachment) siblings() ([]netip.Prefix, error) {
	records, err := a.Journal.Joined(journal.Key{Network: a.Network, ContainerID: a.ContainerID})
	var ips []netip.Prefix
	for _, r := range records {
		if masquerades(r.Plugin) && !a.owns(r) && confOf(r).IPMasq && !a.Journal.Leaving(r.Key) {
			ips = append(ips, r.IPs...)
		}
	}
	return ips, err
}

func ignoreMissing(err error) error {
	if nft.Missing(err) {
		return nil
	}
	return err
}
