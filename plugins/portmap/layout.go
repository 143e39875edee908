package portmap

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// layout is the table of one family. It has the reference's name, and of its
// chains hostports and masquerading. The base chains have names of their own:
// they come just after kube-proxy's, where the reference's come with it.
type layout struct {
	v6    bool
	table nft.Table
}

func layoutOf(v6 bool) layout {
	if v6 {
		return layout{true, nft.Table{Family: nft.IPv6, Name: "cni_hostport"}}
	}
	return layout{false, nft.Table{Family: nft.IPv4, Name: "cni_hostport"}}
}

func (l layout) chain(name string) nft.Chain { return nft.Chain{Table: l.table, Name: name} }

func (l layout) base(name, typ string, hook uint32, priority int32) nft.Chain {
	return nft.Chain{Table: l.table, Name: name, Hook: &nft.Hook{Type: typ, Num: hook, Priority: priority}}
}

const (
	hostports = "hostports" // looks ports up
	published = "published" // marks, and calls hostports
	networks  = "networks"  // calls each network's chain
)

// The hooks' numbers are the same in ip and ip6 tables.
const (
	afterKubeProxy = -100 + 1
	srcNAT         = 100
	raw            = -300
)

func (l layout) prerouting() nft.Chain {
	return l.base("local_prerouting", "nat", unix.NF_INET_PRE_ROUTING, afterKubeProxy)
}

func (l layout) output() nft.Chain {
	return l.base("local_output", "nat", unix.NF_INET_LOCAL_OUT, afterKubeProxy)
}

func (l layout) masquerading() nft.Chain {
	return l.base("masquerading", "nat", unix.NF_INET_POST_ROUTING, srcNAT)
}

func (l layout) guard() nft.Chain {
	return l.base("spoofed_loopback", "filter", unix.NF_INET_PRE_ROUTING, raw)
}

// mark is the bit that packets carry from the look-up to the masquerading: the
// reference's default, which it uses likewise.
const mark = 1 << defaultMarkBit

func (l layout) addrType() nft.Type {
	if l.v6 {
		return nft.TypeIPv6
	}
	return nft.TypeIPv4
}

// group is the maps of the attachments with the same conditions.
type group struct {
	layout
	suffix     string
	conditions []string
}

func (l layout) group(conditions []string) group {
	if len(conditions) == 0 {
		return group{layout: l}
	}
	return group{l, "_" + iptables.Hash(8, strings.Join(conditions, " ")), conditions}
}

// lookups is the chain that looks in the group's maps.
func (g group) lookups() nft.Chain { return g.chain(hostports + g.suffix) }

// ports maps address, protocol and port to the container's address and port.
func (g group) ports() nft.Set {
	return nft.Set{
		Table: g.table, Name: "ports" + g.suffix, Key: []nft.Type{g.addrType(), nft.TypeProto, nft.TypePort},
		Data: []nft.Type{g.addrType(), nft.TypePort}, Expiring: true,
	}
}

// anywhere maps protocol and port, at any local address.
func (g group) anywhere() nft.Set {
	return nft.Set{
		Table: g.table, Name: "ports_any" + g.suffix, Key: []nft.Type{nft.TypeProto, nft.TypePort},
		Data: []nft.Type{g.addrType(), nft.TypePort}, Expiring: true,
	}
}

// ranges maps ranges of a protocol's ports to the container's address.
func (g group) ranges(p proto) nft.Set {
	return nft.Set{
		Table: g.table, Name: "ranges_" + p.String() + g.suffix, Key: []nft.Type{nft.TypePort},
		Data: []nft.Type{g.addrType()}, Interval: true,
	}
}

var protos = []proto{tcp, udp, sctp}

// existing returns the maps of all groups that there are: those without conditions,
// and those whose names go on with a hash of the conditions.
func (l layout) existing(c *nft.Conn) (sets []nft.Set, err error) {
	plain := l.group(nil)
	kinds := []nft.Set{plain.anywhere(), plain.ports(), plain.ranges(tcp), plain.ranges(udp), plain.ranges(sctp)}
	names, err := c.SetNames(l.table)
	for _, name := range names {
		i := slices.IndexFunc(kinds, func(s nft.Set) bool { return name == s.Name || strings.HasPrefix(name, s.Name+"_") })
		if i >= 0 {
			s := kinds[i] // its keys, without which no element is read
			s.Name = name
			sets = append(sets, s)
		}
	}
	return sets, err
}

// eachMap calls fn with the elements of each map that is there.
func (l layout) eachMap(c *nft.Conn, fn func(nft.Set, []nft.Elem) error) error {
	sets, err := l.existing(c)
	if err != nil {
		return err
	}
	for _, set := range sets {
		elems, err := c.Elements(set)
		if err != nil {
			return err
		}
		if err := fn(set, elems); err != nil {
			return err
		}
	}
	return nil
}

func (g group) sets() []nft.Set {
	return []nft.Set{g.ports(), g.anywhere(), g.ranges(tcp), g.ranges(udp), g.ranges(sctp)}
}

// ensureTable makes what all share, unless it is there.
func (l layout) ensureTable(have nft.Ruleset, tx *nft.Tx) {
	want := l.shared()
	if have.Lacks(want...) == nil {
		return
	}
	tx.EnsureTable(l.table, "CNI portmap plugin")
	for _, ch := range []nft.Chain{
		l.chain(hostports), l.chain(published), l.chain(networks), l.prerouting(), l.output(), l.masquerading(), l.guard(),
	} {
		tx.EnsureChain(ch)
	}
	tx.Ensure(have, want...)
}

// shared returns the rules that are the same for all networks.
func (l layout) shared() []nft.Rule {
	local := []nft.Expr{
		nft.Fib(unix.NFTA_FIB_F_DADDR, unix.NFT_FIB_RESULT_ADDRTYPE, 0), nft.Cmp(nft.Equal, 0, nft.Native32(unix.RTN_LOCAL)), nft.Jump(published),
	}
	list := []nft.Rule{
		{Chain: l.prerouting(), Exprs: local},
		{Chain: l.output(), Exprs: local},
		{Chain: l.chain(published), Exprs: append(isMarked(), nft.Goto(hostports)), Comment: "whose mark that is it stays"},
		{Chain: l.chain(published), Exprs: setMark(mark), Comment: "until something maps it"},
		{Chain: l.chain(published), Exprs: []nft.Expr{nft.Jump(hostports)}},
		{Chain: l.chain(published), Exprs: setMark(0)},
		l.masquerade(),
	}
	if l.v6 {
		return list
	}
	return append(list, l.guards()...)
}

func setMark(v uint32) []nft.Expr {
	return []nft.Expr{
		nft.Meta(unix.NFT_META_MARK, 0), nft.Bitwise(0, nft.Native32(^uint32(mark)), nft.Native32(v)), nft.SetMeta(unix.NFT_META_MARK, 0),
	}
}

// isMarked goes on for packets that carry the mark.
func isMarked() []nft.Expr {
	return []nft.Expr{
		nft.Meta(unix.NFT_META_MARK, 0), nft.Bitwise(0, nft.Native32(mark), nft.Native32(0)), nft.Cmp(nft.Equal, 0, nft.Native32(mark)),
	}
}

const dstNATed = 1 << 5 // IPS_DST_NAT

// masquerade calls the networks' rules for packets that were mapped here.
func (l layout) masquerade() nft.Rule {
	return nft.Rule{Chain: l.masquerading(), Comment: "published ports", Exprs: append(
		isMarked(),
		nft.Ct(unix.NFT_CT_STATUS, 0), nft.Bitwise(0, nft.Native32(dstNATed), nft.Native32(0)), nft.Cmp(nft.Not, 0, nft.Native32(0)),
		nft.Jump(networks),
	)}
}

func loopback() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8) }

// guards drop what speaks to or from 127/8 and does not come from this host:
// route_localnet has the kernel let it through (CVE-2020-8558).
func (l layout) guards() (list []nft.Rule) {
	for _, side := range []nft.Side{nft.Destination, nft.Source} {
		e := nft.Join(nft.IfName(unix.NFT_META_IIFNAME, nft.Not, "lo"), nft.Addr(side, nft.Equal, loopback()), []nft.Expr{nft.Decide(nft.Drop)})
		list = append(list, nft.Rule{Chain: l.guard(), Exprs: e})
	}
	return list
}

// ensure makes the group's maps and the rules that look in them. A map that a rule
// looks in is there.
func (g group) ensure(have nft.Ruleset, tx *nft.Tx) error {
	entry, err := g.entry()
	if err != nil {
		return err
	}
	if entry != nil && have.Lacks(*entry) != nil {
		tx.EnsureChain(g.lookups())
		tx.Insert(*entry)
	}
	want := g.rules()
	if have.Lacks(want...) == nil {
		return nil
	}
	for _, s := range g.sets() {
		tx.EnsureSet(s)
	}
	tx.Ensure(have, want...)
	return nil
}

// entry is the rule that leads to the maps of conditions; without them there is
// none.
func (g group) entry() (*nft.Rule, error) {
	if g.suffix == "" {
		return nil, nil
	}
	cond, err := parseConditions(g.conditions, g.v6)
	if err != nil {
		return nil, err
	}
	return &nft.Rule{
		Chain: g.chain(hostports), Exprs: append(cond, nft.Jump(g.lookups().Name)), Comment: journal.Cut(strings.Join(g.conditions, " "), 120),
	}, nil
}

// rules look the packet up: at its address, at any, in the ranges.
func (g group) rules() (list []nft.Rule) {
	words := nft.Reg(1) // that an address takes
	if g.v6 {
		words = 4
	}
	protoTo := func(r nft.Reg) nft.Expr { return nft.Meta(unix.NFT_META_L4PROTO, r) }
	portTo := func(r nft.Reg) nft.Expr { return nft.Header(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, r) }
	dnat := nft.DNAT(g.table.Family, 0, words)
	exprs := [][]nft.Expr{
		{nft.LoadAddr(g.v6, nft.Destination, 0), protoTo(words), portTo(words + 1), nft.InMap(g.ports().Name, 0), dnat},
		{protoTo(0), portTo(1), nft.InMap(g.anywhere().Name, 0), dnat},
	}
	for _, p := range protos {
		exprs = append(exprs, []nft.Expr{
			protoTo(0), nft.Cmp(nft.Equal, 0, []byte{byte(p)}), portTo(0), nft.InMap(g.ranges(p).Name, 0), nft.DNAT(g.table.Family, 0, nft.NoPort),
		})
	}
	for _, e := range exprs {
		list = append(list, nft.Rule{Chain: g.lookups(), Exprs: e})
	}
	return list
}

// network is the chain of the network's rules for masquerading.
func (l layout) network(name string) nft.Chain { return l.chain("net_" + iptables.Hash(16, name)) }

// wants returns the network's rules for a target; their comments tell them apart.
// Those of a single address are the container's own.
func (j *job) wants(l layout, target netip.Prefix) []nft.Rule {
	masquerade := []nft.Expr{nft.Masquerade()}
	block := j.block(target)
	to := nft.Addr(nft.Destination, nft.Equal, block)
	rule := func(comment string, e ...[]nft.Expr) nft.Rule {
		return nft.Rule{Chain: l.network(j.key.Network), Exprs: nft.Join(e...), Comment: comment + block.String() + j.tail(block)}
	}
	if !j.SNAT {
		return nil
	}
	if j.MasqAll {
		return []nft.Rule{rule("anybody to ", to, masquerade)}
	}
	list := []nft.Rule{rule("neighbours in ", nft.Addr(nft.Source, nft.Equal, target), to, masquerade)}
	if block != target.Masked() {
		list = []nft.Rule{rule("neighbours to ", nft.Addr(nft.Source, nft.Equal, target), to, masquerade)}
	}
	if !l.v6 {
		list = append(list, rule("this host to ", nft.Addr(nft.Source, nft.Equal, loopback()), to, masquerade))
	}
	return list
}

// entry is the rule that leads to the network's chain.
func (j *job) entry(l layout) nft.Rule {
	return nft.Rule{
		Chain: l.chain(networks), Exprs: []nft.Expr{nft.Jump(l.network(j.key.Network).Name)}, Comment: journal.Cut("net: "+j.key.Network, 120),
	}
}

// ensureNetwork makes the network's chain and the rules in it that the container
// needs.
func (j *job) ensureNetwork(have nft.Ruleset, tx *nft.Tx, l layout, p netip.Prefix) {
	for _, want := range append([]nft.Rule{j.entry(l)}, j.wants(l, p)...) {
		if have.Lacks(want) != nil {
			tx.EnsureChain(l.network(j.key.Network))
			tx.Ensure(have, want)
		}
	}
}

// lacks returns the first rule that the attachment needs and that is not there,
// or nil.
func (j *job) lacks(have nft.Ruleset, g group, p netip.Prefix) (*nft.Rule, error) {
	entry, err := g.entry()
	if err != nil {
		return nil, err
	}
	alone := append([]nft.Rule{j.entry(g.layout)}, j.wants(g.layout, p)...) // in whatever order
	if entry != nil {
		alone = append(alone, *entry)
	}
	for _, r := range alone {
		if lacks := have.Lacks(r); lacks != nil {
			return lacks, nil
		}
	}
	return have.Lacks(append(g.shared(), g.rules()...)...), nil
}
