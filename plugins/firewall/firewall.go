// Package firewall lets the containers of a network through the host's firewall,
// and keeps those of others out where the configuration says so.
//
// What a network needs is made with its first container and removed with its
// last; all others cost a look. Packets are accepted where the host would drop
// them: an accept elsewhere would not end that.
package firewall

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/scope"
	"github.com/netcleat/netcleat/pkg/undo"
)

// Plugin is firewall.
var Plugin = plugin.Spec[config]{
	Name:      "firewall",
	Since:     "0.4.0",
	Role:      plugin.Chained,
	Parse:     parse,
	HasRecord: func(config) bool { return true },
	Add:       add,
	Del:       del,
	Check:     check,
	Status:    status,
	GC:        gc,

	Restore: Reconcile,
}

// needs is what an attachment needs of the firewall: the state of its record.
type needs struct {
	Backend    backend        `json:"backend,omitempty"`
	Prefixes   []netip.Prefix `json:"prefixes,omitempty"` // what is let through (see scopes)
	AdminChain string         `json:"adminChain,omitempty"`
	Zone       string         `json:"zone,omitempty"` // firewalld's, where it is used
	Policy     policy         `json:"policy,omitempty"`
	Link       string         `json:"link,omitempty"`   // the bridge that the policy is for, or the only container's link
	Bridge     bool           `json:"bridge,omitempty"` // Link is a bridge, which others share
	Port       string         `json:"port,omitempty"`   // of the bridge; with isolated
}

// job is the work on one attachment.
type job struct {
	needs
	key  journal.Key
	dir  journal.Dir
	gate gate.Gate
	ips  []netip.Addr // what the reference made rules of

	gc     bool                // the call is a GC: living says whose rules stay
	living []plugin.Attachment // the valid ones

	flagged bool   // this call has isolated the port
	ends    bool   // a DEL: that of the main plugin follows
	all     bool   // all rules of the network go, whoever made them
	told    bool   // but for those that name another container: a DEL knows whom it is for, and nothing else
	policed string // a DEL without a record: the bridge, which may have a policy for this attachment's sake
}

// locked runs fn with a socket, alone among all that change the firewall.
func (j *job) locked(ctx context.Context, fn func(*nft.Conn) error) error {
	return nft.Shared{Dir: j.dir, What: "firewall", Gate: j.gate}.Locked(ctx, fn)
}

func add(ctx context.Context, c *plugin.Call, conf config) (_ *current.Result, err error) {
	prev, err := c.PrevResult()
	if err != nil {
		return nil, err
	}
	if prev == nil {
		return nil, cnierr.Config("missing prevResult from earlier plugin")
	}
	j, err := newJob(c, conf, prev)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.Entry.SetState(j.needs), c.Entry.Begin()); err != nil {
		return nil, cnierr.With(cnierr.IOFailure, err)
	}
	var steps undo.Stack
	defer steps.OnError(&err)
	steps.Push("withdraw from the firewall", func() error { return j.withdraw(context.WithoutCancel(ctx)) })
	steps.Push("restore the port", j.restorePort)
	return nil, j.locked(ctx, func(n *nft.Conn) error { return j.make(ctx, n) })
}

// newJob settles what the attachment needs, before the first change.
func newJob(c *plugin.Call, conf config, prev *current.Result) (_ *job, err error) {
	j := &job{key: c.Key("firewall"), dir: c.Journal, gate: c.Gate}
	j.needs = needs{Backend: conf.Backend, AdminChain: conf.AdminChain, Policy: conf.Policy}
	links, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, links.Close()) }()
	if j.Prefixes, err = scopes(links, prev, scope.OfAttachment(c.Journal, j.key)); err != nil {
		return nil, err
	}
	if err := j.findLink(links, prev); err != nil {
		return nil, err
	}
	n, err := nft.Dial(nil, nil)
	if err != nil {
		return nil, err
	}
	if j.usesFirewalld(n) {
		j.Zone = conf.Zone
	}
	return j, n.Close()
}

// make isolates first: there is no moment at which more is open than asked for.
func (j *job) make(ctx context.Context, c *nft.Conn) error {
	if err := j.isolate(ctx, c); err != nil {
		return err
	}
	if j.Zone != "" {
		if err := j.addSources(); err != nil {
			return err
		}
	}
	for _, p := range j.places(c) {
		if err := p.accept(ctx, j, c); err != nil {
			return err
		}
	}
	return nil
}

// places says where packets of the network's families are accepted beside
// firewalld.
func (j *job) places(c *nft.Conn) (list []place) {
	for _, v6 := range []bool{false, true} {
		if len(j.pick(v6)) > 0 {
			list = append(list, j.placesOf(c, v6)...)
		}
	}
	return list
}

// place is where rules of one family go.
type place interface {
	accept(ctx context.Context, j *job, c *nft.Conn) error
	check(ctx context.Context, j *job, c *nft.Conn) error
}

func (j *job) placesOf(c *nft.Conn, v6 bool) []place {
	legacy := iptables.Tool{V6: v6, Legacy: iptables.Tool{V6: v6, Legacy: true}.Installed()}
	ours, old := native{v6}, oldTables{legacy}
	switch j.Backend {
	case onFirewalld:
		return nil
	case onNFTables:
		return []place{ours}
	case onIPTables:
		if c.Available() && (iptables.Tool{V6: v6}.Translated() || !legacy.Installed()) {
			return []place{ours}
		}
		return []place{old}
	}
	if !c.Available() {
		return []place{old}
	}
	var list []place
	loaded := legacy.Loaded("filter")
	if loaded {
		list = append(list, old)
	}
	// Where nothing filters yet, as with the reference, the place is made: Docker
	// may come later and have FORWARD drop.
	if !loaded && j.Zone == "" || ours.filters(c) {
		list = append(list, ours)
	}
	return list
}

// pick returns the network's prefixes of a family.
func (j *job) pick(v6 bool) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(j.Prefixes), func(p netip.Prefix) bool { return p.Addr().Is6() != v6 })
}

// Reconcile restores what an attachment needs, by its record alone.
func Reconcile(ctx context.Context, g gate.Gate, dir journal.Dir, r journal.Record) error {
	j := &job{key: r.Key, dir: dir, gate: g}
	if err := r.GetState(&j.needs); err != nil || j.check(ctx) == nil {
		return err
	}
	return j.locked(ctx, func(c *nft.Conn) error { return j.make(ctx, c) })
}

// status says whether an ADD could do its work.
func status(_ context.Context, _ *plugin.Call, conf config) error {
	c, err := nft.Dial(nil, nil)
	if err != nil {
		return cnierr.With(cnierr.NotAvailable, err)
	}
	available := c.Available()
	if err := c.Close(); err != nil {
		return err
	}
	switch {
	case conf.Backend == onFirewalld:
		return cnierr.With(cnierr.NotAvailable, firewalldRuns())
	case !available && conf.Policy != open:
		return cnierr.Newf(cnierr.NotAvailable, "ingressPolicy %s needs nf_tables, which the kernel lacks", conf.Policy)
	case !available && !(iptables.Tool{}).Installed():
		return cnierr.Newf(cnierr.NotAvailable, "neither nf_tables nor iptables is there")
	}
	return nil
}

// gc removes the rules of a network that no attachment needs any more. Those of
// valid attachments have records, or are the reference's.
func gc(ctx context.Context, c *plugin.Call, _ config) error {
	j := &job{key: journal.Key{Network: c.Conf.Name, Plugin: "firewall"}, dir: c.Journal, gate: c.Gate, gc: true}
	return j.collect(ctx, c.ValidAttachments)
}

// Collect removes the rules of a network where no record needs them. It looks for
// one under the lock: an ADD that comes meanwhile has its record before its rules.
func Collect(ctx context.Context, g gate.Gate, dir journal.Dir, network string) error {
	j := &job{key: journal.Key{Network: network, Plugin: "firewall"}, dir: dir, gate: g}
	return j.collect(ctx, func() ([]plugin.Attachment, error) { return nil, nil })
}

func (j *job) collect(ctx context.Context, living func() ([]plugin.Attachment, error)) error {
	return j.locked(ctx, func(n *nft.Conn) error {
		valid, err := living()
		if err != nil {
			return err
		}
		j.living = valid
		return j.collectUnneeded(ctx, n)
	})
}

// collectUnneeded removes the network's rules where no attachment but this job's may
// need them.
func (j *job) collectUnneeded(ctx context.Context, n *nft.Conn) error {
	some, err := j.needed(func(needs) bool { return true })
	if err == nil && !some {
		some, err = j.unrecorded()
	}
	if err != nil || some {
		return err
	}
	all := *j
	all.all = true // whoever made them
	return errors.Join(all.delNative(ctx, n, nil), all.delLegacy(ctx, nil), all.gcIsolation(ctx, n))
}
