// Package lab makes several hosts on one LAN out of one machine, and runs on them what
// a cluster needs: members of etcd, cluster daemons, containers.
//
// A host has its own network, mounts, processes and name: /run, /var/lib and /etc/cni
// are empty. Everything ends with Close, and with the process that has called New.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Lab is hosts on one LAN, 192.0.2.0/24 and 2001:db8::/64, the router of which is
// 192.0.2.2 and 2001:db8::2.
type Lab struct {
	Hosts    []*Host
	More     string // lines of each host's cluster.yaml
	dir      string
	plugins  string // directory of the plugins
	netcleat string
	router   *space
	via      []string // endpoints that daemons reach etcd by, where these are not the members
}

// New makes n hosts named h1, h2 and so on, with the plugins that netcleat installs.
func New(ctx context.Context, n int, netcleat string) (l *Lab, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces take root")
	}
	l = &Lab{netcleat: netcleat}
	if l.dir, err = os.MkdirTemp("", "lab"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	l.plugins = filepath.Join(l.dir, "bin")
	if err := combined(command(ctx, netcleat, "install", l.plugins)); err != nil {
		return nil, err
	}
	// The plugin dnsname starts its daemon from there.
	if netcleat, err = filepath.Abs(netcleat); err != nil {
		return nil, err
	}
	if err := os.Symlink(netcleat, filepath.Join(l.plugins, "netcleat")); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if l.router, err = hold(furnishRouter, unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	for i := range n {
		if err := l.addHost(ctx, i+1); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Close ends the hosts and all that runs on them.
func (l *Lab) Close() error {
	var errs []error
	for _, h := range l.Hosts {
		errs = append(errs, h.space.end())
	}
	if l.router != nil {
		errs = append(errs, l.router.end())
	}
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

// Via has the daemons that are started from now on reach etcd by other endpoints.
func (l *Lab) Via(endpoints []string) { l.via = endpoints }

// OnRouter is a program on the LAN's router, not yet started.
func (l *Lab) OnRouter(ctx context.Context, argv ...string) *exec.Cmd {
	return l.router.command(ctx, argv...)
}

// Router runs a program on the LAN's router.
func (l *Lab) Router(ctx context.Context, argv ...string) error {
	return combined(l.router.command(ctx, argv...))
}

const furnishRouter = `
set -e
ip link set lo up
ip link add lan type bridge
ip addr add 192.0.2.2/24 dev lan
ip addr add 2001:db8::2/64 dev lan nodad
ip link set lan up
echo ready
cat`

// Until calls holds until it returns no error, ever less often, and returns its last
// error where that takes too long: a busy machine is slow.
func Until(ctx context.Context, what string, holds func() error) error {
	const patience = 2 * time.Minute
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(pause*5/4, 300*time.Millisecond) {
		err := holds()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s: %w", what, err)
		case <-time.After(pause):
		}
	}
}
