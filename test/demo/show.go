package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// The demo's world beyond the host.
const (
	world        = "world"
	worldAddress = "192.0.2.2"
	hostAddress  = "192.0.2.1/24"
)

// names are the containers'.
var names = []string{"red", "blue"}

// demo is a run on the host of its own.
type demo struct {
	dir      string // for what it needs: plugins, cache
	file     string
	cni      *libcni.CNIConfig
	network  *libcni.NetworkConfigList
	attached map[string]netip.Addr // by container
}

// show is the demo's story.
func show(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "netcleat-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	say("On a host of its own, a network namespace: nothing of this machine's network is touched.")
	if err := furnish(ctx); err != nil {
		return err
	}
	d, err := newDemo(ctx, dir, o)
	if err != nil {
		return err
	}
	say("\nAttach two containers to %s, as a runtime does:", d.file)
	for _, name := range names {
		if err := d.attach(ctx, name); err != nil {
			return err
		}
	}
	if err := d.pings(); err != nil {
		return err
	}
	say("\nWhat now exists (# is the interface index):\n")
	picture, err := look(ctx, names)
	if err != nil {
		return err
	}
	say("%s", picture)
	say("Detach them:")
	for _, name := range names {
		if err := d.detach(ctx, name); err != nil {
			return err
		}
	}
	return d.nothingLeft(ctx)
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// newDemo installs the plugins and reads the network.
func newDemo(ctx context.Context, dir string, o options) (*demo, error) {
	d := &demo{dir: dir, file: o.conflist, attached: map[string]netip.Addr{}}
	plugins := o.plugins
	if plugins == "" {
		plugins = filepath.Join(dir, "bin")
		say("\n$ %s install %s", o.netcleat, plugins)
		out, err := output(ctx, o.netcleat, "install", plugins)
		if err != nil {
			return nil, err
		}
		say("%d plugins, one file", strings.Count(string(out), "\n"))
	}
	conf, err := os.ReadFile(o.conflist)
	if err != nil {
		return nil, err
	}
	if d.network, err = libcni.NetworkConfFromBytes(conf); err != nil {
		return nil, fmt.Errorf("%s: %w", o.conflist, err)
	}
	d.cni = libcni.NewCNIConfigWithCacheDir([]string{plugins}, filepath.Join(dir, "cache"), nil)
	return d, nil
}

func runtimeConf(name string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: name, NetNS: pathOf(name), IfName: "eth0"}
}

// attach makes a container and attaches it.
func (d *demo) attach(ctx context.Context, name string) error {
	if err := newNamespace(name); err != nil {
		return err
	}
	start := time.Now()
	res, err := d.cni.AddNetworkList(ctx, d.network, runtimeConf(name))
	took := time.Since(start)
	if err != nil {
		return fmt.Errorf("ADD %s: %w", name, err)
	}
	if d.attached[name], err = firstAddress(res); err != nil {
		return fmt.Errorf("ADD %s: %w", name, err)
	}
	if err := d.cni.CheckNetworkList(ctx, d.network, runtimeConf(name)); err != nil {
		return fmt.Errorf("CHECK %s: %w", name, err)
	}
	say("  ADD %-5s %-15s %6.1f ms", name, d.attached[name], milliseconds(took))
	return nil
}

func (d *demo) detach(ctx context.Context, name string) error {
	start := time.Now()
	if err := d.cni.DelNetworkList(ctx, d.network, runtimeConf(name)); err != nil {
		return fmt.Errorf("DEL %s: %w", name, err)
	}
	say("  DEL %-5s %22.1f ms", name, milliseconds(time.Since(start)))
	return nil
}

func milliseconds(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 }

// pings sends packets every way that the network promises.
func (d *demo) pings() error {
	red, blue := names[0], names[1]
	via, err := gatewayOf(red)
	if err != nil {
		return err
	}
	say("\nPing:")
	for _, p := range []struct {
		from, to string
		address  netip.Addr
	}{
		{red, blue, d.attached[blue]},
		{blue, red, d.attached[red]},
		{red, "gateway", via},
		{blue, world + " (which knows the host alone: NAT)", netip.MustParseAddr(worldAddress)},
	} {
		if err := ping(p.from, p.address); err != nil {
			return fmt.Errorf("ping from %s to %s %s: %w", p.from, p.to, p.address, err)
		}
		say("  %-5s → %s %s: answered", p.from, p.address, p.to)
	}
	return nil
}

// gatewayOf returns the gateway of a container's default route.
func gatewayOf(name string) (netip.Addr, error) {
	c, err := container{name: name}.dial()
	if err != nil {
		return netip.Addr{}, err
	}
	r, err := c.DefaultRoute()
	return r.Gateway, errors.Join(err, c.Close())
}

// nothingLeft fails where anything of the attachments is still there.
func (d *demo) nothingLeft(ctx context.Context) error {
	links, err := linksOf("")
	if err != nil {
		return err
	}
	rules, err := masquerading(ctx)
	if err != nil {
		return err
	}
	var left []string
	for _, l := range links {
		if l.Kind == "veth" && l.Name != "up0" {
			left = append(left, "link "+l.Name)
		}
	}
	for _, rule := range rules {
		left = append(left, "rule "+rule)
	}
	files, err := remaining("/run/netcleat", "/var/lib/cni/networks", filepath.Join(d.dir, "cache"))
	if err != nil {
		return err
	}
	left = append(left, files...)
	if len(left) > 0 {
		return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
	say("\nNothing is left: no interface, no rule, no lease, no record. The bridge stays for the next container.")
	return nil
}

// remaining lists the files of leases, records and cached results.
func remaining(dirs ...string) ([]string, error) {
	var found []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && !e.IsDir() && !bookkeeping(e.Name()) {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// bookkeeping reports whether a file of host-local's belongs to the network and
// not to an attachment.
func bookkeeping(name string) bool {
	return name == "lock" || strings.HasPrefix(name, "last_reserved_ip.") || strings.HasPrefix(name, ".leases-")
}
