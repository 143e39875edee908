package report

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample is a report in which every kind of row occurs.
func sample() *Report {
	return &Report{
		Date:     "2026-01-02 03:04 UTC",
		Machine:  Machine{CPU: "Example CPU", Cores: 2, Kernel: "6.18.0", HZ: "250", Go: "go1.26"},
		Versions: []Version{{Ours, "CNI bridge plugin v1"}, {Upstream, "CNI bridge plugin v1.9.1"}},
		Sizes:    []Size{{Ours, 7_400_000, 18}, {Upstream, 68_500_000, 18}},
		Series: []Series{
			{
				Case: "bridge", Verb: "ADD", Contender: Ours, WallMS: []float64{3.0, 3.1, 2.9, 3.2, 3.0},
				CPUMS: []float64{2.5, 2.6, 2.4, 2.5, 2.5}, Execs: 1, PeakKiB: 4096, Floor: FloorGo,
			},
			{
				Case: "bridge", Verb: "ADD", Contender: Upstream, WallMS: []float64{10, 11, 9.5, 10.5, 10},
				CPUMS: []float64{9, 9, 9, 9, 9}, Execs: 2, PeakKiB: 5120, Floor: FloorGo,
			},
			{
				Case: "bridge", Verb: "ADD", Contender: FloorGo, WallMS: []float64{2.7, 2.8, 2.6, 2.7, 2.7},
				CPUMS: []float64{2.2, 2.2, 2.2, 2.2, 2.2}, Execs: 1, PeakKiB: 1800, Floor: FloorGo,
			},
			{
				Case: "burst", Verb: "DEL", Contender: Upstream + " iptables", Level: 16, Failed: 1, Attached: 20,
				WallMS: []float64{50, 60, 70}, CPUMS: []float64{9, 9, 9}, PerSecond: []float64{20, 21}, Floor: FloorGo,
			},
			{Case: "connections", Verb: "connect", Contender: Ours, PerSecond: []float64{20000, 20500, 21000}},
			{
				Case: "connections", Verb: "connect", Contender: Ours + ", 1000 others",
				PerSecond: []float64{19900, 20000, 20100}, Floor: Ours,
			},
		},
		Notes: []string{"bridge, reference: DEL leaves [\"link x\"]"},
	}
}

func TestGoldens(t *testing.T) {
	older := sample()
	older.Date = "2026-01-01 03:04 UTC"
	for i, v := range older.Series[0].WallMS {
		older.Series[0].WallMS[i] = v * 1.5
	}
	for name, got := range map[string]string{
		"bench.md":   sample().Markdown(),
		"bench.svg":  sample().SVG(),
		"empty.svg":  (&Report{}).SVG(),
		"empty.md":   (&Report{}).Markdown(),
		"compare.md": Compare(older, sample()),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name)
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != got {
				t.Errorf("%s: want\n%s\ngot\n%s\n(UPDATE=1 rewrites it)", path, want, got)
			}
		})
	}
}

func TestSVGIsXML(t *testing.T) {
	r := sample()
	r.Series[0].Case = `<a & "b">`
	d := xml.NewDecoder(strings.NewReader(r.SVG()))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriteAndRead(t *testing.T) {
	dir := t.TempDir()
	if err := sample().Write(dir); err != nil {
		t.Fatal(err)
	}
	r, err := Read(filepath.Join(dir, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	if want, got := sample().Markdown(), r.Markdown(); want != got {
		t.Errorf("want\n%s\ngot\n%s", want, got)
	}
}

func TestReadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old.json")
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("want an error with %s, got %v", path, err)
	}
}
