package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/netcleat/netcleat/test/bench/cases"
	"github.com/netcleat/netcleat/test/bench/report"
)

// Where things are built.
const (
	buildDir     = "build/bench"
	referenceDir = "build/reference/bin"
)

// contender is a directory of plugins.
type contender struct {
	name, dir string
}

// field is who takes part. A floor that could not be built is empty.
type field struct {
	plugins                          []contender
	floorGo, floorC, startGo, startC string
}

// entry is a contender in one case.
type entry struct {
	name    string
	dir     string // of plugins, or
	floor   string // the binary
	backend string
	others  int    // containers that are there before
	against string // who the floor column compares with
}

// assemble builds and finds the contenders and writes down what they are.
func assemble(r *report.Report) (*field, error) {
	f := &field{}
	if err := f.buildFloors(r); err != nil {
		return nil, err
	}
	if err := f.addOurs(r); err != nil {
		return nil, err
	}
	if err := f.addPeers(os.Getenv("PEERS")); err != nil {
		return nil, err
	}
	if err := command("scripts/reference"); err != nil {
		return nil, err
	}
	f.plugins = append(f.plugins, contender{report.Upstream, referenceDir})
	for i := range f.plugins {
		c := &f.plugins[i]
		var err error
		if c.dir, err = filepath.Abs(c.dir); err != nil {
			return nil, err
		}
		size, err := installed(*c)
		if err != nil {
			return nil, err
		}
		r.Sizes = append(r.Sizes, size)
		r.Versions = append(r.Versions, report.Version{Contender: c.name, Text: says(c.dir)})
	}
	return f, nil
}

// buildFloors builds the Go floors and, where there is a C compiler, their twins.
func (f *field) buildFloors(r *report.Report) error {
	bin, err := filepath.Abs(filepath.Join(buildDir, "bin"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	f.floorGo, f.startGo = filepath.Join(bin, "floor"), filepath.Join(bin, "empty")
	for out, source := range map[string]string{f.floorGo: "./test/bench/floor", f.startGo: "./test/bench/floor/empty"} {
		if err := command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, source); err != nil {
			return err
		}
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		r.Notes = append(r.Notes, "floors in C: left out, there is no gcc")
		return nil
	}
	f.floorC, f.startC = f.floorGo+"-c", f.startGo+"-c"
	return errors.Join(
		command("gcc", "-O2", "-static", "-o", f.floorC, "test/bench/floor/floor.c"),
		command("gcc", "-O2", "-static", "-o", f.startC, "test/bench/floor/empty/empty.c"))
}

// addOurs installs our plugins where they have been built.
func (f *field) addOurs(r *report.Report) error {
	if _, err := os.Stat("bin/cni"); errors.Is(err, fs.ErrNotExist) {
		note := "ours: left out, bin/cni has not been built"
		r.Notes = append(r.Notes, note)
		fmt.Fprintln(os.Stderr, "bench:", note)
		return nil
	}
	dir := filepath.Join(buildDir, "ours")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f.plugins = append(f.plugins, contender{report.Ours, dir})
	return command("bin/netcleat", "install", dir)
}

// addPeers adds the contenders of a name=directory,… list.
func (f *field) addPeers(peers string) error {
	for p := range strings.SplitSeq(peers, ",") {
		if p == "" {
			continue
		}
		name, dir, ok := strings.Cut(p, "=")
		if !ok {
			return fmt.Errorf("PEERS %q: want name=directory", p)
		}
		f.plugins = append(f.plugins, contender{name, dir})
	}
	return nil
}

// command runs a build step.
func command(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, bytes.TrimSpace(out))
	}
	return nil
}

// says returns what a plugin of dir prints when it is called by hand: its version.
func says(dir string) string {
	cmd := exec.Command(filepath.Join(dir, "bridge"))
	cmd.Env = []string{"NONE="}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// installed adds up a contender's plugins, hard links once. The reference's directory also holds cnitool.
func installed(c contender) (report.Size, error) {
	size := report.Size{Contender: c.name}
	seen := map[uint64]bool{}
	files, err := os.ReadDir(c.dir)
	for _, file := range files {
		info, err := os.Stat(filepath.Join(c.dir, file.Name())) // symbolic links count as what they lead to
		if err != nil {
			return size, err
		}
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || file.Name() == "cnitool" {
			continue
		}
		size.Files++
		if inode := info.Sys().(*syscall.Stat_t).Ino; !seen[inode] {
			seen[inode] = true
			size.Bytes += info.Size()
		}
	}
	return size, err
}

// entries returns who takes part in a case.
func (f *field) entries(c cases.Case, attached int) []entry {
	var all []entry
	for _, p := range f.plugins {
		names := []string{""}
		if p.name == report.Upstream && len(c.Backends) > 0 {
			names = c.Backends
		}
		for _, backend := range names {
			e := entry{name: strings.TrimSpace(p.name + " " + backend), dir: p.dir, backend: backend, against: f.floorName(c)}
			e.others = before(c, attached)
			all = append(all, e)
			if c.Connect {
				more := e
				more.others = cases.OtherPorts / cases.PortsEach
				more.name, more.against = fmt.Sprintf("%s, %d others", e.name, cases.OtherPorts), e.name
				all = append(all, more)
			}
		}
	}
	return append(all, f.floors(c, attached)...)
}

// before returns how many containers are there before what is measured.
func before(c cases.Case, attached int) int {
	if c.Attached {
		return attached
	}
	return c.Others
}

// floorName returns the Go floor of a case.
func (f *field) floorName(c cases.Case) string {
	if c.Kind == "" {
		return report.StartGo
	}
	return report.FloorGo
}

// floors returns the floors of a case. The C twin knows bridge with one address only.
func (f *field) floors(c cases.Case, attached int) []entry {
	var all []entry
	if c.Connect {
		return nil
	}
	switch {
	case c.Kind == "":
		all = []entry{{name: report.StartGo, floor: f.startGo}, {name: report.StartC, floor: f.startC}}
	case c.Kind == "bridge" && len(c.Nets) == 1:
		all = []entry{{name: report.FloorGo, floor: f.floorGo}, {name: report.FloorC, floor: f.floorC}}
	default:
		all = []entry{{name: report.FloorGo, floor: f.floorGo}}
	}
	var built []entry
	for _, e := range all {
		if e.floor == "" {
			continue
		}
		e.against, e.others = f.floorName(c), before(c, attached)
		built = append(built, e)
	}
	return built
}
