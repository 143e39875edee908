package portmap

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// recordedConflict looks in the journal for another live container that
// publishes one of the ports in rules that would not refuse this one's: the maps
// of nftables do among themselves. To read all records takes time, so nftables
// does it only where there may be iptables' rules.
func (j *job) recordedConflict(ctx context.Context, c *nft.Conn) error {
	if j.replace {
		return nil
	}
	if reads, err := j.backend().readsRecords(c); err != nil || !reads {
		return err
	}
	names, err := j.dir.Networks()
	if err != nil {
		return cnierr.With(cnierr.IOFailure, err)
	}
	known := map[string]bool{j.chainName("DN"): true}
	for _, n := range names {
		records, err := j.dir.Readable(n)
		if err != nil {
			return cnierr.With(cnierr.IOFailure, err)
		}
		for _, r := range records {
			if err := j.conflictWith(r, known); err != nil {
				return err
			}
		}
	}
	if err := j.unrecordedConflict(ctx, c, known); err != nil {
		return err
	}
	return j.nativeConflict(c)
}

// anyChains reports whether there may be iptables' rules for published ports.
func anyChains(c *nft.Conn) (bool, error) {
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		rules, err := c.Rules(nft.Chain{Table: nft.Table{Family: f, Name: "nat"}, Name: dnatChain})
		publishes := func(r nft.RuleInfo) bool { return !isMarker(r) }
		if slices.ContainsFunc(rules, publishes) || err != nil && !nft.Missing(err) {
			return true, err
		}
	}
	old := func(t iptables.Tool) bool { return t.Loaded("nat") }
	return slices.ContainsFunc(iptables.Both(true), old), nil
}

// conflictWith looks at one record, and adds its chain to those that have one.
func (j *job) conflictWith(r journal.Record, known map[string]bool) error {
	other := job{key: r.Key}
	if r.Plugin != "portmap" || r.GetState(&other.publication) != nil {
		return nil
	}
	if other.byIPTables() {
		known[other.chainName("DN")] = true
	}
	if r.ContainerID == j.key.ContainerID || !j.byIPTables() && !other.byIPTables() {
		return nil
	}
	for _, m := range j.Mappings {
		for _, o := range other.Mappings {
			if !m.overlaps(o) {
				continue
			}
			if err := j.conflict(m, ownerOf(comment(r.Key))); err != nil {
				return err
			}
		}
	}
	return nil
}

// conflict is an error unless the owner of what is in the mapping's way is dead.
func (j *job) conflict(m mapping, o owner) error {
	v, err := o.judge(j.dir)
	if err != nil || v.State == evidence.Dead {
		return err
	}
	network, id := o.network, o.id
	if own, _, _ := o.find(j.dir); own != nil { // its names are not cut
		network, id = own.Network, own.ContainerID
	}
	at := fmt.Sprintf("interface %s, network %q", o.ifName, network)
	switch {
	case o.network == "":
		at, network = "by a rule of containernetworking/plugins in table "+layoutOf(false).table.Name, cmp.Or(network, "NETWORK")
	case o.ifName == "": // known by its chain alone
		at = fmt.Sprintf("network %q", network)
	}
	taken := cnierr.Newf(cnierr.PortTaken, "host port %s: already published by container %q (%s)", m, id, at)
	if v.State == evidence.Alive {
		return taken
	}
	return &cnierr.Error{
		Code: cnierr.PortTaken, Err: taken,
		Details: fmt.Sprintf("nothing proves that the container no longer exists: %s; if it does not, `%s` removes what it left", v.Why, evidence.Forget(network, id)),
	}
}

func (m mapping) overlaps(o mapping) bool {
	if m.Proto != o.Proto || m.last() < o.Host || o.last() < m.Host {
		return false
	}
	if m.HostIP.IsValid() && o.HostIP.IsValid() {
		return m.HostIP == o.HostIP
	}
	return m.isFor(false) && o.isFor(false) || m.isFor(true) && o.isFor(true)
}
