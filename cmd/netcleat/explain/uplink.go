package explain

import (
	"fmt"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// uplink looks at the interface by which the bridge reaches those of other hosts. What
// is wrong with it is made again by the next ADD on the network, which does not touch
// one that is up.
func (x *exam) uplink(b *nl.Link) {
	c := x.confs[0].VXLAN
	if c == nil || c.Check() != nil {
		return
	}
	name := c.Name()
	what := fmt.Sprintf("uplink %s as a port of %s, up", name, b.Name)
	l := x.hostLink(name)
	if l == nil {
		x.problem("bridge", what, "it is missing: containers of other hosts are not reached", finding.Do("the network's next container makes it: start one"))
		return
	}
	u, ok := vxlan.Read(l)
	have := ""
	mend := finding.Run("ip link del " + name) // and the next ADD makes it
	switch {
	case !ok:
		have = "it is no VXLAN interface"
		mend = finding.Mend{}
	case u.ID != c.ID || u.Port != c.Port:
		have = fmt.Sprintf("it has id %d and port %d, not %d and %d", u.ID, u.Port, c.ID, c.Port)
	case u.Master != b.Index:
		have = "it is no port of the bridge"
		mend = finding.Run("ip link set " + name + " master " + finding.Quote(b.Name))
	case !u.Suppresses():
		have = "neigh_suppress is off"
		mend = finding.Run("bridge link set dev " + name + " neigh_suppress on learning off")
	case !l.Up():
		have = "it is down"
		mend = finding.Run("ip link set " + name + " up")
	}
	x.judge("bridge", what, have, mend)
	if l.MTU < x.sandbox.MTU {
		x.warn("bridge", fmt.Sprintf("an MTU up to the %d of %s", l.MTU, name), fmt.Sprintf("%s has %d: larger packets to other hosts are lost", x.sandbox.Name, x.sandbox.MTU),
			finding.Run(x.inside(fmt.Sprintf("ip link set %s mtu %d", finding.Quote(x.sandbox.Name), l.MTU))))
	}
}
