package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// uninstall goes back with the rig's options.
func (r *rig) uninstall() error {
	r.t.Helper()
	r.out.Reset()
	return Uninstall(r.t.Context(), r.opts)
}

// older puts an earlier version of ours under a name: other bytes, of our module.
func (r *rig) older(name string) {
	r.t.Helper()
	r.build(name, ownModule)
}

func TestUninstallFreesTheNames(t *testing.T) {
	r := newRig(t)
	r.must(r.install())
	r.put("site", "#!/bin/sh\n") // a plugin of the site's
	o := r.opts
	o.DryRun = true
	r.must(Uninstall(t.Context(), o))
	if diff := cmp.Diff([]string{"alpha", "beta", "gamma", "site"}, r.files()); diff != "" {
		t.Errorf("after a dry run: %s", diff)
	}
	r.must(r.uninstall())
	if diff := cmp.Diff([]string{"site"}, r.files()); diff != "" {
		t.Error(diff)
	}
	r.must(r.uninstall()) // twice is no error
}

// What was there first comes back, not an earlier version of ours.
func TestUninstallPutsBackWhatWasFirst(t *testing.T) {
	r := newRig(t)
	r.build("beta", referenceModule)
	r.must(r.install(withBackup))
	r.older("alpha")
	r.older("beta")
	r.must(r.install(withBackup))
	if got := r.who("beta"); got != about {
		t.Fatalf("beta says %q", got)
	}
	r.must(r.uninstall())
	if diff := cmp.Diff([]string{"beta"}, r.files()); diff != "" {
		t.Error(diff)
	}
	if who, err := identify(t.Context(), r.path("beta")); err != nil || who.owner != reference {
		t.Errorf("beta is %v, %v", who, err)
	}
}

// Whoever has replaced a plugin meanwhile keeps it.
func TestUninstallLeavesOthers(t *testing.T) {
	r := newRig(t)
	r.put("beta", "first")
	r.must(r.install(withBackup, force))
	r.must(os.Remove(r.path("beta")))
	r.put("beta", "second")
	r.must(r.uninstall())
	if b, err := os.ReadFile(r.path("beta")); err != nil || string(b) != "second" {
		t.Errorf("beta holds %q, %v", b, err)
	}
	if !strings.Contains(r.out.String(), "beta: stays, as it is a file that is neither") {
		t.Errorf("said %q", r.out)
	}
}

func TestInterruptedUninstallGoesOn(t *testing.T) {
	r := newRig(t)
	r.put("beta", "first")
	r.put("gamma", "second")
	r.must(r.install(withBackup, force))
	dir, _, err := r.opts.newestBackup()
	r.must(err)
	r.must(os.Rename(filepath.Join(dir, "beta"), r.path("beta"))) // and then it was killed
	r.must(r.uninstall())
	if diff := cmp.Diff([]string{"beta", "gamma"}, r.files()); diff != "" {
		t.Error(diff)
	}
}

// A backup that has changed is not put back, and nothing else is changed.
func TestDamagedBackup(t *testing.T) {
	r := newRig(t)
	r.put("beta", "first")
	r.must(r.install(withBackup, force))
	dir, m, err := r.opts.newestBackup()
	r.must(err)
	if m.Files[1].Sum != "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e" {
		t.Errorf("the manifest has SHA-256 %q of beta", m.Files[1].Sum)
	}
	r.must(os.WriteFile(filepath.Join(dir, "beta"), []byte("not the first"), 0o755))
	for what, undo := range map[string]func() error{
		"restore": func() error { return Restore(t.Context(), r.opts) }, "uninstall": r.uninstall,
	} {
		if err := undo(); err == nil || !strings.Contains(err.Error(), "it is damaged, and nothing was changed") {
			t.Errorf("%s: %v", what, err)
		}
		if got := r.who("beta"); got != about {
			t.Errorf("%s: beta says %q", what, got)
		}
	}
}

// A directory that cannot be written to is left as it is.
func TestReadOnlyDirectory(t *testing.T) {
	r := newRig(t)
	r.build("beta", referenceModule)
	before := r.files()
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere: test/release has a read-only file system")
	}
	r.must(os.Chmod(r.opts.Dir, 0o555))
	t.Cleanup(func() { _ = os.Chmod(r.opts.Dir, 0o755) })
	if err := r.install(withBackup); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, r.files()); diff != "" {
		t.Error(diff)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		make  func(*rig)
		level finding.Level
		says  string
	}{
		{"nothing", func(r *rig) { r.put("x", "") }, finding.Problem, "none of the plugins is netcleat's"},
		{"the reference's", func(r *rig) { r.build("beta", referenceModule) }, finding.Problem, "none of the plugins is netcleat's"},
		{"all", func(r *rig) { r.must(r.install()) }, finding.Fine, "all 3 plugins are netcleat's v" + plugin.Version},
		{"mixed suites", func(r *rig) { r.must(r.install()); r.build("beta", referenceModule) }, finding.Problem, "mixed suites: the reference's are beta"},
		{"a site's own", func(r *rig) { r.must(r.install()); r.must(os.Remove(r.path("beta"))); r.put("beta", "text") }, finding.Problem, "neither netcleat's nor the reference's: beta"},
		{"one is missing", func(r *rig) { r.must(r.install()); r.must(os.Remove(r.path("beta"))) }, finding.Problem, "missing: beta"},
		{"two versions", func(r *rig) { r.must(r.install()); r.older("beta") }, finding.Problem, "plugins of several versions: v1.10.0, v1.9.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			c.make(r)
			before := r.files()
			found, err := Check(t.Context(), r.opts)
			r.must(err)
			if len(found) != 1 || found[0].Level != c.level || !strings.Contains(found[0].What, c.says) {
				t.Errorf("want %s %q, got %v", c.level, c.says, found)
			}
			if diff := cmp.Diff(before, r.files()); diff != "" {
				t.Errorf("changed: %s", diff)
			}
		})
	}
}

func TestCheckTellsOfRemains(t *testing.T) {
	r := newRig(t)
	r.put("beta", "first")
	r.must(r.install(withBackup, force))
	r.put(tempPrefix+"alpha", "half")
	found, err := Check(t.Context(), r.opts)
	r.must(err)
	var said []string
	for _, f := range found {
		said = append(said, f.What)
	}
	all := strings.Join(said, "\n")
	if !strings.Contains(all, "an installation was interrupted") || !strings.Contains(all, "backups of earlier plugins: 1") {
		t.Errorf("said %s", all)
	}
}
