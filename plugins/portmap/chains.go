package portmap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
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

// addChains makes the container's chain and what it needs of the shared ones,
// one transaction a family. iptables refuses it where what seems to be there is not
// as it should be, and where the chain exists, of another of the container's
// interfaces; then what is there is read.
func (j *job) addChains(ctx context.Context, c *nft.Conn) error {
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

// restoreChains makes what is missing of the container's chain and of what it
// needs.
func (j *job) restoreChains(ctx context.Context, _ *nft.Conn) error {
	return j.eachChain(func(tool iptables.Tool, target netip.Prefix) error {
		if held, err := j.holds(ctx, tool, target); held || err != nil {
			return err
		}
		return j.restoreChain(ctx, tool, target)
	})
}

// holds reports whether all is there that the attachment has for the address, the
// whole of each rule.
func (j *job) holds(ctx context.Context, tool iptables.Tool, target netip.Prefix) (bool, error) {
	nat := append(iptables.Checks(j.sharedRules()), iptables.Checks(j.ownRules(target))...)
	return tool.Holds(ctx, iptables.Script("raw", iptables.Checks(j.guardRules(tool.V6)))+iptables.Script("nat", nat))
}

// script makes the container's chain. Of what is shared it makes what is missing, and
// checks the rest.
func (j *job) script(t table, target netip.Prefix) string {
	guards := j.guardRules(target.Addr().Is6())
	raw := iptables.Adds(guards)
	if t.guarded {
		raw = iptables.Checks(guards)
	}
	var nat, rules []string
	for _, chain := range j.sharedChains() {
		if !t.chains[chain] {
			nat = append(nat, ":"+chain+" - [0:0]")
		}
	}
	for _, r := range j.sharedRules() {
		if t.has(r) {
			rules = append(rules, r.Check())
		} else {
			rules = append(rules, r.Add())
		}
	}
	nat = append(append(nat, rules...), "-N "+j.chainName("DN"))
	return iptables.Script("raw", raw) + iptables.Script("nat", append(nat, iptables.Adds(j.ownRules(target))...))
}

// ownRules are the rules of the container's chain for the address, and those that lead
// there.
func (j *job) ownRules(target netip.Prefix) []iptables.Rule {
	return append(j.forwards(target), j.entries(target.Addr().Is6())...)
}

// guardRules drop spoofed loopback.
func (j *job) guardRules(v6 bool) (list []iptables.Rule) {
	if j.Localnet == "" || v6 {
		return nil
	}
	for _, side := range []string{"-d", "-s"} {
		list = append(list, iptables.Rule{Chain: "PREROUTING", Spec: fmt.Sprintf("! -i lo %s 127.0.0.0/8 -m comment --comment %q -j DROP", side, guardComment)})
	}
	return list
}

func isGuard(l iptables.Line) bool { return l.Value("--comment") == guardComment }

// marksItself reports whether the shared chains mark what is to be masqueraded.
func (j *job) marksItself() bool { return j.SNAT && j.SetMarkChain == "" }

func (j *job) sharedChains() []string {
	if j.marksItself() {
		return []string{setMarkChain, masqChain, dnatChain}
	}
	return []string{dnatChain}
}

// sharedRules are those that all containers need.
func (j *job) sharedRules() (list []iptables.Rule) {
	if j.marksItself() {
		list = append(bitRules(j.MarkBit), iptables.Rule{
			Chain: "POSTROUTING", Spec: `-m comment --comment "CNI portfwd requiring masquerade" -j ` + masqChain, First: true,
		})
	}
	for _, from := range []string{"PREROUTING", "OUTPUT"} {
		list = append(list, iptables.Rule{Chain: from, Spec: "-m addrtype --dst-type LOCAL -j " + dnatChain})
	}
	return list
}

// bitRules mark packets by a bit, and masquerade them.
func bitRules(n int) []iptables.Rule {
	bit := fmt.Sprintf("%#x/%#x", 1<<n, 1<<n)
	return []iptables.Rule{
		{Chain: setMarkChain, Spec: `-m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark ` + bit},
		{Chain: masqChain, Spec: "-m mark --mark " + bit + " -j MASQUERADE"},
	}
}

// forwards are the rules of the container's chain: mark what is to be
// masqueraded, then map.
func (j *job) forwards(target netip.Prefix) (list []iptables.Rule) {
	v6 := target.Addr().Is6()
	setMark := setMarkChain
	if j.SetMarkChain != "" {
		setMark = j.SetMarkChain
	}
	from := target.Masked().String()
	if j.MasqAll {
		from = netip.PrefixFrom(target.Addr(), 0).Masked().String()
	}
	add := func(format string, args ...any) {
		list = append(list, iptables.Rule{Chain: j.chainName("DN"), Spec: fmt.Sprintf(format, args...)})
	}
	for _, m := range j.pick(v6) {
		match := fmt.Sprintf("-p %s --dport %s", m.Proto, m.dports())
		if m.HostIP.IsValid() {
			match += " -d " + m.HostIP.String()
		}
		if j.SNAT {
			add("%s -s %s -j %s", match, from, setMark)
		}
		if j.SNAT && !v6 && !j.MasqAll {
			add("%s -s 127.0.0.1 -j %s", match, setMark)
		}
		add("%s -j DNAT --to-destination %s", match, m.destination(target.Addr()))
	}
	return list
}

func (m mapping) dports() string {
	if m.Count > 1 {
		return fmt.Sprintf("%d:%d", m.Host, m.last())
	}
	return strconv.Itoa(int(m.Host))
}

// destination is the container's address and port; of a range each port stays.
func (m mapping) destination(ip netip.Addr) string {
	if m.Count > 1 {
		return ip.String()
	}
	return netip.AddrPortFrom(ip, m.Container).String()
}

// slots is how many ports the multiport match takes; a range is two.
const slots = 15

// entries are the rules that lead to the container's chain.
func (j *job) entries(v6 bool) (list []iptables.Rule) {
	comment := iptables.Comment("dnat ", j.key.Network, j.key.ContainerID)
	cond := ""
	for _, w := range j.conditions(v6) {
		cond += " " + iptables.Quote(w)
	}
	for _, p := range protos {
		for _, ports := range j.multiports(p, v6) {
			list = append(list, iptables.Rule{Chain: dnatChain, Spec: fmt.Sprintf("-p %s -m comment --comment %s -m multiport --dports %s%s -j %s",
				p, iptables.Quote(comment), ports, cond, j.chainName("DN"))})
		}
	}
	return list
}

// multiports packs a protocol's ports into as few matches as hold them.
func (j *job) multiports(p proto, v6 bool) (lists []string) {
	var list []string
	used := 0
	flush := func() {
		if len(list) > 0 {
			lists = append(lists, strings.Join(list, ","))
		}
		list, used = nil, 0
	}
	for _, m := range j.pick(v6) {
		if m.Proto != p || slices.Contains(list, m.dports()) {
			continue
		}
		cost := 1
		if m.Count > 1 {
			cost = 2
		}
		if used+cost > slots {
			flush()
		}
		list, used = append(list, m.dports()), used+cost
	}
	flush()
	return lists
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
		if err == nil && (found || j.Backend == iptables.IPTables) {
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

// recordedConflict looks in the journal for another live container that
// publishes one of the ports in rules that would not refuse this one's: the maps
// of nftables do among themselves. To read all records takes time, so nftables
// does it only where there may be iptables' rules.
func (j *job) recordedConflict(ctx context.Context, c *nft.Conn) error {
	if j.replace {
		return nil
	}
	if j.Backend != iptables.IPTables {
		if some, err := anyChains(c); err != nil || !some {
			return err
		}
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
	if other.Backend == iptables.IPTables {
		known[other.chainName("DN")] = true
	}
	if r.ContainerID == j.key.ContainerID || j.Backend != iptables.IPTables && other.Backend != iptables.IPTables {
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
