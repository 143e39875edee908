package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// table is the test's plugins: under one of their names, or as cni, the test
// binary is a plugin binary.
var table = plugin.Table{"alpha": idle("alpha"), "beta": idle("beta"), "gamma": idle("gamma")}

func idle(name string) plugin.Plugin {
	return plugin.Spec[struct{}]{Name: name, Parse: func(*plugin.Call) (struct{}, error) { return struct{}{}, nil }}
}

// installTo, in the environment, makes the test binary install into a directory.
const installTo = "TEST_INSTALL_TO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(installTo); dir != "" {
		self, err := os.Executable()
		if err := errors.Join(err, Install(context.Background(), Options{Plugins: self, Dir: dir, Out: os.Stdout})); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if name := filepath.Base(os.Args[0]); name == "cni" || table[name] != nil {
		plugin.Main(table)
	}
	os.Exit(m.Run())
}

// A rig is a directory to install into.
type rig struct {
	t    *testing.T
	opts Options
	out  *bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	return &rig{t, Options{Plugins: self, Dir: filepath.Join(t.TempDir(), "bin"), Out: &out}, &out}
}

// install installs with the options changed by set.
func (r *rig) install(set ...func(*Options)) error {
	r.t.Helper()
	o := r.opts
	for _, f := range set {
		f(&o)
	}
	return Install(r.t.Context(), o)
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.opts.Dir, name) }

// put makes a file in the directory.
func (r *rig) put(name, content string) {
	r.t.Helper()
	r.must(os.MkdirAll(r.opts.Dir, 0o755))
	r.must(os.WriteFile(r.path(name), []byte(content), 0o755))
}

// who runs the plugin and returns the first line that it says of itself.
func (r *rig) who(name string) string {
	r.t.Helper()
	out, err := run(r.t.Context(), r.path(name), name)
	r.must(err)
	line, _, _ := strings.Cut(out, "\n")
	return line
}

// files lists the directory.
func (r *rig) files() []string {
	r.t.Helper()
	entries, err := os.ReadDir(r.opts.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func force(o *Options)      { o.Force = true }
func dryRun(o *Options)     { o.DryRun = true }
func withBackup(o *Options) { o.Backup = true }

const about = "CNI beta plugin v" + plugin.Version

func TestInstall(t *testing.T) {
	r := newRig(t)
	r.must(r.install())
	if diff := cmp.Diff([]string{"alpha", "beta", "gamma"}, r.files()); diff != "" {
		t.Error(diff)
	}
	if got := r.who("beta"); got != about {
		t.Errorf("beta says %q, want %q", got, about)
	}
	first, err := os.Stat(r.path("alpha"))
	r.must(err)
	for _, n := range r.files() {
		st, err := os.Stat(r.path(n))
		r.must(err)
		if !os.SameFile(first, st) || st.Mode() != 0o755 {
			t.Errorf("%s: mode %v, the same file as alpha: %v", n, st.Mode(), os.SameFile(first, st))
		}
	}
}

func TestInstallTwiceChangesNothing(t *testing.T) {
	r := newRig(t)
	r.must(r.install())
	before, err := os.Stat(r.path("alpha"))
	r.must(err)
	r.out.Reset()
	r.must(r.install(withBackup))
	after, err := os.Stat(r.path("alpha"))
	r.must(err)
	if !os.SameFile(before, after) {
		t.Error("alpha is another file")
	}
	if diff := cmp.Diff("alpha  up to date\nbeta   up to date\ngamma  up to date\n", r.out.String()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"alpha", "beta", "gamma"}, r.files()); diff != "" {
		t.Error(diff)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	r := newRig(t)
	r.must(r.install(dryRun))
	if _, err := os.Stat(r.opts.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, want that it does not exist", r.opts.Dir, err)
	}
	if !strings.Contains(r.out.String(), "alpha  would be installed\n") {
		t.Errorf("said %q", r.out)
	}
}

func TestForeignFileIsRefused(t *testing.T) {
	for what, make := range map[string]func(*rig){
		"script":       func(r *rig) { r.put("beta", "#!/bin/sh\necho 'CNI beta plugin v9.9.9' >&2\n") },
		"text":         func(r *rig) { r.put("beta", "hello\n") },
		"dead symlink": func(r *rig) { r.put("x", ""); r.must(os.Symlink("nowhere", r.path("beta"))) },
		"Go program":   func(r *rig) { r.build("beta", "example.org/other/plugin") },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			make(r)
			before := r.files()
			err := r.install()
			if err == nil || !strings.Contains(err.Error(), "neither netcleat's nor the reference's: beta;") {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(before, r.files()); diff != "" {
				t.Errorf("left behind: %s", diff)
			}
			if _, err := os.Stat(filepath.Join(r.opts.Dir, "..", "ran")); err == nil {
				t.Error("the foreign program was run")
			}
			r.must(r.install(force))
			if got := r.who("beta"); got != about {
				t.Errorf("forced, beta says %q", got)
			}
		})
	}
}

func TestDirectoryIsRefused(t *testing.T) {
	r := newRig(t)
	r.must(os.MkdirAll(r.path("beta"), 0o755))
	if err := r.install(force); err == nil || !strings.HasSuffix(err.Error(), "beta: is a directory") {
		t.Errorf("got %v", err)
	}
}

// build puts a Go program of the module, or of none, into the directory. It says
// that it is version 1.9.1 of its name, and leaves a file "ran" in the directory
// above.
func (r *rig) build(name, module string) {
	r.t.Helper()
	r.must(os.MkdirAll(r.opts.Dir, 0o755))
	content, err := compile(r.t.TempDir(), module)
	r.must(err)
	r.must(remove(r.path(name)))
	r.must(os.WriteFile(r.path(name), content, 0o755))
}

// compiled are the programs that were built, by module.
var compiled = map[string][]byte{}

// compile builds the program, once for each module.
func compile(src, module string) ([]byte, error) {
	if content := compiled[module]; content != nil {
		return content, nil
	}
	err := os.WriteFile(filepath.Join(src, "main.go"), []byte(`package main

import (
	"os"
	"path/filepath"
)

func main() {
	os.Stderr.WriteString("CNI " + filepath.Base(os.Args[0]) + " plugin v1.9.1\n")
	self, _ := os.Executable()
	os.WriteFile(filepath.Join(filepath.Dir(filepath.Dir(self)), "ran"), nil, 0o644)
}
`), 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-o", "out", ".")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if module == "" {
		cmd.Env = append(cmd.Env, "GO111MODULE=off", "GOFLAGS=")
	} else if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte("module "+module+"\n"), 0o644); err != nil {
		return nil, err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	content, err := os.ReadFile(filepath.Join(src, "out"))
	compiled[module] = content
	return content, err
}

func TestReferenceIsReplaced(t *testing.T) {
	for what, module := range map[string]string{"built as a module": referenceModule, "built without modules": ""} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			r.build("beta", module)
			r.must(r.install())
			if got := r.who("beta"); got != about {
				t.Errorf("beta says %q", got)
			}
			if !strings.Contains(r.out.String(), "beta   installed, replacing the reference's v1.9.1 sha256:") {
				t.Errorf("said %q", r.out)
			}
		})
	}
}

func TestBackupAndRestore(t *testing.T) {
	r := newRig(t)
	r.build("beta", referenceModule)
	r.put("gamma", "a site's own")
	r.must(r.install(withBackup, force))
	if got := r.who("gamma"); got != "CNI gamma plugin v"+plugin.Version {
		t.Errorf("gamma says %q", got)
	}

	o := r.opts
	o.DryRun = true
	r.must(Restore(t.Context(), o))
	if got := r.who("beta"); got != about {
		t.Errorf("after a dry run beta says %q", got)
	}
	r.must(Restore(t.Context(), r.opts))
	if diff := cmp.Diff([]string{"beta", "gamma"}, r.files()); diff != "" {
		t.Error(diff)
	}
	if got := r.who("beta"); got != "CNI beta plugin v1.9.1" {
		t.Errorf("beta says %q", got)
	}
	b, err := os.ReadFile(r.path("gamma"))
	r.must(err)
	if string(b) != "a site's own" {
		t.Errorf("gamma holds %q", b)
	}
	if err := Restore(t.Context(), r.opts); err == nil || !strings.HasSuffix(err.Error(), "no backup") {
		t.Errorf("restored twice: %v", err)
	}
}

func TestInterruptedRestoreGoesOn(t *testing.T) {
	r := newRig(t)
	r.put("beta", "first")
	r.put("gamma", "second")
	r.must(r.install(withBackup, force))
	dir, _, err := r.opts.newestBackup()
	r.must(err)
	r.must(os.Rename(filepath.Join(dir, "beta"), r.path("beta"))) // and then it was killed
	r.must(Restore(t.Context(), r.opts))
	if diff := cmp.Diff([]string{"beta", "gamma"}, r.files()); diff != "" {
		t.Error(diff)
	}
}

// A backup of names that were not replaced afterwards holds the very files that
// stand there.
func TestRestoreOfUnchangedFiles(t *testing.T) {
	r := newRig(t)
	r.must(r.install())
	all, err := r.opts.look(t.Context(), []string{"alpha", "beta", "gamma"})
	r.must(err)
	r.must(r.opts.backup(all))
	r.must(Restore(t.Context(), r.opts))
	if diff := cmp.Diff([]string{"alpha", "beta", "gamma"}, r.files()); diff != "" {
		t.Error(diff)
	}
}

func TestRemainsOfKilledInstallationGo(t *testing.T) {
	r := newRig(t)
	r.put(tempPrefix+"alpha", "half")
	r.must(r.install())
	if diff := cmp.Diff([]string{"alpha", "beta", "gamma"}, r.files()); diff != "" {
		t.Error(diff)
	}
}

func TestTwoInstallationsAtOnce(t *testing.T) {
	r := newRig(t)
	d, err := r.opts.open()
	r.must(err)
	defer d.Close()
	if err := r.install(); err == nil || !strings.Contains(err.Error(), "another installation is running") {
		t.Errorf("got %v", err)
	}
}

func TestOtherProgramIsNoPluginBinary(t *testing.T) {
	r := newRig(t)
	r.build("other", "example.org/other")
	err := r.install(func(o *Options) { o.Plugins = r.path("other") })
	if err == nil || !strings.HasSuffix(err.Error(), "not a program of netcleat") {
		t.Errorf("got %v", err)
	}
}

// Whoever runs a plugin while it is replaced gets a whole one, and a call that
// runs meanwhile ends as it began.
func TestCallsAreUndisturbed(t *testing.T) {
	r := newRig(t)
	r.must(r.install())
	old := exec.Command(r.path("beta"))
	old.Env = []string{"CNI_COMMAND=VERSION"}
	stdin, err := old.StdinPipe()
	r.must(err)
	var answer bytes.Buffer
	old.Stdout = &answer
	r.must(old.Start())

	stop, bad := make(chan struct{}), make(chan error, 1)
	var callers sync.WaitGroup
	for range 2 {
		callers.Go(func() { callUntil(r.path("beta"), stop, bad) })
	}
	for range 5 {
		r.must(os.Remove(r.path("gamma"))) // or there is nothing to do
		// In a process of its own: one that starts others while it has a program
		// open for writing passes that on to them until they execute.
		other := exec.Command(r.opts.Plugins)
		other.Env = append(os.Environ(), installTo+"="+r.opts.Dir)
		if out, err := other.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	close(stop)
	callers.Wait()
	select {
	case err := <-bad:
		t.Error(err)
	default:
	}

	_, err = io.WriteString(stdin, `{"cniVersion":"1.0.0"}`)
	r.must(errors.Join(err, stdin.Close(), old.Wait()))
	if !strings.HasPrefix(answer.String(), `{"cniVersion":"1.0.0"`) {
		t.Errorf("the old call answered %q", answer.String())
	}
}

// callUntil runs the plugin again and again; its first failure goes to bad.
func callUntil(path string, stop <-chan struct{}, bad chan<- error) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if out, err := exec.Command(path).CombinedOutput(); err != nil || !strings.HasPrefix(string(out), about) {
			select {
			case bad <- fmt.Errorf("%w: %s", err, out):
			default:
			}
			return
		}
	}
}
