package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/netcleat/netcleat/test/bench/cases"
	"github.com/netcleat/netcleat/test/bench/report"
)

func TestInstalledCountsHardLinksOnce(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"bridge", "cnitool"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1000), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "bridge"), filepath.Join(dir, "ptp")); err != nil {
		t.Fatal(err)
	}
	got, err := installed(contender{"x", dir})
	if want := (report.Size{Contender: "x", Bytes: 1000, Files: 2}); err != nil || got != want {
		t.Errorf("want %v, got %v, %v", want, got, err)
	}
}

func TestPeers(t *testing.T) {
	var f field
	if err := f.addPeers("a=/x,b=/y"); err != nil || !slices.Equal(f.plugins, []contender{{"a", "/x"}, {"b", "/y"}}) {
		t.Errorf("want a and b, got %v, %v", f.plugins, err)
	}
	if err := f.addPeers("a"); err == nil {
		t.Error("want an error without a directory")
	}
}

func TestEntries(t *testing.T) {
	f := field{
		plugins: []contender{{"ours", "/o"}, {"reference", "/r"}}, floorGo: "/floor", floorC: "/floor-c", startGo: "/empty",
	}
	for _, c := range []struct {
		name string
		of   cases.Case
		want []string
	}{
		{"start", cases.Case{}, []string{"ours", "reference", report.StartGo}},
		{"bridge", cases.Case{Kind: "bridge", Nets: []string{"4"}}, []string{"ours", "reference", report.FloorGo, report.FloorC}},
		{"dual", cases.Case{Kind: "bridge", Nets: []string{"4", "6"}}, []string{"ours", "reference", report.FloorGo}},
		{"backends", cases.Case{Kind: "ptp", Backends: []string{"x", "y"}}, []string{"ours", "reference x", "reference y", report.FloorGo}},
		{"connections", cases.Case{Connect: true}, []string{"ours", "ours, 1000 others", "reference", "reference, 1000 others"}},
	} {
		var got []string
		for _, e := range f.entries(c.of, 9) {
			got = append(got, e.name)
		}
		if !slices.Equal(c.want, got) {
			t.Errorf("%s: want %q, got %q", c.name, c.want, got)
		}
	}
}
