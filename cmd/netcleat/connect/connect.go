// Package connect attaches running containers to networks and detaches them, by
// the library that runtimes use. What a container had before stays as it is: its
// default routes above all.
//
// It remembers nothing: a container's ID is made of its network namespace, and
// the rest is in the library's cache and the plugins' journal.
package connect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/cmd/netcleat/create"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

// Options say where networks and plugins are.
type Options struct {
	show.Places
	Path   string // CNI_PATH
	DryRun bool   // Forget only says what it would do
	// Warn is told what is no reason to stop.
	Warn func(format string, args ...any)
}

// Request is what a container is to get.
type Request struct {
	Network string
	IfName  string   // "" is the first ethN that it has not; to disconnect, the one that it has
	IPs     []string // that it asks for, with or without a prefix length
	Publish []string // ports, as docker run --publish has them
	Aliases []string // more names of the container on the network
	Name    string   // what people call the container, where that is known: on a network with names it is found by it
}

// Attached is what a container has got.
type Attached struct {
	IfName    string
	Addresses []netip.Prefix
}

// delWait bounds the DEL after an ADD that failed.
const delWait = time.Minute

// Connect attaches the container. Where that fails, or would disturb what it has,
// nothing of it stays.
func Connect(ctx context.Context, o Options, s *Sandbox, r Request) (_ Attached, err error) {
	unlock, err := create.Lock(ctx, o.NetConf)
	if err != nil {
		return Attached{}, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	n, err := o.Find(ctx, r.Network)
	if err != nil {
		return Attached{}, err
	}
	if err := s.refuseTwice(n); err != nil {
		return Attached{}, err
	}
	before, err := s.observe()
	if err != nil {
		return Attached{}, err
	}
	rt := &libcni.RuntimeConf{ContainerID: s.ContainerID(), NetNS: s.Path, CapabilityArgs: map[string]any{}}
	if rt.IfName, err = before.choose(r.IfName); err != nil {
		return Attached{}, err
	}
	list, err := r.list(n, before, rt)
	if err != nil {
		return Attached{}, err
	}
	cni := o.Library()
	if err := o.Installed(list); err != nil {
		return Attached{}, err
	}
	var got Attached
	res, err := cni.AddNetworkList(ctx, list, rt)
	if err == nil {
		got, err = r.accept(s, before, rt, res)
	}
	if err == nil {
		return got, nil
	}
	// The specification wants it, also after an ADD that failed.
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), delWait)
	defer cancel()
	err = errors.Join(err, cni.DelNetworkList(soon, list, rt), before.restore(s))
	return Attached{}, fmt.Errorf("network %s: %w", r.Network, err)
}

// Find returns the network with its attachments. What of others cannot be read
// is told.
func (o Options) Find(ctx context.Context, name string) (show.Network, error) {
	all, err := show.Networks(ctx, o.Places)
	if err != nil {
		o.Warn("not everything could be read: %v", err)
	}
	n, err := show.FindNetwork(all, name)
	if err == nil && n.File == "" {
		err = fmt.Errorf("network %q: has attachments, but no file in %s", name, o.NetConf)
	}
	if err != nil {
		return n, fmt.Errorf("%w; netcleat network create makes one", err)
	}
	return n, nil
}

// Library is the one that runtimes call plugins with. The plugins find this program, which
// is also the daemon that answers names, wherever it is.
func (o Options) Library() *libcni.CNIConfig {
	if self, err := os.Executable(); err == nil {
		_ = os.Setenv("PATH", os.Getenv("PATH")+string(filepath.ListSeparator)+filepath.Dir(self)) // it takes any text without a zero byte
	}
	return libcni.NewCNIConfigWithCacheDir(filepath.SplitList(o.Path), filepath.Dir(o.Cache), nil)
}

// Installed looks for the plugins before any of them is called.
func (o Options) Installed(list *libcni.NetworkConfigList) error {
	for _, p := range list.Plugins {
		if _, err := invoke.FindInPath(p.Network.Type, filepath.SplitList(o.Path)); err != nil {
			return fmt.Errorf("network %s: %w (netcleat install DIR installs the plugins, --cni-path names the directory)", list.Name, err)
		}
	}
	return nil
}

// list returns the network's list of plugins as this container needs it, and
// completes what the plugins are told.
func (r Request) list(n show.Network, before *state, rt *libcni.RuntimeConf) (*libcni.NetworkConfigList, error) {
	l, err := libcni.NetworkConfFromFile(n.File)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", n.Name, err)
	}
	doc, err := parse(l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.File, err)
	}
	if err := r.ask(doc, rt.CapabilityArgs); err != nil {
		return nil, fmt.Errorf("network %s: %w", n.Name, err)
	}
	doc.keepDefaults(before)
	text, err := doc.text()
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(text)
}

// ask turns addresses and ports into what the plugins' capabilities call them.
func (r Request) ask(doc *document, args map[string]any) error {
	for _, ip := range r.IPs {
		if _, err := parseIP(ip); err != nil {
			return err
		}
	}
	if len(r.IPs) > 0 {
		doc.offer("ips") // IPAM plugins take it, whether the list says so or not
		args["ips"] = r.IPs
	}
	switch aliases := r.aliases(); {
	case len(r.Aliases) > 0 && !doc.offers("aliases"):
		return errors.New("has no names: no plugin of it has the capability aliases (dnsname has)")
	case len(aliases) > 0 && doc.offers("aliases"):
		args["aliases"] = map[string][]string{r.Network: aliases}
	}
	if len(r.Publish) == 0 {
		return nil
	}
	if !doc.offers("portMappings") {
		return errors.New("publishes no ports: no plugin of it has the capability portMappings")
	}
	ports, err := mappings(r.Publish)
	args["portMappings"] = ports
	return err
}

// aliases are the container's names on the network: its own, without a pod's namespace,
// and those that are asked for.
func (r Request) aliases() []string {
	if r.Name == "" {
		return r.Aliases
	}
	return append([]string{path.Base(r.Name)}, r.Aliases...)
}

// parseIP reads an address with or without a prefix length.
func parseIP(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if strings.Contains(s, "/") {
		var p netip.Prefix
		p, err = netip.ParsePrefix(s)
		a = p.Addr()
	}
	if err != nil || a.Is4In6() {
		return a, fmt.Errorf("ip %q: want an address, such as 10.5.0.9", s)
	}
	return a, nil
}

// accept looks whether the container has got what it asked for, is still the same
// one, and has what it had.
func (r Request) accept(s *Sandbox, before *state, rt *libcni.RuntimeConf, res types.Result) (Attached, error) {
	got := Attached{IfName: rt.IfName}
	result, err := current.NewResultFromResult(res)
	if err != nil {
		return got, err
	}
	for _, ip := range result.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		bits, _ := ip.Address.Mask.Size()
		got.Addresses = append(got.Addresses, netip.PrefixFrom(a.Unmap(), bits))
	}
	for _, ip := range r.IPs {
		want, _ := parseIP(ip) // it was read before
		if !slices.ContainsFunc(got.Addresses, func(p netip.Prefix) bool { return p.Addr() == want }) {
			return got, fmt.Errorf("ip %s: the network has given %v", ip, got.Addresses)
		}
	}
	if err := s.same(); err != nil {
		return got, err
	}
	return got, before.compare(s, rt.IfName)
}

// Disconnect detaches the container from the request's network: what Connect
// attached. It goes by what the library remembers, though the network's file be
// gone.
func Disconnect(ctx context.Context, o Options, s *Sandbox, r Request) (err error) {
	unlock, err := create.Lock(ctx, o.NetConf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	rows, err := show.Rows(o.Places)
	if err != nil {
		o.Warn("not everything could be read: %v", err)
	}
	row, err := s.find(show.Of(rows, r.Network), r.IfName)
	if err != nil {
		return fmt.Errorf("network %s: %w", r.Network, err)
	}
	rt := &libcni.RuntimeConf{ContainerID: row.Container, NetNS: s.Path, IfName: row.Interface}
	if s.Gone() {
		rt.NetNS = ""
	}
	list, rt, err := o.remembered(ctx, r.Network, rt)
	if err != nil {
		return err
	}
	if err := o.Installed(list); err != nil {
		return err
	}
	return o.detach(ctx, s, func() error {
		if err := o.Library().DelNetworkList(ctx, list, rt); err != nil {
			return fmt.Errorf("network %s: %w", r.Network, err)
		}
		return nil
	})
}

// detach has the container keep a default route, if it had one.
func (o Options) detach(ctx context.Context, s *Sandbox, del func() error) error {
	if s.Gone() {
		return del()
	}
	before, err := s.observe()
	if err != nil {
		return err
	}
	if err := del(); err != nil {
		return err
	}
	return o.elect(ctx, s, before)
}

// remembered is the list that the container was attached with, and what the
// plugins were told then. Where the library has forgotten it, it is the network's
// list as it is now.
func (o Options) remembered(ctx context.Context, network string, rt *libcni.RuntimeConf) (*libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	conf, cached, err := o.Library().GetNetworkListCachedConfig(&libcni.NetworkConfigList{Name: network}, rt)
	if err != nil {
		return nil, nil, err
	}
	if conf != nil {
		list, err := libcni.NetworkConfFromBytes(conf)
		return list, cached, err
	}
	n, err := o.Find(ctx, network)
	if err != nil {
		return nil, nil, fmt.Errorf("%s/%s-*: forgotten: %w", o.Cache, network, err)
	}
	list, err := libcni.NetworkConfFromFile(n.File)
	return list, rt, err
}
