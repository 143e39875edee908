package portmap

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nft"
)

// The reference's chains.
const (
	dnatChain    = "CNI-HOSTPORT-DNAT"
	setMarkChain = "CNI-HOSTPORT-SETMARK"
	masqChain    = "CNI-HOSTPORT-MASQ"
	oldSNATChain = "CNI-HOSTPORT-SNAT" // of versions before 0.8
	guardComment = "CNI portfwd spoofed loopback"
)

func (j *job) chainName(kind string) string {
	return "CNI-" + kind + "-" + iptables.Hash(21, j.key.Network+j.key.ContainerID)
}

// table is what one nat table has of the chains that all containers share.
type table struct {
	chains  map[string]bool // those that have what they need
	enters  map[string]bool // "PREROUTING CNI-HOSTPORT-DNAT": the one jumps to the other
	guarded bool
}

// has reports whether the table seems to have one of the shared rules: whether it is
// as it should be iptables says.
func (t table) has(r iptables.Rule) bool {
	if _, target, jumps := strings.Cut(r.Spec, " -j "+"CNI-"); jumps {
		return t.enters[r.Chain+" CNI-"+target]
	}
	return t.chains[r.Chain]
}

// look reads what is there: by netlink where iptables-nft keeps it, else by
// iptables-save.
func (j *job) look(ctx context.Context, c *nft.Conn, tool iptables.Tool) (t table, err error) {
	t = table{chains: map[string]bool{}, enters: map[string]bool{}}
	if tool.Translated() {
		return t, t.lookNative(c, layoutOf(tool.V6).table.Family)
	}
	for _, name := range []string{"nat", "raw"} {
		saved, err := tool.Save(ctx, name)
		if err != nil {
			return t, err
		}
		for _, l := range iptables.Parse(saved) {
			t.chains[l.Chain] = t.chains[l.Chain] || l.Rule || l.Chain == dnatChain
			t.enters[l.Chain+" "+l.Value("-j")] = true
			t.guarded = t.guarded || isGuard(l)
		}
	}
	return t, nil
}

func (t *table) lookNative(c *nft.Conn, f nft.Family) error {
	nat := nft.Table{Family: f, Name: "nat"}
	info, err := c.GetChain(nft.Chain{Table: nat, Name: dnatChain})
	if err != nil {
		return err
	}
	t.chains[dnatChain] = info != nil
	for _, name := range []string{setMarkChain, masqChain} {
		rules, err := c.Rules(nft.Chain{Table: nat, Name: name})
		if err != nil {
			return err
		}
		t.chains[name] = len(rules) > 0
	}
	for _, name := range []string{"PREROUTING", "OUTPUT", "POSTROUTING"} {
		rules, err := c.Rules(nft.Chain{Table: nat, Name: name})
		if err != nil {
			return err
		}
		for _, r := range rules {
			t.enters[name+" "+r.Target] = true
		}
	}
	rules, err := c.Rules(nft.Chain{Table: nft.Table{Family: f, Name: "raw"}, Name: "PREROUTING"})
	t.guarded = slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return r.Comment == guardComment })
	return err
}

// eachChain calls fn with the tool for each of the container's addresses that has
// ports.
func (j *job) eachChain(fn func(tool iptables.Tool, target netip.Prefix) error) error {
	for _, target := range j.Targets {
		v6 := target.Addr().Is6()
		if len(j.pick(v6)) == 0 {
			continue
		}
		if err := fn(j.tool(v6), target); err != nil {
			return err
		}
	}
	return nil
}

// inChains is the backend of iptables: a chain for the container in table nat, and
// what leads to it.
type inChains struct{ *job }

// add makes the container's chain and what it needs of the shared ones,
// one transaction a family. iptables refuses it where what seems to be there is not
// as it should be, and where the chain exists, of another of the container's
// interfaces; then what is there is read.
func (j inChains) add(ctx context.Context, c *nft.Conn) error {
	return j.eachChain(func(tool iptables.Tool, target netip.Prefix) error {
		t, err := j.look(ctx, c, tool)
		if err != nil {
			return err
		}
		err = tool.Restore(ctx, j.gate, "publish ports of "+j.key.ContainerID, j.script(t, target))
		if iptables.Rejected(err) {
			return j.restoreChain(ctx, tool, target)
		}
		return err
	})
}

// restore makes what is missing of the container's chain and of what it
// needs.
func (j inChains) restore(ctx context.Context, _ *nft.Conn) error {
	return j.eachChain(func(tool iptables.Tool, target netip.Prefix) error {
		if held, err := j.holds(ctx, tool, target); held || err != nil {
			return err
		}
		return j.restoreChain(ctx, tool, target)
	})
}

func (j inChains) remove(ctx context.Context, c *nft.Conn) error {
	return errors.Join(j.delTranslated(ctx, c), j.delLegacy(ctx))
}

// The rules of iptables refuse nothing.
func (inChains) readsRecords(*nft.Conn) (bool, error) { return true, nil }

// holds reports whether all is there that the attachment has for the address, the
// whole of each rule.
func (j *job) holds(ctx context.Context, tool iptables.Tool, target netip.Prefix) (bool, error) {
	nat := append(iptables.Checks(j.sharedRules()), iptables.Checks(j.ownRules(target))...)
	return tool.Holds(ctx, iptables.Script("raw", iptables.Checks(j.guardRules(tool.V6)))+iptables.Script("nat", nat))
}

// delTranslated removes the chain from iptables-nft's tables, or of one that its
// other interfaces need the attachment's rules.
func (j *job) delTranslated(ctx context.Context, c *nft.Conn) error {
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		found, shared := false, false
		err := c.Update(ctx, "unpublish ports of "+j.key.ContainerID, func(tx *nft.Tx) (err error) {
			found, shared, err = j.dropChains(c, tx, nft.Table{Family: f, Name: "nat"})
			return err
		})
		if err == nil && shared {
			err = iptables.Tool{V6: f == nft.IPv6}.Change(ctx, j.gate, "nat", j.withdrawal)
		}
		// Of an ADD or a DEL that was killed there may be the shared part alone.
		if err == nil && (found || j.byIPTables()) {
			err = j.delShared(ctx, c, f)
		}
		if err != nil && !nft.Missing(err) {
			return err
		}
	}
	return nil
}

// dropChains drops the container's chains, today's and that of versions before
// 0.8, unless others may need them.
func (j *job) dropChains(c *nft.Conn, tx *nft.Tx, nat nft.Table) (found, shared bool, err error) {
	for kind, parent := range map[string]string{"DN": dnatChain, "SN": oldSNATChain} {
		chain := nft.Chain{Table: nat, Name: j.chainName(kind)}
		info, err := c.GetChain(chain)
		if err != nil {
			return false, false, err
		}
		if info == nil {
			continue
		}
		found = true
		if kind == "DN" {
			if shared, err = j.isShared(c, chain); err != nil {
				return true, false, err
			}
			if shared {
				continue
			}
		}
		if err := c.DropChain(tx, chain, nft.Chain{Table: nat, Name: parent}, nil); err != nil {
			return false, false, err
		}
	}
	return found, shared, nil
}

// delShared removes the shared chains of iptables-nft's table where no
// container's is left.
func (j *job) delShared(ctx context.Context, c *nft.Conn, f nft.Family) error {
	nat, raw := nft.Table{Family: f, Name: "nat"}, nft.Table{Family: f, Name: "raw"}
	last := false
	err := c.Update(ctx, "remove the chains of published ports", func(tx *nft.Tx) error {
		chains, err := c.Chains(nat)
		if err != nil || slices.ContainsFunc(chains, func(i nft.ChainInfo) bool { return isContainers(i.Name) }) {
			return err
		}
		last = true
		for _, i := range chains {
			if !isShared(i.Name) {
				continue
			}
			if err := dropShared(c, tx, nft.Chain{Table: nat, Name: i.Name}); err != nil {
				return err
			}
		}
		rules, err := c.Rules(nft.Chain{Table: raw, Name: "PREROUTING"})
		for _, r := range rules {
			if r.Comment == guardComment {
				tx.DeleteRule(nft.Chain{Table: raw, Name: "PREROUTING"}, r.Handle)
			}
		}
		return err
	})
	if err != nil || !last {
		return err
	}
	return errors.Join(c.DeleteBare(ctx, nat), c.DeleteBare(ctx, raw))
}

// dropShared deletes a shared chain with the rules that enter it. What nftables
// has published keeps its markers there.
func dropShared(c *nft.Conn, tx *nft.Tx, chain nft.Chain) error {
	for _, hook := range []string{"PREROUTING", "OUTPUT", "POSTROUTING"} {
		parent := nft.Chain{Table: chain.Table, Name: hook}
		rules, err := c.Rules(parent)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Target == chain.Name {
				tx.DeleteRule(parent, r.Handle)
			}
		}
	}
	rules, err := c.Rules(chain)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(rules, isMarker) {
		tx.FlushChain(chain)
		tx.DeleteChain(chain)
		return nil
	}
	for _, r := range rules {
		if !isMarker(r) {
			tx.DeleteRule(chain, r.Handle)
		}
	}
	return nil
}

func isContainers(chain string) bool {
	return strings.HasPrefix(chain, "CNI-DN-") || strings.HasPrefix(chain, "CNI-SN-")
}

func isShared(chain string) bool {
	return chain == dnatChain || chain == setMarkChain || chain == masqChain || chain == oldSNATChain
}

// delLegacy removes the chains from the kernel's old tables, where those are
// loaded.
func (j *job) delLegacy(ctx context.Context) error {
	var errs []error
	for _, tool := range iptables.Both(true) {
		if tool.Loaded("nat") {
			errs = append(errs, tool.Change(ctx, j.gate, "nat", j.legacyScript), j.delGuard(ctx, tool))
		}
	}
	return errors.Join(errs...)
}

// delGuard removes the drop of spoofed loopback after the last container.
func (j *job) delGuard(ctx context.Context, tool iptables.Tool) error {
	if !tool.Loaded("raw") {
		return nil
	}
	saved, err := tool.Save(ctx, "nat")
	if err != nil || iptables.HasChain(iptables.Parse(saved), dnatChain) {
		return err
	}
	return tool.Change(ctx, j.gate, "raw", func(lines []iptables.Line) (script []string) {
		for _, l := range lines {
			if l.Rule && l.Value("--comment") == guardComment {
				script = append(script, l.Delete())
			}
		}
		return script
	})
}

func (j *job) legacyScript(lines []iptables.Line) []string {
	script := append(j.withdrawal(lines), iptables.DropChain(lines, j.chainName("SN"), nil)...)
	own := func(l iptables.Line) bool {
		return isContainers(l.Chain) && l.Chain != j.chainName("DN") && l.Chain != j.chainName("SN")
	}
	if len(script) == 0 || slices.ContainsFunc(lines, own) || !slices.Contains(script, "-X "+j.chainName("DN")) && iptables.HasChain(lines, j.chainName("DN")) {
		return script
	}
	for _, chain := range []string{dnatChain, masqChain, setMarkChain, oldSNATChain} {
		rest := slices.DeleteFunc(slices.Clone(lines), func(l iptables.Line) bool { return isContainers(l.Chain) })
		script = append(script, iptables.DropChain(rest, chain, nil)...)
	}
	return script
}

// compare compares each rule that iptables made for the attachment, and those
// that it shares.
func (j inChains) compare(ctx context.Context, _ *nft.Conn) error {
	return j.eachChain(func(tool iptables.Tool, target netip.Prefix) error {
		held, err := j.holds(ctx, tool, target)
		if err == nil && !held {
			return cnierr.Check("published ports: rules of chain %s, or what leads to it, are missing (netcleat reconcile restores them)", j.chainName("DN"))
		}
		return err
	})
}
