// Package dhcp is the IPAM plugin that gets its addresses from a DHCP server.
// It asks a daemon, which holds the leases: `netcleat dhcp daemon`, or the
// reference's.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Plugin is the plugin.
var Plugin = plugin.Spec[Config]{
	Name:   "dhcp",
	Role:   plugin.IPAM,
	Parse:  parse,
	Add:    add,
	Del:    del,
	Check:  check,
	Status: status,
	GC:     gc,
}

func parse(c *plugin.Call) (Config, error) {
	n, err := ParseNetwork(c.Stdin)
	if n.IPAM == nil {
		n.IPAM = &Config{}
		if err == nil {
			err = cnierr.Config("dhcp: the configuration has no ipam section")
		}
	}
	if err == nil {
		_, _, err = n.IPAM.Options(c.Args)
	}
	return *n.IPAM, err
}

// request is the call as the daemon is told of it. The daemon has another
// working directory, so the sandbox's path is made absolute.
func request(c *plugin.Call) (CmdArgs, error) {
	a := CmdArgs{ContainerID: c.ContainerID, IfName: c.IfName, Args: c.Args, Path: c.Path, StdinData: c.Stdin}
	if c.Netns == "" {
		return a, nil
	}
	abs, err := filepath.Abs(c.Netns)
	if err != nil {
		return a, fmt.Errorf("sandbox %q: %w", c.Netns, err)
	}
	a.Netns = abs
	return a, nil
}

func add(ctx context.Context, c *plugin.Call, conf Config) (*current.Result, error) {
	a, err := request(c)
	if err != nil {
		return nil, err
	}
	res, err := call(ctx, conf.Socket(), methodAllocate, a)
	return res, coded(err)
}

// noAnswer is what both daemons say when no server answered in time.
const noAnswer = "no more tries"

// coded says with a code what a later call may succeed in.
func coded(err error) error {
	said := serverError("")
	if errors.As(err, &said) && !strings.Contains(string(said), noAnswer) {
		return err
	}
	return cnierr.With(cnierr.TryAgain, err)
}

// del gives the lease back. It succeeds in any case: where the daemon does not
// answer, it finds a mark when it returns.
func del(ctx context.Context, c *plugin.Call, conf Config) error {
	a, err := request(c)
	if err != nil {
		return err
	}
	release(ctx, c, conf, a)
	return nil
}

func release(ctx context.Context, c *plugin.Call, conf Config, a CmdArgs) {
	_, err := call(ctx, conf.Socket(), methodRelease, a)
	if err == nil {
		return
	}
	key := Key{Network: c.Conf.Name, ContainerID: a.ContainerID, IfName: a.IfName}
	marked, merr := LeasesOf(conf.Socket()).Free(key)
	switch {
	case merr != nil:
		c.Note("dhcp: lease of %s not released: %v", a.ContainerID, errors.Join(err, merr))
	case marked && errors.Is(err, errDial):
		// The daemon may have started, and read the lease, between the two.
		if _, again := call(ctx, conf.Socket(), methodRelease, a); again != nil {
			c.Note("dhcp: %v (it will release the lease of %s when it returns)", err, a.ContainerID)
		}
	default:
		c.Note("dhcp: %v", err)
	}
}

// check asks whether the lease lives, without getting another. The reference's
// daemon knows no such question and is asked to allocate, as its own plugin
// does.
func check(ctx context.Context, c *plugin.Call, conf Config) error {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	a, err := request(c)
	if err != nil {
		return err
	}
	res, err := call(ctx, conf.Socket(), methodCheck, a)
	said := serverError("")
	if errors.As(err, &said) && strings.Contains(string(said), "can't find method") {
		res, err = call(ctx, conf.Socket(), methodAllocate, a)
	}
	if errors.As(err, &said) {
		return cnierr.Check("%w", err)
	}
	if err != nil {
		return cnierr.With(cnierr.TryAgain, err)
	}
	return compare(c, res)
}

// compare finds the lease's address among those of the attachment.
func compare(c *plugin.Call, lease *current.Result) error {
	prev, err := c.PrevResult()
	if err != nil || prev == nil || len(lease.IPs) == 0 {
		return err
	}
	held := make([]net.IP, 0, len(prev.IPs))
	for _, ip := range prev.IPs {
		if ip.Address.IP.Equal(lease.IPs[0].Address.IP) {
			return nil
		}
		held = append(held, ip.Address.IP)
	}
	return cnierr.Check("dhcp: the lease is for %s, the attachment has %v", lease.IPs[0].Address.IP, held)
}

// status asks whether a daemon listens. It only connects: kubelet asks every
// few seconds.
func status(_ context.Context, _ *plugin.Call, conf Config) error {
	conn, err := dial(conf.Socket())
	if err != nil {
		return cnierr.With(cnierr.NotAvailable, err)
	}
	return conn.Close()
}

// gc releases the network's leases that belong to no living attachment. It knows
// those of our daemon, which has them on disk.
func gc(ctx context.Context, c *plugin.Call, conf Config) error {
	all, err := LeasesOf(conf.Socket()).holders(c.Conf.Name)
	living := map[plugin.Attachment]bool{}
	valid, lerr := c.ValidAttachments() // after the leases: whoever has one has a record by now
	if lerr != nil {
		return lerr
	}
	for _, a := range valid {
		living[a] = true
	}
	for _, h := range all {
		if !living[plugin.Attachment{ContainerID: h.ContainerID, IfName: h.IfName}] {
			release(ctx, c, conf, CmdArgs{ContainerID: h.ContainerID, IfName: h.IfName, Netns: h.Netns, StdinData: c.Stdin})
		}
	}
	return err
}
