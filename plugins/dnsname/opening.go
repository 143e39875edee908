package dnsname

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// doorway lets queries through the host's firewall: from the network's interface
// to the host's address on it, port 53, and nothing else. The rules are where the
// host would drop them, in each chain that may: an accept elsewhere would not end
// that. They belong to the network, and go with its last attachment.
type doorway struct {
	State
	key  journal.Key
	dir  journal.Dir
	gate gate.Gate
}

func opening(c *plugin.Call, st State) *doorway {
	return &doorway{State: st, key: c.Key(Name), dir: c.Journal, gate: c.Gate}
}

// Reconcile restores the opening of an attachment, by its record alone.
func Reconcile(ctx context.Context, g gate.Gate, dir journal.Dir, r journal.Record) error {
	d := &doorway{key: r.Key, dir: dir, gate: g}
	if err := r.GetState(&d.State); err != nil || d.check(ctx) == nil {
		return err
	}
	return d.make(ctx)
}

func (d *doorway) locked(ctx context.Context, fn func(*nft.Conn) error) error {
	return nft.Shared{Dir: d.dir, What: "firewall", Gate: d.gate}.Locked(ctx, fn)
}

// make opens what is closed.
func (d *doorway) make(ctx context.Context) error {
	return d.locked(ctx, func(c *nft.Conn) error {
		if err := d.makeNative(ctx, c); err != nil {
			return err
		}
		for _, t := range oldTools() {
			if err := d.makeOld(ctx, t); err != nil {
				return err
			}
		}
		return d.openZone(c)
	})
}

// oldTools are those of the families whose old filter table is loaded.
func oldTools() []iptables.Tool {
	return slices.DeleteFunc(iptables.Both(true), func(t iptables.Tool) bool { return !t.Loaded("filter") || !t.Installed() })
}

// makeNative inserts the rules that chains of nf_tables lack.
func (d *doorway) makeNative(ctx context.Context, c *nft.Conn) error {
	if !c.Available() {
		return nil
	}
	what := "let network " + d.key.Network + " ask for names"
	err := c.Update(ctx, what, func(tx *nft.Tx) error { return d.build(c, tx, xtPort) })
	if errors.Is(err, unix.ENOENT) {
		// Without nft_compat there is no iptables-nft to read the rules either.
		err = c.Update(ctx, what, func(tx *nft.Tx) error { return d.build(c, tx, port) })
	}
	return err
}

func (d *doorway) build(c *nft.Conn, tx *nft.Tx, in form) error {
	return d.each(c, func(ch nft.Chain, have []nft.RuleInfo) {
		for _, w := range d.wanted(ch) {
			if hasEither(have, w) {
				continue
			}
			for _, old := range have {
				if old.Comment == w.comment {
					tx.DeleteRule(ch, old.Handle) // changed since
				}
			}
			tx.Insert(w.rule(in))
		}
	})
}

// each calls fn with every chain that may drop what the host receives, and the
// chain's rules.
func (d *doorway) each(c *nft.Conn, fn func(nft.Chain, []nft.RuleInfo)) error {
	return eachInput(c, func(b nft.BaseChain, rules []nft.RuleInfo) {
		if b.Drops || slices.ContainsFunc(rules, func(r nft.RuleInfo) bool { return r.Stops && !IsOpening(r.Comment) }) {
			fn(b.Chain, rules)
		}
	})
}

// eachInput calls fn with every chain that looks at what the host receives, and its
// rules, but for those of firewalld, which is asked itself.
func eachInput(c *nft.Conn, fn func(nft.BaseChain, []nft.RuleInfo)) error {
	chains, err := c.BaseChains(unix.NF_INET_LOCAL_IN)
	if err != nil {
		return err
	}
	for _, b := range chains {
		if b.Table.Name == firewalldTable {
			continue
		}
		rules, err := c.Rules(b.Chain)
		if err != nil {
			return err
		}
		fn(b, rules)
	}
	return nil
}

// entry is one rule that the network needs in one chain.
type entry struct {
	chain   nft.Chain
	gateway netip.Addr
	link    string
	proto   uint8
	comment string
}

func (d *doorway) wanted(ch nft.Chain) (list []entry) {
	for _, gw := range d.Gateways {
		if ch.Table.Family == nft.IPv4 && gw.Is6() || ch.Table.Family == nft.IPv6 && gw.Is4() {
			continue
		}
		for _, proto := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			list = append(list, entry{ch, gw, d.Link, proto, d.comment(gw, proto)})
		}
	}
	return list
}

// The comments of the rules tell the network, and what each is for.
const (
	before = "net: "
	behind = ", names "
)

func (d *doorway) comment(gw netip.Addr, proto uint8) string {
	name := "udp"
	if proto == unix.IPPROTO_TCP {
		name = "tcp"
	}
	return before + networkName(d.key.Network) + behind + gw.String() + " " + d.Link + " " + name
}

const maxNetwork = 50 // bytes: nft(8) takes comments of 127

func networkName(name string) string { return journal.Cut(name, maxNetwork) }

// network returns the network that a rule's comment names, if it is one of ours.
func network(comment string) string {
	rest, is := strings.CutPrefix(comment, before)
	name, _, found := strings.Cut(rest, behind)
	if !is || !found {
		return ""
	}
	return name
}

// form writes the match of a protocol and a port.
type form func(proto uint8) []nft.Expr

// port is nf_tables' own way.
func port(uint8) []nft.Expr {
	const destination, size = 2, 2
	return []nft.Expr{nft.Header(unix.NFT_PAYLOAD_TRANSPORT_HEADER, destination, size, 0), nft.Cmp(nft.Equal, 0, []byte{0, dnsPort})}
}

// xtPort is iptables', by struct xt_udp and struct xt_tcp: any source port, one
// destination port.
func xtPort(proto uint8) []nft.Expr {
	const any = 0xff
	ports := func(info []byte) []byte {
		info[2], info[3] = any, any
		copy(info[4:], nft.Native16(dnsPort))
		copy(info[6:], nft.Native16(dnsPort))
		return info
	}
	if proto == unix.IPPROTO_TCP {
		return []nft.Expr{nft.Match("tcp", 0, ports(make([]byte, 12)))}
	}
	return []nft.Expr{nft.Match("udp", 0, ports(make([]byte, 10)))}
}

// rule is the entry as it is written in its chain. In the chain that iptables-nft
// has at this place it is iptables', or iptables could no longer list it.
func (e entry) rule(in form) nft.Rule {
	r := nft.Rule{Chain: e.chain, Comment: e.comment}
	var family []nft.Expr
	if e.chain.Table.Family == nft.Inet {
		family = nft.Proto(e.gateway.Is6())
	}
	isIPTables := e.chain.Table.Name == "filter" && e.chain.Name == "INPUT" && e.chain.Table.Family != nft.Inet
	if !isIPTables {
		in = port
	}
	to := netip.PrefixFrom(e.gateway, e.gateway.BitLen())
	r.Exprs = nft.Join(
		nft.IfName(unix.NFT_META_IIFNAME, nft.Equal, e.link), family, nft.Addr(nft.Destination, nft.Equal, to),
		[]nft.Expr{nft.Meta(unix.NFT_META_L4PROTO, 0), nft.Cmp(nft.Equal, 0, []byte{e.proto})}, in(e.proto),
		[]nft.Expr{nft.Counter(), nft.Decide(nft.Accept)},
	)
	if isIPTables {
		r.Proto = e.proto
	}
	return r
}

func hasEither(have []nft.RuleInfo, e entry) bool {
	return slices.ContainsFunc(have, func(r nft.RuleInfo) bool { return r.Is(e.rule(xtPort)) || r.Is(e.rule(port)) })
}

// oldRules are the network's in an old table, in the words in which iptables prints
// them.
func (d *doorway) oldRules(v6 bool) (rules []iptables.Rule) {
	for _, e := range d.wanted(nft.Chain{Table: nft.Table{Family: familyOf(v6)}}) {
		name := e.comment[strings.LastIndexByte(e.comment, ' ')+1:]
		to := netip.PrefixFrom(e.gateway, e.gateway.BitLen())
		rules = append(rules, iptables.Rule{Chain: "INPUT", First: true, Spec: fmt.Sprintf("-d %s -i %s -p %s -m %[3]s --dport %d -m comment --comment %s -j ACCEPT",
			to, iptables.Quote(e.link), name, dnsPort, iptables.Quote(e.comment))})
	}
	return rules
}

// makeOld inserts what an old table lacks, and replaces what was changed in it.
func (d *doorway) makeOld(ctx context.Context, t iptables.Tool) error {
	rules := d.oldRules(t.V6)
	old := func(l iptables.Line) bool {
		comment := l.Value("--comment")
		return slices.ContainsFunc(rules, func(r iptables.Rule) bool { return strings.Contains(r.Spec, iptables.Quote(comment)) }) && IsOpening(comment)
	}
	script, err := t.Restored(ctx, "filter", rules, old)
	if err != nil || len(script) == 0 {
		return err
	}
	return t.Restore(ctx, d.gate, "let network "+d.key.Network+" ask for names", iptables.Script("filter", script))
}

// missingOld says what an old table lacks; "" is nothing.
func (d *doorway) missingOld(ctx context.Context) (missing string, err error) {
	for _, t := range oldTools() {
		rules := d.oldRules(t.V6)
		if len(rules) == 0 {
			continue
		}
		if held, err := t.Holds(ctx, iptables.Script("filter", iptables.Checks(rules))); err != nil || !held {
			return "iptables: " + strings.Join(iptables.Adds(rules), "; "), err
		}
	}
	return "", nil
}

func familyOf(v6 bool) nft.Family {
	if v6 {
		return nft.IPv6
	}
	return nft.IPv4
}

// check says what is missing.
func (d *doorway) check(ctx context.Context) (err error) {
	c, err := nft.Look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	missing := ""
	if c.Available() {
		err = d.each(c, func(ch nft.Chain, have []nft.RuleInfo) {
			for _, w := range d.wanted(ch) {
				if !hasEither(have, w) {
					missing = fmt.Sprintf("rule %q of chain %s of %s", w.comment, ch.Name, ch.Table)
				}
			}
		})
	}
	if err != nil {
		return err
	}
	if missing == "" {
		if missing, err = d.missingOld(ctx); err != nil {
			return err
		}
	}
	if missing != "" {
		return cnierr.Check("%s is missing (netcleat reconcile restores it)", missing)
	}
	return d.checkZone(c)
}

// remove closes what no other attachment of the network needs.
func (d *doorway) remove(ctx context.Context) error {
	return d.locked(ctx, func(c *nft.Conn) error {
		unneeded, err := d.unneeded()
		if err != nil || len(unneeded) == 0 {
			return err
		}
		stale := func(comment string) bool {
			return network(comment) == networkName(d.key.Network) && slices.ContainsFunc(unneeded, func(gw netip.Addr) bool {
				return strings.Contains(comment, behind+gw.String()+" "+d.Link+" ")
			})
		}
		return errors.Join(d.sweep(ctx, c, stale), d.closeZone(unneeded))
	})
}

// unneeded returns the gateways that no other attachment has on the same link.
func (d *doorway) unneeded() (list []netip.Addr, err error) {
	for _, gw := range d.Gateways {
		needed, err := d.dir.Any(d.key.Network, isDNSName, func(r journal.Record) bool {
			o := State{}
			return r.Key != d.key && (r.GetState(&o) != nil || o.Link == d.Link && slices.Contains(o.Gateways, gw))
		})
		if err != nil {
			return nil, err
		}
		if !needed {
			list = append(list, gw)
		}
	}
	return list, nil
}

func isDNSName(plugin string) bool { return plugin == Name }

// collect closes all of the network's openings where it has no attachment.
func (d *doorway) collect(ctx context.Context) error {
	return d.locked(ctx, func(c *nft.Conn) error {
		some, err := d.dir.Any(d.key.Network, isDNSName, func(journal.Record) bool { return true })
		if err != nil || some {
			return err
		}
		return d.sweep(ctx, c, func(comment string) bool { return network(comment) == networkName(d.key.Network) })
	})
}

// sweep deletes rules by their comments.
func (d *doorway) sweep(ctx context.Context, c *nft.Conn, stale func(comment string) bool) error {
	var errs []error
	if c.Available() {
		errs = append(errs, c.Update(ctx, "close the firewall to network "+d.key.Network, func(tx *nft.Tx) error { return sweepNative(c, tx, stale) }))
	}
	for _, t := range oldTools() {
		errs = append(errs, t.Change(ctx, d.gate, "filter", func(lines []iptables.Line) (script []string) {
			for _, l := range lines {
				if l.Rule && stale(l.Value("--comment")) {
					script = append(script, l.Delete())
				}
			}
			return script
		}))
	}
	return errors.Join(errs...)
}

func sweepNative(c *nft.Conn, tx *nft.Tx, stale func(comment string) bool) error {
	return eachInput(c, func(b nft.BaseChain, rules []nft.RuleInfo) {
		for _, r := range rules {
			if stale(r.Comment) {
				tx.DeleteRule(b.Chain, r.Handle)
			}
		}
	})
}
