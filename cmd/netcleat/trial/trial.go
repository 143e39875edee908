// Package trial tries a network: it attaches two sandboxes that nothing else uses, sends
// packets between them and beyond, and detaches them.
//
// The sandboxes are network namespaces that this process holds by a descriptor and nothing
// else does: they end with it, however it ends. What it then has not detached is proven to be
// dead, and netcleat gc removes it.
package trial

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/cmd/netcleat/connect"
	"github.com/netcleat/netcleat/cmd/netcleat/create"
	"github.com/netcleat/netcleat/cmd/netcleat/explain"
	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/netns"
)

// Options say what to try.
type Options struct {
	connect.Options
	Binary  string       // the plugin binary of this suite; "" for the installed plugins
	Network string       // its name
	Targets []netip.Addr // outside the host; none is the next hop of the host's default routes
	Tell    func(Check)  // is told of each check
}

// Outcome is how a check ended.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Check is one thing that was tried.
type Check struct {
	Outcome Outcome `json:"outcome"`
	What    string  `json:"what"`
	Why     string  `json:"why,omitempty"` // it failed or was skipped
}

// String is the check's line.
func (c Check) String() string {
	if c.Why == "" {
		return fmt.Sprintf("%-8s %s", c.Outcome, c.What)
	}
	return fmt.Sprintf("%-8s %s: %s", c.Outcome, c.What, c.Why)
}

// Cause is what explain finds of the sandboxes while something fails.
type Cause struct {
	What string `json:"what"`
	Fix  string `json:"fix"`
}

// Report is what was found.
type Report struct {
	Network string  `json:"network"`
	Checks  []Check `json:"checks"`
	Causes  []Cause `json:"causes,omitempty"`
}

// Failures is how many of the checks failed.
func (r Report) Failures() (n int) {
	for _, c := range r.Checks {
		if c.Outcome == Failed {
			n++
		}
	}
	return n
}

const (
	ifName = "eth0"
	// patience bounds one plugin call for the whole list.
	patience = time.Minute
)

// box is one of the sandboxes.
type box struct {
	ns   *netns.NS
	rt   *libcni.RuntimeConf
	name string // its ID, and what the network is to answer to
	ips  []address
	dns  dnsConf
}

// address is one of a box, with its gateway where it has one.
type address struct {
	netip.Prefix
	gateway netip.Addr
}

// trial is one run.
type trial struct {
	Options
	report Report
	list   *libcni.NetworkConfigList
	conf   conf
	boxes  []*box
	port   int // of the host, which leads to the first box; 0 is none
}

// Run tries the network. Its error says that it could not be tried; what does not work is in
// the report.
func Run(ctx context.Context, o Options) (_ Report, err error) {
	t := &trial{Options: o, report: Report{Network: o.Network}}
	n, err := o.Find(ctx, o.Network)
	if err != nil {
		return t.report, err
	}
	if t.list, err = libcni.NetworkConfFromFile(n.File); err != nil {
		return t.report, fmt.Errorf("network %s: %w", o.Network, err)
	}
	if err := o.Installed(t.list); err != nil {
		return t.report, err
	}
	t.conf = confOf(t.list)
	dir, err := os.MkdirTemp("", "netcleat-test-") // of libcni, whose own memory is for containers
	if err != nil {
		return t.report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t.Cache = filepath.Join(dir, "results")
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.open(); err != nil {
		return t.report, err
	}
	if t.attach(ctx) {
		t.check(ctx)
	}
	if t.report.Failures() > 0 && ctx.Err() == nil {
		err = t.explain(ctx)
	}
	t.detach(ctx)
	return t.report, errors.Join(err, ctx.Err())
}

func (t *trial) add(c Check) {
	t.report.Checks = append(t.report.Checks, c)
	t.Tell(c)
}

// judge adds a check that failed with err, or did not.
func (t *trial) judge(err error, format string, args ...any) {
	c := Check{Outcome: OK, What: fmt.Sprintf(format, args...)}
	if err != nil {
		c.Outcome, c.Why = Failed, err.Error()
	}
	t.add(c)
}

func (t *trial) skip(what, why string) { t.add(Check{Skipped, what, why}) }

// open makes the sandboxes.
func (t *trial) open() error {
	// Not the process's number: those of two PID namespaces may agree.
	name := "netcleat-test-" + strings.ToLower(rand.Text()[:10])
	for _, letter := range []string{"a", "b"} {
		ns, err := newNamespace()
		if err != nil {
			return err
		}
		b := &box{ns: ns, name: name + letter}
		b.rt = &libcni.RuntimeConf{
			ContainerID: b.name, NetNS: ns.Path, IfName: ifName, CapabilityArgs: map[string]any{},
			Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", b.name}}, // by which a network with names knows it
		}
		t.boxes = append(t.boxes, b)
	}
	if !t.conf.publishes {
		return nil
	}
	port, err := freePort()
	t.port = port
	t.boxes[0].rt.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": port, "containerPort": served, "protocol": "tcp"}}
	return err
}

// close lets the sandboxes go.
func (t *trial) close() error {
	var errs []error
	for _, b := range t.boxes {
		errs = append(errs, b.ns.Close())
	}
	return errors.Join(errs...)
}

// attach attaches the sandboxes, and reports whether both are.
func (t *trial) attach(ctx context.Context) bool {
	err := t.locked(ctx, func() error {
		for _, b := range t.boxes {
			if err := b.attach(ctx, t.Library(), t.list); err != nil {
				return err
			}
		}
		return nil
	})
	what := "two sandboxes attached"
	for i, b := range t.boxes {
		sep := map[bool]string{true: ": ", false: " and "}[i == 0]
		if len(b.ips) > 0 {
			what += sep + b.addresses()
		}
	}
	t.judge(err, "%s", what)
	return err == nil
}

// locked keeps the network from being removed meanwhile.
func (t *trial) locked(ctx context.Context, fn func() error) (err error) {
	unlock, err := create.Lock(ctx, t.NetConf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return fn()
}

func (b *box) attach(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error {
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	res, err := cni.AddNetworkList(soon, list, b.rt)
	if err != nil {
		return err
	}
	r, err := current.NewResultFromResult(res)
	if err != nil {
		return err
	}
	_, at := link.Find(r, ifName, b.rt.NetNS)
	for _, ip := range link.Owned(r.IPs, at) {
		p, err := link.PrefixOf(ip.Address)
		if err != nil {
			return err
		}
		b.ips = append(b.ips, address{p, link.GatewayOf(ip.Gateway)})
	}
	b.dns = dnsConf{servers: r.DNS.Nameservers, domain: r.DNS.Domain}
	return nil
}

func (b *box) addresses() string {
	var words []string
	for _, ip := range b.ips {
		words = append(words, ip.String())
	}
	return strings.Join(words, ", ")
}

// detach detaches what was attached, and what an ADD that failed or was interrupted may have
// left.
func (t *trial) detach(ctx context.Context) {
	var errs []error
	for _, b := range slices.Backward(t.boxes) {
		errs = append(errs, t.del(ctx, b))
	}
	t.judge(errors.Join(errs...), "both detached")
}

// del detaches a sandbox. Who interrupts a command at a terminal interrupts the plugins, too:
// then it is tried again.
func (t *trial) del(ctx context.Context, b *box) error {
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := t.Library().DelNetworkList(soon, t.list, b.rt)
	if err != nil && ctx.Err() != nil {
		err = t.Library().DelNetworkList(soon, t.list, b.rt)
	}
	return err
}

// explain adds the root cause of each sandbox, once.
func (t *trial) explain(ctx context.Context) error {
	var errs []error
	for _, b := range t.boxes {
		reports, err := explain.Container(ctx, explain.Options{Places: t.Places, Path: t.Path, Binary: t.Binary}, b.rt.ContainerID)
		if len(b.ips) > 0 { // else there may be nothing to explain
			errs = append(errs, err)
		}
		for _, r := range reports {
			if r.First == nil {
				continue
			}
			c := Cause{What: r.First.String(), Fix: fixOf(r.First.Mend)}
			if !slices.Contains(t.report.Causes, c) {
				t.report.Causes = append(t.report.Causes, c)
			}
		}
	}
	return errors.Join(errs...)
}

func fixOf(m *finding.Mend) string {
	if m == nil {
		return ""
	}
	return m.String()
}
