package doctor

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/clusterd"
	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// overlays looks at networks of several hosts: their uplinks, and whether these forward
// as etcd says.
func (e *exam) overlays(ctx context.Context) {
	programmed := false
	for _, n := range e.networks {
		c := n.VXLAN()
		if c == nil || len(n.Containers) == 0 {
			continue
		}
		programmed = programmed || c.Control == vxlan.Etcd
		if err := e.uplinkOf(ctx, n, c); err != nil {
			e.broken(err)
		}
	}
	if !programmed {
		return
	}
	s, err := clusterd.ReadSettings(clusterd.DefaultSettings)
	if errors.Is(err, fs.ErrNotExist) {
		return // the daemon has others
	}
	if err != nil {
		e.broken(err)
		return
	}
	differences, err := clusterd.Verify(ctx, s)
	if err != nil {
		e.broken(err)
	}
	for _, d := range differences {
		mend := finding.Run("systemctl restart netcleat-cluster")
		if d.Others {
			mend = finding.Do("correct the hosts' configurations or addresses; netcleat cluster release-host HOST removes one that no longer exists")
		}
		e.add(finding.Problem, mend, "%s", d)
	}
}

// uplinkOf looks at one network's uplink.
func (e *exam) uplinkOf(ctx context.Context, n show.Network, c *vxlan.Conf) (err error) {
	conn, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	l, err := conn.LinkByName(c.Name())
	if nl.NotFound(err) {
		e.add(finding.Problem, finding.Do("the network's next container makes it: start one"), "network %s: its uplink %s is missing: containers of other hosts are not reached", n.Name, c.Name())
		return nil
	}
	if err != nil {
		return err
	}
	if cerr := c.CheckGuard(nil, n.Link); cerr != nil {
		e.add(finding.Problem, finding.Run("netcleat reconcile"), "network %s: %v", n.Name, cerr)
	}
	under, err := c.Underlay(conn)
	switch {
	case err != nil:
		e.add(finding.Problem, nothing, "network %s: %v", n.Name, err)
	case movedAway(conn, l):
		e.add(finding.Problem, finding.Mend{Command: "ip link del " + c.Name(), When: "and start a container, which makes it again"}, "network %s: uplink %s sends from an address that the host does not have any more: other hosts do not answer", n.Name, l.Name)
	case under.MTU < l.MTU:
		e.add(finding.Problem, finding.Do("raise the MTU of the interface to the other hosts, or remove and recreate the network"), "network %s: uplink %s has an MTU of %d, of which the interface to the other hosts lets only %d through", n.Name, l.Name, l.MTU, under.MTU)
	default:
		e.add(finding.Fine, nothing, "network %s: uplink %s at %s, MTU %d", n.Name, l.Name, under.Addr, l.MTU)
	}
	return e.tunnels(ctx, n, c, l)
}

// movedAway reports whether an uplink's own address is no longer the host's.
func movedAway(conn *nl.Conn, l *nl.Link) bool {
	u, ok := vxlan.Read(l)
	if !ok || !u.Local.IsValid() {
		return false
	}
	has, err := conn.HasAddr(u.Local)
	return err == nil && !has
}
