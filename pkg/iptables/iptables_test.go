package iptables

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var saved = []string{
	"# Generated", "*nat", ":POSTROUTING ACCEPT [1:2]", ":CNI-a - [0:0]",
	`-A POSTROUTING -s 10.1.0.2/32 -m comment --comment "name: \"net1\" id: \"c1\"" -j CNI-a`,
	`-A POSTROUTING ! -s 10.1.0.3/32 -j CNI-a`,
	"COMMIT",
}

func TestParse(t *testing.T) {
	lines := Parse(saved)
	if len(lines) != 4 || !HasChain(lines, "CNI-a") || HasChain(lines, "CNI-b") {
		t.Fatalf("lines: %v", lines)
	}
	if got := lines[2].Value("--comment"); got != Comment("", "net1", "c1") {
		t.Errorf("comment %q", got)
	}
	if !lines[2].Has("-s", "10.1.0.2/32") || lines[3].Has("-s", "10.1.0.3/32") {
		t.Error("Has does not heed the negation")
	}
}

func TestDropChain(t *testing.T) {
	all := []string{"-D POSTROUTING -s 10.1.0.2/32 -m comment --comment \"name: \\\"net1\\\" id: \\\"c1\\\"\" -j CNI-a", "-D POSTROUTING ! -s 10.1.0.3/32 -j CNI-a", "-F CNI-a", "-X CNI-a"}
	if diff := cmp.Diff(all, DropChain(Parse(saved), "CNI-a", nil)); diff != "" {
		t.Errorf("script (-want +got):\n%s", diff)
	}
	keep := func(l Line) bool { return l.Has("-s", "10.1.0.2/32") }
	if diff := cmp.Diff(all[1:2], DropChain(Parse(saved), "CNI-a", keep)); diff != "" {
		t.Errorf("with one to keep (-want +got):\n%s", diff)
	}
	if got := DropChain(Parse(saved), "CNI-b", nil); got != nil {
		t.Errorf("of a chain that is not there: %v", got)
	}
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "a b", `quo"ted`, `back\slash`} {
		if got := split("-x " + Quote(s)); len(got) != 2 || got[1] != s {
			t.Errorf("%q: %q", s, got)
		}
	}
}

// Whatever iptables-save prints is read; and what Quote writes is read as one
// word, the same.
func FuzzParse(f *testing.F) {
	for _, l := range saved {
		f.Add(l)
	}
	f.Add("-A ")
	f.Add(`-A X -m comment --comment "a \\" b`)
	f.Fuzz(func(t *testing.T, line string) {
		for _, l := range Parse([]string{line}) {
			_, _, _ = l.Value("-j"), l.Has("-s", "10.0.0.1/32"), l.Delete()
		}
		DropChain(Parse([]string{":X - [0:0]", line}), "X", nil)
		if words := split("-A X " + Quote(line) + " -j Y"); CheckWords("", []string{line}) == nil && (len(words) != 5 || words[2] != line) {
			t.Errorf("%q is written as %s, which reads as %q", line, Quote(line), words)
		}
	})
}

// No name that is taken brings a script another word.
func FuzzCheckChain(f *testing.F) {
	for _, name := range []string{"KUBE-MARK-MASQ", "CNI-ADMIN", "-X", "!a", "a b", "a\nb", `a"b`, ""} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckChain("", name) != nil {
			return
		}
		if words := split("-A X -j " + name + " -m x"); len(words) != 6 || words[3] != name || strings.ContainsAny(name, "\n\r") || name[0] == '-' {
			t.Errorf("%q reads as %q", name, words)
		}
	})
}
