// Package e2e runs the built plugins as runtimes do: as programs, with the
// environment and the configurations of users.
//
// Each story (testdata/*.txtar) has a host of its own: a network namespace, and
// a mount namespace with an empty /run, /var/lib and /etc/cni. With CNI_BIN
// set the stories run against the plugins in that directory, such as the
// reference's; what cannot hold there is behind the condition [ours].
package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// suite is what the stories share.
type suite struct {
	bin       string // directory of the plugins
	reference string // directory of the reference's, with cnitool
	netcleat  string // the operator's command; "" where the plugins are not ours
	repo      string
}

func TestStories(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: run make test as root")
	}
	s := newSuite(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       os.Getenv("UPDATE") != "",
		RequireExplicitExec: true,
		Setup:               s.setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"doc":  s.doc,
			"host": host, "start": start, "container": container, "in": in, "uplink": uplink,
			"network": s.network, "cnitool": s.runCnitool, "cni": s.cni, "execs": s.execs, "snapshot": snapshot, "left": left, "examples": s.examples,
		},
		Condition: func(c string) (bool, error) {
			switch c {
			case "ours":
				return s.netcleat != "", nil
			case "ipvlan", "vlan":
				return hasKind(t, c), nil
			}
			return false, fmt.Errorf("unknown condition %q", c)
		},
	})
}

// hasKind reports whether the kernel has such links. Where the environment's
// REQUIRE lists the kind it must.
func hasKind(t *testing.T, kind string) bool {
	t.Helper()
	args := map[string]string{"ipvlan": "", "vlan": "id 5"}[kind]
	script := "ip link add a0 type veth peer name a1 && ip link add link a0 name b0 type " + kind + " " + args
	out, err := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-c", script).CombinedOutput()
	if err != nil && slices.Contains(strings.Split(os.Getenv("REQUIRE"), ","), kind) {
		t.Fatalf("this kernel must have %s: %s", kind, out)
	}
	return err == nil
}

// newSuite builds the plugins and installs them, as a user does.
func newSuite(t *testing.T) *suite {
	t.Helper()
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	watch(t, repo)
	run(t, filepath.Join(repo, "scripts/reference"))
	s := &suite{repo: repo, reference: filepath.Join(repo, "build/reference/bin"), bin: os.Getenv("CNI_BIN")}
	if s.bin != "" {
		return s
	}
	built := t.TempDir()
	run(t, "go", "build", "-o", built, "../../cmd/cni", "../../cmd/netcleat")
	s.bin, s.netcleat = filepath.Join(t.TempDir(), "bin"), filepath.Join(built, "netcleat")
	run(t, s.netcleat, "install", s.bin)
	return s
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}

// watch looks at every source file, so that go test does not answer from its
// cache when what the stories run has changed.
func watch(t *testing.T, repo string) {
	t.Helper()
	for _, room := range []string{"cmd", "pkg", "plugins", "conflist-examples", "docs"} {
		err := filepath.WalkDir(filepath.Join(repo, room), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

// hostScript makes a story's host and waits until its standard input ends.
const hostScript = `
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mkdir -p /run/netns /var/lib/cni
[ ! -d /etc/cni ] || mount -t tmpfs tmpfs /etc/cni
ip link set lo up
echo ready
cat
`

// setup starts the story's host, a process that holds its namespaces.
func (s *suite) setup(e *testscript.Env) error {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", hostScript)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	e.Defer(func() {
		endNames(cmd.Process.Pid)
		_ = stdin.Close()
		cancel()
		_ = cmd.Wait()
	})
	if n, err := stdout.Read(make([]byte, len("ready\n"))); err != nil || n == 0 {
		return fmt.Errorf("host: %w", err)
	}
	e.Setenv("HOST", fmt.Sprint(cmd.Process.Pid))
	e.Setenv("NETCONFPATH", filepath.Join(e.WorkDir, "net.d"))
	e.Setenv("CNI_PATH", s.bin)
	e.Setenv("REFERENCE", s.reference)
	e.Setenv("NETCLEAT", s.netcleat)
	// The operator's command is on PATH, where dnsname finds its daemon.
	e.Setenv("PATH", filepath.Dir(s.netcleat)+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	return os.MkdirAll(e.Getenv("NETCONFPATH"), 0o755)
}

// endNames ends the dns daemon of the host that a process holds, if dnsname has started
// one: it stays for a while after the last container.
func endNames(host int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/run/netcleat/.dns.lock", host))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || perr != nil {
		return
	}
	mine, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", host))
	its, ierr := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if p, perr := os.FindProcess(pid); err == nil && ierr == nil && perr == nil && mine == its {
		_ = p.Kill()
	}
}
