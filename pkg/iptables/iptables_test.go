package iptables

import (
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
