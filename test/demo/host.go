package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/nl"
)

// furnish makes the demo's host empty where plugins write, and gives it a
// neighbour that stands for the world.
func furnish(ctx context.Context) error {
	for _, path := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
	}
	if err := newNamespace(world); err != nil {
		return err
	}
	p, err := nl.Open(pathOf(world), nil)
	if err != nil {
		return err
	}
	err = features(ctx, p.Host)
	if err == nil {
		err = neighbour(p)
	}
	return errors.Join(err, p.Close())
}

// neighbour connects the host and the world by a cable with an address at each end.
func neighbour(p *nl.Pair) error {
	m := veth("up0").Raw(nl.Ifinfomsg(0)).String(unix.IFLA_IFNAME, "up0").Uint32(unix.IFLA_NET_NS_FD, uint32(p.NS.Fd()))
	if err := p.Host.Do(m.End().End().End(), nl.SetUp("lo", 1)); err != nil {
		return err
	}
	return errors.Join(address(p.Host, "up0", hostAddress), address(p.Sandbox, "up0", worldAddress+"/24"))
}

// veth starts the message that creates a pair; the other end is to follow.
func veth(name string) *nl.Message {
	const peer = 1 // VETH_INFO_PEER
	m := nl.NewLink("veth", name, 0).Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "veth")
	return m.Begin(unix.IFLA_INFO_DATA).Begin(peer)
}

// address gives the link an address and brings it up.
func address(c *nl.Conn, name, prefix string) error {
	l, err := c.LinkByName(name)
	if err != nil {
		return err
	}
	return c.Do(nl.AddAddr(nl.Addr{Index: l.Index, Prefix: netip.MustParsePrefix(prefix)}), nl.SetUp(name, l.Index))
}

// feature is what the demo needs of the kernel.
type feature struct {
	name, modules string
	try           func() error
}

// features tries what the demo needs of the kernel and says what is missing.
func features(ctx context.Context, host *nl.Conn) error {
	bridge := nl.NewLink("bridge", "try0", 0).Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "bridge").End()
	return missing([]feature{
		{"bridges", "bridge", func() error { return host.Do(bridge, nl.DelLinkName("try0")) }},
		{"veth pairs", "veth", func() error {
			pair := veth("try0").Raw(nl.Ifinfomsg(0)).End().End().End()
			return host.Do(pair, nl.DelLinkName("try0"))
		}},
		{"masquerading by nftables", "nf_tables nft_chain_nat nft_masq", func() error { return masquerade(ctx) }},
	})
}

// missing tries the features and says which the kernel refuses.
func missing(features []feature) error {
	var errs []error
	for _, f := range features {
		if err := f.try(); err != nil {
			errs = append(errs, fmt.Errorf("this kernel refuses %s: %w\n  load what is missing (modprobe %s), or use a kernel that has it", f.name, err, f.modules))
		}
	}
	return errors.Join(errs...)
}

// masquerade makes a rule that does so, and deletes it.
func masquerade(ctx context.Context) error {
	table := nft.Table{Family: nft.IPv4, Name: "try"}
	chain := nft.Chain{Table: table, Name: "c", Hook: &nft.Hook{Type: "nat", Num: unix.NF_INET_POST_ROUTING, Priority: 100}}
	c, err := nft.Dial(nil, nil)
	if err != nil {
		return err
	}
	err = c.Update(ctx, "try to masquerade", func(tx *nft.Tx) error {
		tx.EnsureTable(table, "")
		tx.EnsureChain(chain)
		tx.Append(nft.Rule{Chain: chain, Exprs: []nft.Expr{nft.Masquerade()}})
		return nil
	})
	if err == nil {
		err = c.Update(ctx, "delete the rule", func(tx *nft.Tx) error { tx.DeleteTable(table); return nil })
	}
	return errors.Join(err, c.Close())
}

// pathOf is where a container's network namespace is.
func pathOf(name string) string { return filepath.Join("/run/netns", name) }

// newNamespace makes a network namespace as `ip netns add` does.
func newNamespace(name string) error {
	path := pathOf(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	return nil
}

// ping sends echo requests from the container to the address until one is answered.
func ping(from string, to netip.Addr) (err error) {
	ns, err := netns.Open(pathOf(from))
	if err != nil {
		return err
	}
	fd, err := ns.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	defer func() { err = errors.Join(err, unix.Close(fd), ns.Close()) }()
	wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return err
	}
	request := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
	buf := make([]byte, 1500)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if err := unix.Sendto(fd, request, 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
			return err
		}
		const header, reply = 20, 0
		if n, _, err := unix.Recvfrom(fd, buf, 0); err == nil && n > header && buf[header] == reply {
			return nil
		}
	}
	return errors.New("no answer")
}
