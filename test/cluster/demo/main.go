// Command demo shows three hosts that share one range of addresses: containers on all
// of them, an etcd that loses a member and then all, a host that is released, and a
// network across the others on which a container finds one of another host by name.
//
// The hosts are namespaces of this machine, of which nothing is touched. It takes
// root, etcd, iproute2 and ping.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

func main() {
	conflist := flag.String("conflist", "conflist-examples/macvlan-cluster.conflist", "the network, the same on all hosts")
	netcleat := flag.String("netcleat", "bin/netcleat", "the operator's command")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := run(ctx, *conflist, *netcleat)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// networks is where the daemons make the cluster's networks.
const networks = "/etc/cni/net.d"

// show is what the demo has made.
type show struct {
	*lab.Lab
	list       string
	containers []*lab.Container
}

func run(ctx context.Context, conflist, netcleat string) (err error) {
	text, err := os.ReadFile(conflist)
	if err != nil {
		return err
	}
	start := time.Now()
	say("Three hosts on one LAN, which are namespaces: nothing of this machine's network is touched.")
	l, err := lab.New(ctx, 3, netcleat)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	s := &show{Lab: l, list: string(text)}
	for _, step := range []func(context.Context) error{s.start, s.attachAll, s.pingAll, s.withoutMember, s.withoutEtcd, s.release, s.acrossHosts} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	say("\nDone in %.0f s.", time.Since(start).Seconds())
	return nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// start starts etcd and the daemons.
func (s *show) start(ctx context.Context) error {
	s.More = "networkDir: " + networks + "\ndev: up0\n"
	say("\nEach host has a member of etcd and `netcleat cluster daemon`, with this /etc/netcleat/cluster.yaml:\n\n  %s", strings.ReplaceAll(s.Settings(), "\n", "\n  "))
	if err := s.StartEtcd(ctx); err != nil {
		return err
	}
	for _, h := range s.Hosts {
		if err := h.Write(networks+"/10-lan.conflist", s.list); err != nil {
			return err
		}
		if err := h.StartDaemon(ctx); err != nil {
			return err
		}
	}
	for _, h := range s.Hosts {
		if err := h.Running(ctx); err != nil {
			return err
		}
	}
	return nil
}

// attach starts a container on a host.
func (s *show) attach(ctx context.Context, h *lab.Host, name string) error {
	start := time.Now()
	c, err := h.Attach(ctx, s.list, name, "")
	if err != nil {
		return fmt.Errorf("%s on %s: %w", name, h.Name, err)
	}
	for _, o := range s.containers {
		if o.Addr[0] == c.Addr[0] {
			return fmt.Errorf("%s on %s and %s on %s have %s", o.Name, o.Host.Name, name, h.Name, c.Addr[0])
		}
	}
	s.containers = append(s.containers, c)
	say("  %s  ADD %-6s %-13s %6.1f ms", h.Name, name, c.Addr[0], float64(time.Since(start).Microseconds())/1000)
	return nil
}

// attachAll has two containers on each host. A host's first needs a block.
func (s *show) attachAll(ctx context.Context) error {
	say("Two containers on each host, with the same conflist. The first one waits for a block of addresses, the second does not:")
	for _, h := range s.Hosts {
		for _, name := range []string{"red", "blue"} {
			if err := s.attach(ctx, h, name); err != nil {
				return err
			}
		}
	}
	return s.status(ctx, s.Hosts[0])
}

func (s *show) status(ctx context.Context, h *lab.Host) error {
	out, err := h.Netcleat(ctx, "cluster", "status")
	say("\n%s$ netcleat cluster status\n%s", h.Name, out)
	return err
}

// pingAll sends packets from each container to each, and to the LAN.
func (s *show) pingAll(ctx context.Context) error {
	n := 0
	for _, from := range s.containers {
		for _, to := range s.containers {
			if from == to {
				continue
			}
			if err := from.Ping(ctx, to.Addr[0]); err != nil {
				return fmt.Errorf("%s on %s to %s on %s: %w", from.Name, from.Host.Name, to.Name, to.Host.Name, err)
			}
			mac, err := from.Neighbour(ctx, to.Addr[0])
			if err != nil || !strings.EqualFold(mac, to.MAC) {
				return fmt.Errorf("%s: answered by %s, not by %s (%w)", to.Addr[0], mac, to.MAC, err)
			}
			n++
		}
	}
	say("%d pings, each container to each: all answered, each by the container that has the address.", n)
	return nil
}

// withoutMember kills a member of etcd: blocks can be had.
func (s *show) withoutMember(ctx context.Context) error {
	say("\nKill the member of etcd on h2, and start containers on h1 until it needs another block:")
	if err := s.Hosts[1].Kill(ctx, lab.Etcd); err != nil {
		return err
	}
	for i := range 5 {
		if err := s.attach(ctx, s.Hosts[0], fmt.Sprint("more", i)); err != nil {
			return err
		}
	}
	return s.status(ctx, s.Hosts[0])
}

// withoutEtcd kills a second member: hosts go on with what they have.
func (s *show) withoutEtcd(ctx context.Context) error {
	say("Kill the member on h1, too: etcd has no quorum. Hosts go on with the blocks that they have:")
	if err := s.Hosts[0].Kill(ctx, lab.Etcd); err != nil {
		return err
	}
	if err := s.attach(ctx, s.Hosts[2], "late"); err != nil {
		return err
	}
	say("\nStart both members again.")
	for _, h := range s.Hosts[:2] {
		if err := h.StartMember(ctx); err != nil {
			return err
		}
	}
	return s.Hosts[0].Running(ctx)
}

// release gives back the blocks of a host that no longer exists.
func (s *show) release(ctx context.Context) error {
	say("\nh2 breaks for good. An operator gives its blocks to the others:")
	h := s.Hosts[1]
	for _, service := range []string{lab.Daemon, lab.Etcd} {
		if err := h.Kill(ctx, service); err != nil {
			return err
		}
	}
	if err := h.Cut(ctx); err != nil {
		return err
	}
	var out string
	err := lab.Until(ctx, "h2 is released", func() (err error) {
		out, err = s.Hosts[0].Netcleat(ctx, "cluster", "release-host", "h2", "--force")
		return err
	})
	if err != nil {
		return err
	}
	say("\nh1$ netcleat cluster release-host h2\n%s", out)
	return s.status(ctx, s.Hosts[0])
}

// acrossHosts has a container on h1 find one on h3 by name, on a network of their own.
func (s *show) acrossHosts(ctx context.Context) error {
	h1, h3 := s.Hosts[0], s.Hosts[2]
	create := []string{"network", "create", "-d", "overlay", "--subnet", "10.100.0.0/16", "--subnet", "fd00:100::/64", "web"}
	say("\nA network across hosts is created once, and exists on all of them:\n\nh1$ netcleat %s", strings.Join(create, " "))
	if out, err := h1.Netcleat(ctx, create...); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	front, err := s.onWeb(ctx, h1, "front")
	if err != nil {
		return err
	}
	back, err := s.onWeb(ctx, h3, "back")
	if err != nil {
		return err
	}
	name, out := h3.Name+"-"+back.Name, ""
	start := time.Now()
	err = lab.Until(ctx, front.Name+" on h1 finds "+name, func() (err error) {
		out, err = front.In(ctx, "ping", "-4", "-c1", "-W3", name)
		return err
	})
	if err != nil {
		return err
	}
	say("\nThe container on h1 finds the one on h3 by name, %.1f s after it was started:\n\nfront$ ping -4 -c1 %s\n%s", time.Since(start).Seconds(), name, out)
	return nil
}

// onWeb starts a container on the network across hosts.
func (s *show) onWeb(ctx context.Context, h *lab.Host, name string) (c *lab.Container, err error) {
	var list []byte
	err = lab.Until(ctx, h.Name+" has the network", func() (err error) {
		list, err = os.ReadFile(h.Path(networks + "/netcleat-web.conflist"))
		return err
	})
	if err != nil {
		return nil, err
	}
	if c, err = h.Attach(ctx, string(list), name, ""); err != nil {
		return nil, fmt.Errorf("%s on %s: %w", name, h.Name, err)
	}
	say("  %s  ADD %-6s %-13s %s", h.Name, name, c.Addr[0], c.Addr[1])
	return c, nil
}
