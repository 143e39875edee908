package cases

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Table {
		if seen[c.Name] {
			t.Errorf("%s: occurs twice", c.Name)
		}
		seen[c.Name] = true
		for _, backend := range append([]string{""}, c.Backends...) {
			s, err := c.Setup(backend)
			if err != nil {
				t.Error(err)
			}
			if got := backend != "" && strings.Contains(string(s.List), `"`+backend+`"`); got != (backend != "") {
				t.Errorf("%s: backend %q is not in the list", c.Name, backend)
			}
			if backend == "" && strings.Contains(string(s.List), "Backend") {
				t.Errorf("%s: the list has a backend without one being asked for", c.Name)
			}
		}
	}
}

func TestBrokenList(t *testing.T) {
	for _, list := range []string{"{", "{{", "{{.No}}"} {
		if _, err := (Case{Name: "x", List: list}).Rendered(""); err == nil {
			t.Errorf("list %q: want an error", list)
		}
	}
}
