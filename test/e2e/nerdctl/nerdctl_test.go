// Package nerdctl has the stories of containers that nerdctl runs, on the networks
// that it makes.
package nerdctl

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

func TestMain(m *testing.M) { os.Exit(tried.Main(m, "nerdctl")) }

const nerdctlConf = `
address = "%[1]s/containerd.sock"
snapshotter = "native"
cgroup_manager = "cgroupfs"
`

// nerdctl is the runtime on a host of its own.
type nerdctl struct {
	*bed.Host
	*bed.Containerd
	t       testing.TB
	program string
	cgroup  string
}

// bridge is nerdctl's own network's, and shared by all containers that choose none.
const bridge = "nerdctl0"

func newNerdctl(t testing.TB) nerdctl {
	t.Helper()
	h := bed.New(t, "containerd", "ctr", "runc", "busybox", "nft", "iptables")
	h.OwnEtc()
	h.Write("/etc/nerdctl/nerdctl.toml", fmt.Sprintf(nerdctlConf, h.Dir))
	n := nerdctl{h, h.Containerd(), t, bed.Client(t, "nerdctl"), h.Cgroup()}
	n.do("load", "--input="+h.Image(bed.ImageTag))
	tried.Versions(bed.ModuleVersion(t, n.program) + ", " + h.Version("containerd", "--version") + ", " + h.Version("runc", "--version"))
	return n
}

// try runs a command of nerdctl's.
func (n nerdctl) try(args ...string) (string, error) {
	return n.Try(append([]string{n.program}, args...)...)
}

// do is try that must succeed.
func (n nerdctl) do(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.t.Fatalf("nerdctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// run are the words that start a container which answers on the ports 80 to 82.
func (n nerdctl) run(name string, flags ...string) []string {
	args := append([]string{"run", "--detach", "--cgroup-parent=" + n.cgroup, "--name=" + name, "--hostname=" + name}, flags...)
	return append(args, bed.ImageTag, "/bin/peer", "serve", "80", "81", "82")
}

// serve runs such a container.
func (n nerdctl) serve(name string, flags ...string) {
	n.t.Helper()
	n.do(n.run(name, flags...)...)
}

// remove stops and removes containers.
func (n nerdctl) remove(names ...string) {
	n.t.Helper()
	n.do(append([]string{"rm", "--force"}, names...)...)
}

// in runs a program in a container.
func (n nerdctl) in(container string, argv ...string) (string, error) {
	out, err := n.try(append([]string{"exec", container}, argv...)...)
	return strings.TrimSpace(out), err
}

// asks is what a server answers to one container about another.
func (n nerdctl) asks(container, addr, want string) {
	n.t.Helper()
	if out, err := n.in(container, "/bin/peer", "ask", "tcp", addr); err != nil || out != want {
		n.t.Errorf("%s asks %s: want %q, got %q, %v", container, addr, want, out, err)
	}
}

// addr returns the container's address on one of its interfaces.
func (n nerdctl) addr(container, ifName, family string) string {
	n.t.Helper()
	out, err := n.in(container, "/bin/ip", "-o", family, "addr", "show", "dev", ifName, "scope", "global")
	words := strings.Fields(out)
	if err != nil || len(words) < 4 {
		n.t.Fatalf("address of %s %s: %v %s", container, ifName, err, out)
	}
	addr, _, _ := strings.Cut(words[3], "/")
	return addr
}

// pid is the container's first process.
func (n nerdctl) pid(container string) string {
	n.t.Helper()
	return n.do("inspect", "--format={{.State.Pid}}", container)
}

// port is the host's port that nerdctl has chosen for the container's 80.
func (n nerdctl) port(container string) string {
	n.t.Helper()
	_, port, ok := strings.Cut(n.do("port", container, "80"), ":")
	if !ok {
		n.t.Fatalf("port of %s: %s", container, port)
	}
	return port
}

// same compares two values.
func (n nerdctl) same(what, want, got string) {
	n.t.Helper()
	if want != got {
		n.t.Errorf("%s: want %q, got %q", what, want, got)
	}
}

// left fails the story where the host has what it had not at its beginning. The
// plugins do not touch nerdctl's own directory.
func (n nerdctl) left(bridges ...string) {
	n.t.Helper()
	n.Sh("rm -rf /var/lib/nerdctl /var/lib/cni/results")
	n.Left(bridges...)
}

// status is what nerdctl says of all its containers.
func (n nerdctl) status() map[string]string {
	n.t.Helper()
	all := map[string]string{}
	for _, line := range strings.Split(n.do("ps", "--all", "--format={{json .}}"), "\n") {
		var c struct{ Names, Status string }
		if line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			n.t.Fatalf("%v: %s", err, line)
		}
		all[c.Names] = c.Status
	}
	return all
}

// write writes a file into the story's directory.
func (n nerdctl) write(name, content string) (path string) {
	n.t.Helper()
	path = filepath.Join(n.Dir, name)
	n.Write(path, content)
	return path
}
