package portmap

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/iptables"
)

// restoreChain makes what is missing or was changed of the shared chains, and the
// attachment's own rules again. Those of the container's other interfaces stay.
func (j *job) restoreChain(ctx context.Context, tool iptables.Tool, target netip.Prefix) error {
	raw, err := tool.Restored(ctx, "raw", j.guardRules(tool.V6), isGuard)
	if err != nil {
		return err
	}
	shared, err := tool.Restored(ctx, "nat", j.sharedRules(), j.isLeftShared)
	if err != nil {
		return err
	}
	saved, err := tool.Save(ctx, "nat")
	if err != nil {
		return err
	}
	lines := iptables.Parse(saved)
	var nat []string
	for _, chain := range append(j.sharedChains(), j.chainName("DN")) {
		if !iptables.HasChain(lines, chain) {
			nat = append(nat, "-N "+chain)
		}
	}
	nat = append(append(nat, shared...), j.leftovers(lines, target)...)
	nat = append(nat, iptables.Adds(j.ownRules(target))...)
	script := iptables.Script("raw", raw) + iptables.Script("nat", nat)
	return tool.Restore(ctx, j.gate, "publish ports of "+j.key.ContainerID, script)
}

// isLeftShared reports whether a line is what is left of the shared rules: it leads to
// one of the chains, or is in one and none that another container needs, which may
// have another bit.
func (j *job) isLeftShared(l iptables.Line) bool {
	chains := j.sharedChains()
	if slices.Contains([]string{"PREROUTING", "OUTPUT", "POSTROUTING"}, l.Chain) {
		return slices.Contains(chains, l.Value("-j"))
	}
	if l.Chain == dnatChain || !slices.Contains(chains, l.Chain) {
		return false
	}
	for bit := range 32 {
		if slices.ContainsFunc(bitRules(bit), l.Is) {
			return false
		}
	}
	return true
}

// leftovers are the lines that delete what is left of the attachment's rules: all of
// the container's chain, and what leads there, but for what maps other ports to
// other addresses, which another interface of the container has published.
func (j *job) leftovers(lines []iptables.Line, target netip.Prefix) (script []string) {
	chain := j.chainName("DN")
	stay := map[string]bool{} // protocol and ports of the rules that do
	for _, l := range lines {
		switch {
		case !l.Rule || l.Chain != chain:
		case j.isOthers(l, target):
			stay[l.Value("-p")+" "+l.Value("--dport")] = true
		default:
			script = append(script, l.Delete())
		}
	}
	return append(script, j.unneededEntries(lines, stay)...)
}

// isOthers reports whether a line of the container's chain is of another interface's
// ports.
func (j *job) isOthers(l iptables.Line, target netip.Prefix) bool {
	ip, maps := destinationOf(l)
	port, host := l.Value("--dport"), strings.TrimSuffix(strings.TrimSuffix(l.Value("-d"), "/32"), "/128")
	if l.Value("-p") == "" || port == "" || maps && ip == target.Addr() {
		return false
	}
	return !slices.ContainsFunc(j.pick(target.Addr().Is6()), func(m mapping) bool {
		own := ""
		if m.HostIP.IsValid() {
			own = m.HostIP.String()
		}
		return m.Proto.String() == l.Value("-p") && m.dports() == port && own == host
	})
}

// unneededEntries are the lines that delete what leads to the container's chain for
// other ports than those that stay.
func (j *job) unneededEntries(lines []iptables.Line, stay map[string]bool) (script []string) {
	for _, l := range lines {
		needed := slices.ContainsFunc(strings.Split(l.Value("--dports"), ","), func(port string) bool { return stay[l.Value("-p")+" "+port] })
		if l.Chain == dnatChain && l.Value("-j") == j.chainName("DN") && !needed {
			script = append(script, l.Delete())
		}
	}
	return script
}
