// Package clusterlocal is the IPAM plugin cluster-local: it hands out addresses of
// ranges that several hosts share. Inside the blocks that this host owns it is
// host-local; `netcleat cluster daemon` owns blocks for the host, in etcd.
package clusterlocal

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/ranges"
)

// Plugin is cluster-local. Like host-local it keeps no record in the journal.
var Plugin = plugin.Spec[Config]{
	Name:   "cluster-local",
	Role:   plugin.IPAM,
	Parse:  parse,
	Add:    add,
	Del:    func(ctx context.Context, c *plugin.Call, conf Config) error { return ranges.Del(ctx, c, conf.Config) },
	Check:  func(ctx context.Context, c *plugin.Call, conf Config) error { return ranges.Check(ctx, c, conf.Config) },
	Status: status,
	GC:     func(ctx context.Context, c *plugin.Call, conf Config) error { return ranges.GC(ctx, c, conf.Config) },
}

// maxTries bounds how often the daemon says that there are addresses, of which none can
// be had: others take them first, or those of one family are left without their pairs.
const maxTries = 200

// addWait bounds how long an ADD waits for the daemon, all tries together.
const addWait = 20 * time.Second

// add takes addresses of this host's blocks. Where they have none it asks the daemon
// for more, and tries again.
func add(ctx context.Context, c *plugin.Call, conf Config) (*current.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, addWait)
	defer cancel()
	if err := prepare(ctx, c, conf); err != nil {
		return nil, err
	}
	for tries := 0; ; tries++ {
		res, err := ranges.Add(ctx, c, conf.Config)
		short := (*ranges.ShortError)(nil)
		switch {
		case errors.As(err, &short):
		case errors.Is(err, errUnconfirmed):
			short = &ranges.ShortError{}
		default:
			return res, err
		}
		if tries == maxTries {
			return nil, cnierr.With(cnierr.TryAgain, err)
		}
		if aerr := ask(ctx, c, conf, short.Wanted); aerr != nil {
			return nil, refused(conf, err, aerr)
		}
	}
}

// ask asks the daemon for blocks, or for the one that has an address.
func ask(ctx context.Context, c *plugin.Call, conf Config, wanted netip.Addr) error {
	r := Request{Config: c.Stdin}
	if wanted.IsValid() {
		r.Want = wanted.String()
	}
	return conf.Socket().Ask(ctx, r)
}

// refusedUplink is what an ADD fails with where the uplink cannot be programmed.
func refusedUplink(conf Config, asked error) error {
	said := serverError("")
	if errors.As(asked, &said) {
		return cnierr.With(cnierr.TryAgain, fmt.Errorf("network %s: %w", conf.Pool.Name, asked))
	}
	return cnierr.With(cnierr.TryAgain, fmt.Errorf("network %s: its uplink is new, and `netcleat cluster daemon` does not answer: %w (is it running? `systemctl status netcleat-cluster`)", conf.Pool.Name, asked))
}

// refused is what an ADD fails with that had to ask the daemon.
func refused(conf Config, short, asked error) error {
	said := serverError("")
	if errors.As(asked, &said) {
		return cnierr.With(cnierr.TryAgain, fmt.Errorf("network %s: %w", conf.Pool.Name, asked))
	}
	what := "this host's blocks are used up"
	if errors.Is(short, errUnconfirmed) {
		what = "the daemon has not confirmed this host's blocks since the boot"
	}
	return cnierr.With(cnierr.TryAgain, fmt.Errorf("network %s: %s, and `netcleat cluster daemon` does not answer: %w (is it running? `systemctl status netcleat-cluster`)", conf.Pool.Name, what, asked))
}

// status fails where an ADD could not work: no block is confirmed, and no daemon
// answers that could change that.
func status(ctx context.Context, c *plugin.Call, conf Config) error {
	if err := ranges.Status(ctx, c, conf.Config); err != nil {
		return err
	}
	_, err := ReadBlocks(string(c.Journal), conf.Pool)
	if err == nil {
		return nil
	}
	if derr := conf.Socket().Reachable(); derr != nil {
		return cnierr.With(cnierr.NotAvailable, fmt.Errorf("network %s: %w, and no daemon listens: %w", conf.Pool.Name, err, derr))
	}
	return nil
}

// Config is what a call needs to know.
type Config struct {
	ranges.Config
	Pool   *Pool // nil for DEL and GC
	socket string
}

// Socket returns the daemon's socket.
func (c *Config) Socket() Socket {
	if c.socket == "" {
		return DefaultSocket
	}
	return Socket(c.socket)
}

// document is the configuration as it is written.
type document struct {
	IPAM *ipam `json:"ipam"`
	ranges.Asked
}

type ipam struct {
	ranges.IPAM
	Exclude          []string `json:"exclude"`
	BlockSize        int      `json:"blockSize"`
	DaemonSocketPath string   `json:"daemonSocketPath"`
}

func parse(c *plugin.Call) (Config, error) {
	conf := Config{Config: ranges.ForRemoval(c)}
	if c.Removing() {
		return conf, nil
	}
	var n document
	if err := c.Decode(&n); err != nil {
		return conf, err
	}
	r := ranges.Document{Asked: n.Asked}
	if n.IPAM != nil {
		r.IPAM, conf.socket = &n.IPAM.IPAM, n.IPAM.DaemonSocketPath
	}
	var err error
	if conf.Config, err = r.Config(c); err != nil {
		return conf, err
	}
	if conf.Pool, err = newPool(c.Conf.Name, &conf.Config, n.IPAM); err != nil {
		return conf, cnierr.With(cnierr.InvalidConfig, err)
	}
	if err := readOverlay(c, &conf); err != nil {
		return conf, err
	}
	conf.Owned = func([]ranges.Set) ([]ranges.Set, error) { return owned(string(c.Journal), conf.Pool) }
	return conf, nil
}

func newPool(name string, conf *ranges.Config, n *ipam) (*Pool, error) {
	p := &Pool{Name: name, Dir: conf.Dir(), Sets: conf.Sets()}
	for _, s := range n.Exclude {
		x, err := parseExclude(s)
		if err != nil {
			return nil, err
		}
		p.Exclude = append(p.Exclude, x)
	}
	subnets := make([][]netip.Prefix, len(p.Sets))
	for i, set := range p.Sets {
		for _, r := range set.Ranges() {
			if !slices.Contains(subnets[i], r.Subnet) { // ranges of one subnet share its slots
				subnets[i] = append(subnets[i], r.Subnet)
			}
		}
	}
	var err error
	p.Layout, err = slotsOf(subnets, n.BlockSize)
	return p, err
}

func parseExclude(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return netip.Prefix{}, fmt.Errorf("exclude %q: want an address or a subnet", s)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() || p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("exclude %q: want an address or a subnet", s)
	}
	return p, nil
}

// ReadPool reads the network of a configuration, as the daemon is told of it.
func ReadPool(stdin []byte) (*Pool, error) {
	c := &plugin.Call{Verb: plugin.Status, Stdin: stdin}
	if err := c.Decode(&c.Conf); err != nil {
		return nil, err
	}
	conf, err := parse(c)
	if err != nil {
		return nil, err
	}
	return conf.Pool, nil
}
