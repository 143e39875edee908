package portmap

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/pkg/iptables"
)

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
