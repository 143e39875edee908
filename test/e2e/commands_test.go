package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// inHost runs a program on the story's host.
func inHost(ts *testscript.TestScript, stdin []byte, env []string, argv ...string) ([]byte, error) {
	cmd := onHost(context.Background(), ts, env, argv...)
	cmd.Stdin = bytes.NewReader(stdin)
	return cmd.CombinedOutput()
}

// onHost is a program on the story's host, not yet started. It has the process
// that is started for it, since nsenter becomes the program.
func onHost(ctx context.Context, ts *testscript.TestScript, env []string, argv ...string) *exec.Cmd {
	enter := []string{"-t", ts.Getenv("HOST"), "-n", "-m", "--wd=" + ts.Getenv("WORK"), "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, argv...)...)
	cmd.Env = append([]string{"PATH=" + ts.Getenv("PATH"), "CNI_PATH=" + ts.Getenv("CNI_PATH")}, env...)
	return cmd
}

// judge writes the output where stdout finds it, and fails the story where the
// program did not end as it had to.
func judge(ts *testscript.TestScript, neg bool, out []byte, err error) {
	_, _ = ts.Stdout().Write(out)
	switch {
	case err != nil && !neg:
		ts.Fatalf("%v\n%s", err, out)
	case err == nil && neg:
		ts.Fatalf("succeeded, and must not\n%s", out)
	}
}

func usage(ts *testscript.TestScript, ok bool, form string) {
	if !ok {
		ts.Fatalf("usage: %s", form)
	}
}

// host runs a program on the host.
func host(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 0, "host program…")
	out, err := inHost(ts, nil, []string{"REFERENCE=" + ts.Getenv("REFERENCE")}, args...)
	judge(ts, neg, out, err)
}

// start starts a program on the host that runs until the story ends: a daemon.
func start(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 0 && !neg, "start program…")
	ctx, end := context.WithCancel(context.Background())
	cmd := onHost(ctx, ts, nil, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second // then it is killed
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	ts.Check(cmd.Start())
	ts.Defer(func() {
		end()
		err := cmd.Wait()
		ts.Logf("%s: %v\n%s", strings.Join(args, " "), err, &out)
	})
}

// container makes containers, which are network namespaces.
func container(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 0 && !neg, "container name…")
	for _, name := range args {
		out, err := inHost(ts, nil, nil, "ip", "netns", "add", name)
		judge(ts, false, out, err)
	}
}

// in runs a program in a container.
func in(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 1, "in container program…")
	out, err := inHost(ts, nil, nil, append([]string{"ip", "netns", "exec"}, args...)...)
	judge(ts, neg, out, err)
}

// uplink gives the host a neighbour called outside, 192.0.2.2 and 2001:db8::2,
// that knows no way to the containers: it answers the host alone.
func uplink(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 0 && !neg, "uplink")
	out, err := inHost(ts, nil, nil, "sh", "-ec", `
		ip netns add outside
		ip link add up0 type veth peer name up0 netns outside
		ip addr add 192.0.2.1/24 dev up0
		ip addr add 2001:db8::1/64 dev up0 nodad
		ip link set up0 up
		ip -n outside addr add 192.0.2.2/24 dev up0
		ip -n outside addr add 2001:db8::2/64 dev up0 nodad
		ip -n outside link set up0 up`)
	judge(ts, neg, out, err)
}

// network configures a network: one of conflist-examples.
func (s *suite) network(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1 && !neg, "network file.conflist")
	b, err := os.ReadFile(filepath.Join(s.repo, "conflist-examples", args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(ts.Getenv("NETCONFPATH"), args[0]), b, 0o644))
}

// runCnitool runs cnitool, the runtime of the specification's authors.
func (s *suite) runCnitool(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 3, "cnitool verb network container")
	out, err := inHost(ts, nil, []string{"NETCONFPATH=" + ts.Getenv("NETCONFPATH")}, filepath.Join(s.reference, "cnitool"), args[0], args[1], "/run/netns/"+args[2])
	judge(ts, neg, stable(out), err)
}

// cni calls one plugin with a configuration file, without a runtime. The
// container may be "" for a CNI_NETNS that is empty.
func (s *suite) cni(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) >= 4, "cni VERB plugin conf.json container [VARIABLE=value…]")
	env := []string{"CNI_COMMAND=" + args[0], "CNI_CONTAINERID=" + args[3], "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/" + args[3]}
	out, err := inHost(ts, []byte(ts.ReadFile(args[2])), append(env, args[4:]...), filepath.Join(s.bin, args[1]))
	judge(ts, neg, append(stable(out), '\n'), err)
}

// execs calls a plugin as cni does and counts the programs that are started for
// it, its own included.
func (s *suite) execs(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 5 && !neg, "execs count VERB plugin conf.json container")
	trace := ts.MkAbs("execs.trace")
	env := []string{"CNI_COMMAND=" + args[1], "CNI_CONTAINERID=" + args[4], "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/" + args[4]}
	out, err := inHost(ts, []byte(ts.ReadFile(args[3])), env, "strace", "-f", "-qq", "-e", "trace=execve", "-o", trace, filepath.Join(s.bin, args[2]))
	judge(ts, false, out, err)
	started := ts.ReadFile(trace)
	if got := strings.Count(started, "execve("); fmt.Sprint(got) != args[0] {
		ts.Fatalf("%d programs were started, want %s\n%s", got, args[0], started)
	}
}

// stable takes out of a result what differs from run to run.
func stable(b []byte) []byte {
	b = macAddress.ReplaceAll(b, []byte("MAC"))
	return hostVeth.ReplaceAll(b, []byte("VETH"))
}

var (
	macAddress = regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`)
	hostVeth   = regexp.MustCompile(`\bveth[0-9a-f]{8}\b`)
)

// snapshot writes down what the host has, for left to compare.
func snapshot(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 0 && !neg, "snapshot")
	ts.Setenv("BEFORE", state(ts))
}

// left checks that the host has what it had at the snapshot, and beside it only
// the names given: bridges, which stay.
func left(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg, "left bridge…")
	after := state(ts)
	for _, bridge := range args {
		after = strings.ReplaceAll(after, "link "+bridge+"\n", "")
	}
	if before := ts.Getenv("BEFORE"); after != before {
		ts.Fatalf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}

// state lists links, rules, leases and records. What host-local keeps of a
// network does not count: its index, its lock and the last address.
func state(ts *testscript.TestScript) string {
	out, err := inHost(ts, nil, nil, "sh", "-ec", `
		ip -o link | awk -F '[ :@]+' '{print "link " $2}'
		nft list ruleset
		find /run/netcleat -type f ! -name '.leases-*' ! -name '.dns.*' 2>/dev/null || true
		find /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip.*'`)
	judge(ts, false, out, err)
	return string(out)
}
