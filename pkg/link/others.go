package link

import (
	"strings"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Ours begins the aliases of the host's ends of this suite's pairs. Network, container
// and interface follow.
const Ours = "netcleat "

// IsOthers reports whether something says that l, which has the call's interface name
// in the sandbox, is another attachment's: the runtime then named a sandbox that has
// become another container's. A DEL without a record asks before it acts on what has
// nothing but a name to be known by. prevResult, the records, the alias of the other
// end of a pair, and host-local's leases may say so.
func IsOthers(p *nl.Pair, c *plugin.Call, l *nl.Link) (bool, error) {
	if !c.Reported(l.MAC) {
		return true, nil
	}
	if other, err := c.AttachedBy(p.NS.ID); other || err != nil {
		return other, err
	}
	if other, err := isOthersEnd(p.Host, c, l); other || err != nil {
		return other, err
	}
	return isLeasedToOther(p.Sandbox, c, l)
}

// isOthersEnd reports whether the host's end of a pair names another container. The
// network may have been renamed since.
func isOthersEnd(host *nl.Conn, c *plugin.Call, l *nl.Link) (bool, error) {
	if l.Kind != "veth" || l.ParentNetns < 0 { // its other end is in the sandbox, too
		return false, nil
	}
	end, err := lookUp(host.LinkByIndex(l.Parent))
	if end == nil || err != nil || end.Kind != "veth" || end.Parent != l.Index || !strings.HasPrefix(end.Alias, Ours) {
		return false, err
	}
	own := " " + c.ContainerID + " " + c.IfName
	return !strings.HasSuffix(end.Alias, own) && !journal.IsCut(end.Alias, Ours+c.Conf.Name+own), nil
}

// isLeasedToOther reports whether one of the link's addresses is leased to another
// container of the network, and none to this one.
func isLeasedToOther(sandbox *nl.Conn, c *plugin.Call, l *nl.Link) (other bool, err error) {
	addrs, err := sandbox.Addrs(l.Index)
	if err != nil {
		return false, err
	}
	dir := lease.DirOf(c.Conf.IPAM.DataDir, c.Conf.Name)
	for _, a := range addrs {
		o, leased := lease.OwnerOf(dir, a.Prefix.Addr())
		if leased && o.ContainerID == c.ContainerID {
			return false, nil
		}
		other = other || leased
	}
	return other, nil
}
