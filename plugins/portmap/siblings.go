package portmap

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nft"
)

// siblings returns what the container's other interfaces on the network publish, and
// other containers with the same chain: it is theirs, too.
func (j *job) siblings() ([]*job, error) {
	records, err := j.dir.Joined(j.key)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", j.key.Network, err)
	}
	var list []*job
	for _, r := range records {
		s := &job{key: r.Key, dir: j.dir, gate: j.gate, note: j.note}
		if r.Plugin != "portmap" || r.Key == j.key || r.GetState(&s.publication) != nil {
			continue
		}
		if s.byIPTables() {
			list = append(list, s)
		}
	}
	return list, nil
}

// isShared reports whether rules of the chain may be of the container's other
// interfaces on the network, which have no record where it was lost.
func (j *job) isShared(c *nft.Conn, chain nft.Chain) (bool, error) {
	siblings, err := j.siblings()
	if err != nil {
		return false, err
	}
	rules, err := c.Rules(chain)
	if err != nil || len(rules) == 0 {
		return false, err
	}
	own, v6 := 0, chain.Table.Family == nft.IPv6
	for _, t := range j.Targets {
		if t.Addr().Is6() == v6 {
			own += len(j.forwards(t))
		}
	}
	other := len(j.Targets) > 0 && len(rules) != own
	return (other || len(siblings) > 0) && iptables.Tool{V6: v6}.Translated(), nil
}

// withdrawal is the script that removes the attachment's rules from the container's
// chain, with what leads to them, and the chain where no rule is left. Whose a rule
// is its address tells.
func (j *job) withdrawal(lines []iptables.Line) (script []string) {
	chain := j.chainName("DN")
	siblings, err := j.siblings()
	if err != nil {
		j.note("portmap: %v (removing what is known)", err)
	}
	stay := map[string]bool{} // protocol and ports of the rules that do
	var group []string        // the marks that belong to the mapping after them
	for _, l := range lines {
		if !l.Rule || l.Chain != chain {
			continue
		}
		group = append(group, l.Delete())
		to, maps := destinationOf(l)
		if !maps {
			continue
		}
		if j.isOwn(to, siblings) {
			script = append(script, group...)
		} else {
			stay[l.Value("-p")+" "+l.Value("--dport")] = true
		}
		group = nil
	}
	if len(stay) == 0 {
		return iptables.DropChain(lines, chain, nil)
	}
	return append(script, j.unneededEntries(lines, stay)...)
}

// isOwn reports whether a rule to the address is the attachment's: where it does not
// know its addresses, any that no record names.
func (j *job) isOwn(to netip.Addr, siblings []*job) bool {
	has := func(p *job) bool {
		return slices.ContainsFunc(p.Targets, func(t netip.Prefix) bool { return t.Addr() == to })
	}
	if len(j.Targets) > 0 {
		return has(j)
	}
	return !slices.ContainsFunc(siblings, has)
}

// destinationOf returns the address that a rule leads to.
func destinationOf(l iptables.Line) (ip netip.Addr, is bool) {
	to := l.Value("--to-destination")
	if at, err := netip.ParseAddrPort(to); err == nil {
		return at.Addr(), true
	}
	ip, err := netip.ParseAddr(to)
	return ip, err == nil
}
