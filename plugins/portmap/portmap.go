// Package portmap publishes ports of containers on the host.
//
// With nftables a published port is an element of a map that a packet is looked
// up in once, so that neither ADD nor a new connection costs more with many than
// with one. With iptables it is the reference's chains and rules, which nerdctl
// reads. Left out: reserving a port against processes of the host.
package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/look"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// Plugin is portmap.
var Plugin = plugin.Spec[config]{
	Name:      "portmap",
	Role:      plugin.Chained,
	Parse:     parse,
	HasRecord: func(conf config) bool { return len(conf.Mappings) > 0 },
	Add:       add,
	Del:       del,
	Check:     check,
	Status:    status,
	GC:        gc,

	Restore: Reconcile,
}

// publication is what was published for an attachment: the state of its record.
type publication struct {
	Backend      iptables.Backend `json:"backend"`
	Legacy       bool             `json:"legacy,omitempty"`  // iptables for the kernel's old tables
	Targets      []netip.Prefix   `json:"targets,omitempty"` // the container's addresses, one a family
	Blocks       []netip.Prefix   `json:"blocks,omitempty"`  // what the rules for masquerading have for them
	Mappings     []mapping        `json:"mappings,omitempty"`
	ConditionsV4 []string         `json:"conditionsV4,omitempty"`
	ConditionsV6 []string         `json:"conditionsV6,omitempty"`
	SNAT         bool             `json:"snat,omitempty"`
	MasqAll      bool             `json:"masqAll,omitempty"`
	MarkBit      int              `json:"markBit,omitempty"`
	SetMarkChain string           `json:"setMarkChain,omitempty"`
	Localnet     string           `json:"localnet,omitempty"` // the interface with route_localnet
}

// job is the work on one attachment's publication.
type job struct {
	publication
	key     journal.Key
	dir     journal.Dir
	gate    gate.Gate
	replace bool
	search  bool                          // DEL without a record: there is a reason to look at all elements
	stale   func(owner) bool              // GC: whose elements go; nil is the attachment's own
	gone    func(ofContainer string) bool // and whose rules
	near    []netip.Prefix                // subnets on the interface with route_localnet
	note    func(format string, args ...any)
}

func (j *job) tool(v6 bool) iptables.Tool { return iptables.Tool{V6: v6, Legacy: j.Legacy} }

// locked runs fn with a socket, alone among all that publish ports.
func (j *job) locked(ctx context.Context, fn func(*nft.Conn) error) error {
	return nft.Shared{Dir: j.dir, What: "published ports", Gate: j.gate}.Locked(ctx, fn)
}

func add(ctx context.Context, c *plugin.Call, conf config) (*current.Result, error) {
	if err := c.Chained("must be called as chained plugin"); err != nil {
		return nil, err
	}
	if len(conf.Mappings) == 0 {
		return nil, nil
	}
	prev, err := c.PrevResult()
	if err != nil {
		return nil, err
	}
	j := jobOf(c, conf)
	if j.Targets, err = targets(prev, c.IfName); err != nil {
		return nil, err
	}
	if len(j.Targets) == 0 {
		c.Note("portmap: the container has no address to publish ports of")
		return nil, nil
	}
	j.findBlocks()
	return nil, j.publish(ctx, c.Entry)
}

func jobOf(c *plugin.Call, conf config) *job {
	return &job{
		publication: publication{
			Backend: iptables.Backend(conf.Backend), Mappings: conf.Mappings, ConditionsV4: conf.Conditions.V4, ConditionsV6: conf.Conditions.V6,
			SNAT: conf.SNAT, MasqAll: conf.MasqAll, MarkBit: conf.MarkBit, SetMarkChain: conf.SetMarkChain,
		},
		key: c.Key("portmap"), dir: c.Journal, gate: c.Gate, replace: conf.Replace, note: c.Note,
	}
}

// targets returns the first address of each family that the container's
// interface has.
func targets(prev *current.Result, ifName string) (list []netip.Prefix, err error) {
	addrs, err := link.AddrsOf(prev, ifName)
	var seen [2]bool
	for _, p := range addrs {
		family := 0
		if p.Addr().Is6() {
			family = 1
		}
		if !seen[family] {
			list = append(list, p)
		}
		seen[family] = true
	}
	return list, err
}

// publish makes the rules, after it has written down in e what they are. Nobody
// else publishes between the look for a conflict and that: of two who want the
// same port one gets it.
func (j *job) publish(ctx context.Context, e *journal.Entry) (err error) {
	if err := errors.Join(j.chooseBackend(), j.findLocalnet()); err != nil {
		return err
	}
	var steps undo.Stack
	defer steps.OnError(&err)
	err = j.locked(ctx, func(c *nft.Conn) error {
		if err := j.recordedConflict(ctx, c); err != nil {
			return err
		}
		if err := j.record(e); err != nil {
			return err
		}
		steps.Push("unpublish ports", func() error { return j.unpublish(context.WithoutCancel(ctx)) })
		return j.backend().add(ctx, c)
	})
	if cnierr.Code(err) == cnierr.PortTaken {
		j.markOthers(ctx)
	}
	if err != nil {
		return err
	}
	if err := j.routeLocalnet(); err != nil {
		return err
	}
	j.flushStale()
	j.mark(ctx)
	return nil
}

// record writes down what is published, before the first change.
func (j *job) record(e *journal.Entry) error {
	if e == nil {
		return nil
	}
	e.Config = nil // the state says it all; a configuration with thousands of ports is large
	return cnierr.With(cnierr.IOFailure, errors.Join(e.SetState(j.publication), e.Begin()))
}

func (j *job) chooseBackend() error {
	if j.Backend != "" {
		return nil
	}
	c, err := nft.Dial(nil, nil)
	if err != nil {
		return err
	}
	backend, tool := iptables.Default(c, "nat")
	if j.MarkBit != defaultMarkBit && tool.Installed() {
		backend = iptables.IPTables // nftables' tables have one bit for all
	}
	if backend == iptables.NFTables && j.marked() && unmarkable() {
		backend, tool.Legacy = iptables.IPTables, iptables.Tool{Legacy: true}.Installed()
	}
	j.Backend, j.Legacy = backend, tool.Legacy
	return c.Close()
}

// recorded is the job of taking back what the attachment's record says.
func recorded(c *plugin.Call) (*job, error) {
	j := &job{key: c.Key("portmap"), dir: c.Journal, gate: c.Gate, note: c.Note}
	if c.Entry == nil {
		return j, nil
	}
	if err := c.Entry.GetState(&j.publication); err != nil {
		return j, cnierr.With(cnierr.IOFailure, fmt.Errorf("journal: %w", err))
	}
	return j, nil
}

func del(ctx context.Context, c *plugin.Call, conf config) error {
	j, err := recorded(c)
	if err != nil {
		c.Note("portmap: %v (removing without it)", err)
	}
	if len(j.Targets) > 0 {
		return j.unpublish(ctx)
	}
	// It was attached by the reference, or never, or its record is lost. Then the
	// configuration may say what it has published, and prevResult at which address.
	j.publication = jobOf(c, conf).publication
	prev, err := c.PrevResult()
	if err == nil && prev != nil {
		j.Targets, _ = targets(prev, c.IfName)
	}
	j.search = len(conf.Mappings) > 0 || !c.Journal.Remembers(j.key)
	return j.unpublishUnrecorded(ctx)
}

// unpublish removes what the publication consists of.
func (j *job) unpublish(ctx context.Context) error {
	err := j.locked(ctx, func(c *nft.Conn) error {
		defer j.unmark(ctx, c)
		if err := j.dir.Leave(j.key); err != nil {
			return cnierr.With(cnierr.IOFailure, err)
		}
		return errors.Join(j.leaveLocalnet(ctx, c), j.backend().remove(ctx, c))
	})
	j.flushTargets()
	return err
}

// status says whether an ADD could publish anything.
func status(_ context.Context, c *plugin.Call, _ config) error {
	n, err := nft.Dial(nil, nil)
	if err != nil {
		return cnierr.With(cnierr.NotAvailable, err)
	}
	ok := n.Available() || iptables.Tool{}.Installed()
	if err := n.Close(); err != nil {
		return err
	}
	if !ok {
		return cnierr.Newf(cnierr.NotAvailable, "neither nf_tables nor iptables is there to publish ports with")
	}
	return nil
}

// Reconcile restores what an attachment has published, by its record alone.
func Reconcile(ctx context.Context, g gate.Gate, dir journal.Dir, r journal.Record) error {
	j := &job{key: r.Key, dir: dir, gate: g, note: func(string, ...any) {}}
	if err := r.GetState(&j.publication); err != nil || len(j.Targets) == 0 {
		return err
	}
	if look.Of(ctx) == nil { // who only looks does not mark
		defer j.mark(ctx)
	}
	if j.check(ctx) == nil {
		return nil
	}
	if err := j.locked(ctx, func(c *nft.Conn) error { return j.backend().restore(ctx, c) }); err != nil {
		return err
	}
	defer j.flushStale() // packets have come meanwhile, and went elsewhere
	return j.routeLocalnet()
}

// pick returns the mappings for addresses of a family.
func (j *job) pick(v6 bool) []mapping {
	return slices.DeleteFunc(slices.Clone(j.Mappings), func(m mapping) bool { return !m.isFor(v6) })
}

// publishes reports whether the attachment has ports for an address of a family.
func (j *job) publishes(v6 bool) bool {
	return len(j.pick(v6)) > 0 && slices.ContainsFunc(j.Targets, func(t netip.Prefix) bool { return t.Addr().Is6() == v6 })
}

func (j *job) conditions(v6 bool) []string {
	return conditions{j.ConditionsV4, j.ConditionsV6}.of(v6)
}
