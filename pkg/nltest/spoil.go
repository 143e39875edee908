package nltest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// Spoils returns commands that each remove one part of the nftables ruleset: a
// rule, the rules of a chain or of a table, or the elements of a set. Rules of
// iptables, also of the legacy one, are changed, too.
func (b *Bed) Spoils() (commands [][]string) {
	b.t.Helper()
	var table, in []string
	empty := true // of the chain or set
	for _, line := range strings.Split(b.Run("nft", "-a", "list", "ruleset"), "\n") {
		w := strings.Fields(line)
		handle := handles.FindString(line)
		switch {
		case len(w) > 2 && w[0] == "table":
			table = w[1:3]
			commands = append(commands, append([]string{"nft", "flush", "table"}, table...))
		case len(w) > 2 && (w[0] == "chain" || w[0] == "set" || w[0] == "map") && w[2] == "{":
			in, empty = w[:2], true
		case strings.HasPrefix(line, "\t}"):
			if !empty {
				commands = append(commands, append([]string{"nft", "flush", in[0]}, append(table, in[1])...))
			}
		case len(w) > 0 && w[0] == "elements":
			empty = false
		case handle != "" && strings.HasPrefix(line, "\t\t") && in[0] == "chain":
			empty = false
			commands = append(commands, append([]string{"nft", "delete", "rule"}, append(table, in[1], "handle", strings.Fields(handle)[2])...))
		}
	}
	for _, tool := range []string{"iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy"} {
		commands = append(commands, b.spoilsOf(tool)...)
	}
	return commands
}

// spoilsOf returns commands that each change one of iptables' rules, so that it matches
// less, and for the legacy one those that delete a rule or flush a chain.
func (b *Bed) spoilsOf(tool string) (commands [][]string) {
	b.t.Helper()
	table, at := "", map[string]int{}
	for _, line := range strings.Split(b.Run(tool+"-save"), "\n") {
		w := strings.Fields(line)
		if name, is := strings.CutPrefix(line, "*"); is {
			table, at = name, map[string]int{}
		}
		if len(w) < 2 || w[0] != "-A" {
			continue
		}
		chain := w[1]
		if at[chain]++; at[chain] == 1 && strings.HasSuffix(tool, "legacy") {
			commands = append(commands, []string{tool, "-t", table, "-F", chain})
		}
		rest := strings.TrimPrefix(line, "-A "+chain)
		commands = append(commands, []string{"sh", "-c", fmt.Sprintf("%s -t %s -R %s %d %s -m mark ! --mark 0x77", tool, table, chain, at[chain], rest)})
		if strings.HasSuffix(tool, "legacy") {
			commands = append(commands, []string{tool, "-t", table, "-D", chain, fmt.Sprint(at[chain])})
		}
	}
	return commands
}

var handles = regexp.MustCompile(`# handle \d+$`)

// Reload saves the nftables ruleset as nft(8) lists it, and loads that in its place.
func (b *Bed) Reload() {
	b.t.Helper()
	saved := filepath.Join(b.t.TempDir(), "ruleset")
	must(b.t, os.WriteFile(saved, []byte("flush ruleset\n"+b.Run("nft", "list", "ruleset")), 0o600))
	b.Run("nft", "-f", saved)
}

// KernelRules is the rules of all tables as the kernel tells them, byte by byte,
// without their handles: a listing that is the same may stand for other rules.
func (b *Bed) KernelRules() (all [][]byte) {
	b.t.Helper()
	m := nl.NewMessage("list rules", unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, 0, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	m.Query = true
	for _, body := range b.dump(unix.NETLINK_NETFILTER, m) {
		rule := []byte{body[0]} // the family; then comes the number of the ruleset's generation
		nl.Attrs(body[4:], func(typ uint16, data []byte) {
			if typ != unix.NFTA_RULE_HANDLE && typ != unix.NFTA_RULE_POSITION {
				rule = append(append(rule, byte(typ)), data...)
			}
		})
		all = append(all, rule)
	}
	return all
}

// EachSpoil calls fn for each of Spoils with a function that does it, also when it
// is called again after the part was restored. It fails the test where there are
// none.
func (b *Bed) EachSpoil(fn func(spoil func())) {
	b.t.Helper()
	n := len(b.Spoils())
	if n == 0 {
		b.t.Error("nothing to spoil")
	}
	for i := range n {
		done := ""
		fn(func() {
			all := b.Spoils()
			if len(all) != n {
				b.t.Fatalf("after %s: %d parts, want %d", done, len(all), n)
			}
			done = strings.Join(all[i], " ")
			b.t.Log(done)
			b.Run(all[i][0], all[i][1:]...)
		})
		if b.t.Failed() {
			b.t.Fatal("after " + done)
		}
	}
}

// Lines are the lines of a text, sorted: rules may stand in another order.
func Lines(text string) []string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return lines
}
