package nltest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Call is one call of a plugin, as a runtime makes it. Its zero fields are those
// of container "c1", interface "eth0", in the bed's sandbox.
type Call struct {
	Table       plugin.Table
	Plugin      string
	Conf        string // the configuration; DATADIR in it is replaced by the bed's Dir
	ContainerID string
	IfName      string
	Netns       string // NoNetns for an empty CNI_NETNS
	Args        string
	Override    bool
	Gate        gate.Gate
	Waits       func() // what happens when the call first waits (Meanwhile); nil is nothing
}

// NoNetns stands for an empty CNI_NETNS.
const NoNetns = "-"

// Answer is what a call wrote and how it exited.
type Answer struct {
	Exit           int
	Stdout, Stderr string
}

// Error returns the error object of a failed call: its code and message.
func (a Answer) Error() (code uint, msg string) {
	var o struct {
		Code         uint
		Msg, Details string
	}
	if json.Unmarshal([]byte(a.Stdout), &o) != nil {
		return 0, a.Stdout
	}
	return o.Code, o.Msg
}

// Do runs the plugin in this process with the verb.
func (b *Bed) Do(verb string, c Call) Answer {
	b.t.Helper()
	env := map[string]string{
		"CNI_COMMAND": verb, "CNI_CONTAINERID": or(c.ContainerID, "c1"), "CNI_IFNAME": or(c.IfName, "eth0"),
		"CNI_NETNS": or(c.Netns, b.Path), "CNI_ARGS": c.Args, "CNI_PATH": b.cniPath(c.Table), "CNI_DEBUG": os.Getenv("CNI_DEBUG"),
	}
	if c.Netns == NoNetns {
		env["CNI_NETNS"] = ""
	}
	if c.Override {
		env["CNI_NETNS_OVERRIDE"] = "1"
	}
	var out, errs bytes.Buffer
	p := plugin.Process{
		Name: c.Plugin, Getenv: func(k string) string { return env[k] },
		Stdin:  strings.NewReader(strings.ReplaceAll(c.Conf, "DATADIR", b.Dir)),
		Stdout: &out, Stderr: &errs, Journal: b.Journal(), Gate: c.Gate,
	}
	ctx := context.Background()
	if c.Waits != nil {
		ctx = Meanwhile(ctx, c.Waits)
	}
	exit := p.Run(ctx, c.Table)
	if os.Getenv("CNI_DEBUG") != "" {
		b.t.Logf("%s %s:\n%s", c.Plugin, verb, errs.String())
	}
	return Answer{exit, out.String(), errs.String()}
}

// Lease writes host-local's lease of an address of the network net, and returns the
// dataDir that it is in.
func (b *Bed) Lease(addr, containerID string) (dataDir string) {
	b.t.Helper()
	dataDir = filepath.Join(b.Dir, "leases")
	err := os.MkdirAll(filepath.Join(dataDir, "net"), 0o700)
	if err = errors.Join(err, os.WriteFile(filepath.Join(dataDir, "net", addr), []byte(containerID+"\r\neth0"), 0o600)); err != nil {
		b.t.Fatal(err)
	}
	return dataDir
}

// Journal is the bed's own.
func (b *Bed) Journal() journal.Dir { return journal.Dir(filepath.Join(b.Dir, "journal")) }

// cniPath makes a directory where every plugin of the table is this process's
// own file, so that delegates run in the process as they do in the product.
func (b *Bed) cniPath(t plugin.Table) string {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "bin")
	must(b.t, os.MkdirAll(dir, 0o755))
	self, err := os.Executable()
	must(b.t, err)
	for name := range t {
		must(b.t, os.Symlink(self, filepath.Join(dir, name)))
	}
	return dir
}

// Must runs the verb and fails the test unless it succeeds; it returns the
// result of an ADD.
func (b *Bed) Must(verb string, c Call) *current.Result {
	b.t.Helper()
	a := b.Do(verb, c)
	if a.Exit != 0 {
		b.t.Fatalf("%s %s: %s\n%s", c.Plugin, verb, a.Stdout, a.Stderr)
	}
	if verb != plugin.Add {
		return nil
	}
	res, err := create.CreateFromBytes([]byte(a.Stdout))
	must(b.t, err)
	r, err := current.NewResultFromResult(res)
	must(b.t, err)
	return r
}

// Fails runs the verb, which must fail with the code, and returns the message and
// the details as a runtime shows them.
func (b *Bed) Fails(verb string, c Call, code uint) string {
	b.t.Helper()
	a := b.Do(verb, c)
	var e types.Error
	if err := json.Unmarshal([]byte(a.Stdout), &e); err != nil || a.Exit == 0 || e.Code != code {
		b.t.Fatalf("%s %s: exit %d, code %d, want code %d\n%s\n%s", c.Plugin, verb, a.Exit, e.Code, code, a.Stdout, a.Stderr)
	}
	return e.Error()
}

// NoTrace refuses each change of an ADD in turn and fails the test where an ADD
// that failed has left anything behind: in host or sandbox, in the journal or
// among the leases. prepare sets a fresh bed up.
func NoTrace(t *testing.T, c Call, prepare func(*Bed)) {
	t.Helper()
	for at, hit := 1, true; hit && !t.Failed(); at++ {
		hit = false
		// A subtest has a goroutine of its own, and so a thread that dies with it.
		t.Run(fmt.Sprintf("refuse change %d", at), func(t *testing.T) { hit = noTraceAt(t, c, prepare, at) })
	}
}

func noTraceAt(t *testing.T, c Call, prepare func(*Bed), at int) (hit bool) {
	t.Helper()
	bed := New(t)
	prepare(bed)
	before := bed.Snapshot()
	faults := &Faults{At: at}
	c.Gate = faults.Gate
	a := bed.Do(plugin.Add, c)
	switch {
	case !faults.Hit() && a.Exit != 0:
		t.Errorf("no fault left to inject, yet: %s", a.Stdout)
	case !faults.Hit() && at == 1:
		t.Error("no change to refuse: the faults do not reach the kernel")
	case faults.Hit() && a.Exit == 0:
		t.Errorf("change %d (%s) was refused and nobody noticed", at, faults.What)
	case faults.Hit():
		if diff := cmp.Diff(before, bed.Snapshot()); diff != "" {
			t.Errorf("change %d (%s): %s\nleft behind (-before +after):\n%s", at, faults.What, a.Stdout, diff)
		}
	}
	return faults.Hit()
}

// StubIPAM is an IPAM plugin called "stub" that hands out the given addresses
// and keeps count.
type StubIPAM struct {
	Addresses []string // "10.1.2.3/24 10.1.2.1": an address, and optionally its gateway
	Routes    []string // "0.0.0.0/0 10.1.2.1": a destination, and optionally its gateway
	Raw       string   // more of the result as JSON: `"routes":[…]`
	Err       error    // what ADD answers where set
	Asked     func()   // called at each ADD where set
	Held      int
}

// Plugin returns the stub for a Table.
func (s *StubIPAM) Plugin() plugin.Plugin {
	return plugin.Spec[struct{}]{
		Name:  "stub",
		Parse: func(*plugin.Call) (struct{}, error) { return struct{}{}, nil },
		Add: func(context.Context, *plugin.Call, struct{}) (*current.Result, error) {
			if s.Asked != nil {
				s.Asked()
			}
			if s.Err != nil {
				return nil, s.Err
			}
			s.Held++
			return s.result()
		},
		Del: func(context.Context, *plugin.Call, struct{}) error { s.Held = 0; return nil },
	}
}

func (s *StubIPAM) result() (*current.Result, error) {
	res := &current.Result{}
	if err := json.Unmarshal([]byte("{"+s.Raw+"}"), res); err != nil {
		return nil, err
	}
	res.CNIVersion = "1.1.0"
	for _, a := range s.Addresses {
		addr, gw, _ := strings.Cut(a, " ")
		ip, n, err := net.ParseCIDR(addr)
		if err != nil {
			return nil, err
		}
		n.IP = ip
		res.IPs = append(res.IPs, &current.IPConfig{Address: *n, Gateway: net.ParseIP(gw)})
	}
	return res, s.routes(res)
}

func (s *StubIPAM) routes(res *current.Result) error {
	for _, r := range s.Routes {
		dst, gw, _ := strings.Cut(r, " ")
		_, n, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		res.Routes = append(res.Routes, &types.Route{Dst: *n, GW: net.ParseIP(gw)})
	}
	return nil
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
