package firewall

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/scope"
	"github.com/netcleat/netcleat/pkg/veth"
)

func del(ctx context.Context, c *plugin.Call, conf config) error {
	j := &job{key: c.Key("firewall"), dir: c.Journal, gate: c.Gate, ends: !c.Renewing}
	if c.Entry != nil {
		if err := c.Entry.GetState(&j.needs); err != nil {
			c.Note("firewall: record: %v (removing without it)", err)
		}
	}
	if len(j.Prefixes) == 0 && j.Policy == "" {
		// It was attached by the reference, or never, or its record is lost.
		if prev, err := c.PrevResult(); err == nil && prev != nil {
			if err := j.guess(conf, prev); err != nil {
				c.Note("firewall: %v (removing what is known)", err)
			}
		}
	}
	if len(j.Prefixes) == 0 && j.Policy == "" {
		return j.withdrawLast(ctx)
	}
	return j.withdraw(ctx)
}

// guess settles what the attachment may have needed, by the configuration and
// prevResult. What is not there is not removed either.
func (j *job) guess(conf config, prev *current.Result) (err error) {
	j.needs = needs{Backend: conf.Backend, AdminChain: conf.AdminChain, Policy: conf.Policy}
	network := scope.OfAttachment(j.dir, j.key)
	for _, ip := range prev.IPs {
		p, err := link.PrefixOf(ip.Address)
		if err != nil {
			continue
		}
		j.ips = append(j.ips, p.Addr())
		for _, may := range []netip.Prefix{scope.Scope{}.Block(p), network.Block(p), p.Masked()} {
			if !slices.Contains(j.Prefixes, may) {
				j.Prefixes = append(j.Prefixes, may)
			}
		}
	}
	links, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, links.Close()) }()
	err = j.findLink(links, prev)
	if j.Link == "" {
		j.Policy = open // no bridge to end it on
	}
	if at := (job{needs: needs{Policy: sameBridge}}); conf.Policy == open && at.findLink(links, prev) == nil && at.Bridge {
		j.policed = at.Link
	}
	n, derr := nft.Dial(nil, nil)
	if derr != nil {
		return errors.Join(err, derr)
	}
	if j.usesFirewalld(n) {
		j.Zone = conf.Zone
	}
	return errors.Join(err, n.Close())
}

// withdraw removes what no other attachment needs.
func (j *job) withdraw(ctx context.Context) error {
	return j.locked(ctx, func(c *nft.Conn) error {
		if err := j.leave(); err != nil {
			return err
		}
		unneeded, err := j.unneeded()
		if err != nil {
			return err
		}
		errs := []error{j.unisolate(ctx, c), j.endPolicy(ctx, c, j.policed)}
		if len(unneeded) > 0 || len(j.ips) > 0 {
			errs = append(errs, j.delNative(ctx, c, unneeded), j.delLegacy(ctx, unneeded))
		}
		if j.Zone != "" {
			errs = append(errs, j.removeSources(unneeded))
		}
		return errors.Join(errs...)
	})
}

// leave has others no longer count on this attachment to end what they share: that
// its main plugin still has a record does not mean that this one's is lost.
func (j *job) leave() error {
	errs := []error{j.dir.Leave(j.key)}
	for _, plugin := range mains {
		if k := j.key; j.ends {
			k.Plugin = plugin
			errs = append(errs, j.dir.Leave(k))
		}
	}
	return cnierr.With(cnierr.IOFailure, errors.Join(errs...))
}

// mains are the plugins that give containers an end on the host, by which it is
// known that they run.
var mains = []string{"bridge", "ptp"}

// withdrawLast removes the network's rules where this is the last container of it:
// of what the attachment needed nothing is known.
func (j *job) withdrawLast(ctx context.Context) error {
	j.told = true
	return j.locked(ctx, func(c *nft.Conn) error {
		if err := j.leave(); err != nil {
			return err
		}
		return j.collectUnneeded(ctx, c)
	})
}

// unneeded returns the attachment's prefixes that no other of the network has.
func (j *job) unneeded() (list []netip.Prefix, err error) {
	for _, p := range j.Prefixes {
		if p.IsSingleIP() && j.Zone == "" { // whose rules are its own
			list = append(list, p)
			continue
		}
		needed, err := j.needed(func(o needs) bool { return slices.Contains(o.Prefixes, p) })
		if err != nil {
			return nil, err
		}
		if !needed {
			needed, err = j.unrecorded()
		}
		if err != nil {
			return nil, err
		}
		if !needed {
			list = append(list, p)
		}
	}
	return list, nil
}

// unrecorded reports whether a container of the network runs on this host of which
// this plugin has no record: what it needs nobody knows. For GC, one of its list.
func (j *job) unrecorded() (bool, error) {
	known, err := j.known()
	if err != nil {
		return false, err
	}
	lost, err := veth.Unrecorded(j.key.Network, known)
	return slices.ContainsFunc(lost, j.stays), err
}

// known returns the attachments of the network that this plugin has a record of,
// or that are being removed: after its DEL only the main plugin has one.
func (j *job) known() ([]journal.Key, error) {
	records, err := j.dir.Readable(j.key.Network)
	known := []journal.Key{j.key}
	for _, r := range records {
		if r.Plugin == j.key.Plugin || slices.Contains(mains, r.Plugin) && j.dir.Leaving(r.Key) {
			known = append(known, r.Key)
		}
	}
	return known, err
}

// stays reports whether the attachment with the alias stays: for GC, those of its
// list and of other networks do.
func (j *job) stays(alias string) bool {
	return !j.gc || !veth.MayBeOf(alias, j.key.Network) || slices.ContainsFunc(j.living, func(a plugin.Attachment) bool {
		return alias == veth.Alias(journal.Key{Network: j.key.Network, ContainerID: a.ContainerID, IfName: a.IfName})
	})
}

// needed reports whether another attachment of the network has needs that match.
// One whose needs are not written down yet will look for its rules itself.
func (j *job) needed(match func(needs) bool) (bool, error) { return j.neededIn(j.key.Network, match) }

func (j *job) neededIn(network string, match func(needs) bool) (bool, error) {
	return j.dir.Any(network, func(p string) bool { return p == "firewall" }, func(r journal.Record) bool {
		o := needs{}
		return r.Key != j.key && (r.GetState(&o) != nil || match(o))
	})
}
