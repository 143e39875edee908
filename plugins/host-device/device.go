package hostdevice

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
)

// device is what the record keeps of an interface that was moved: what tells it
// from all others, and what it was like.
type device struct {
	Name         string `json:"name"`
	Selected     string `json:"selected"` // how the configuration named it
	Index        int    `json:"index"`
	Kind         string `json:"kind,omitempty"` // "" for a physical one
	MAC          string `json:"mac"`
	PermanentMAC string `json:"permanentMAC,omitempty"`
	Bus          string `json:"bus,omitempty"`
	BusAddr      string `json:"busAddr,omitempty"`
	MTU          int    `json:"mtu"`
	Flags        uint32 `json:"flags"` // of those in restored
	Alias        string `json:"alias,omitempty"`
}

// restored are the flags that a device gets back.
const restored = unix.IFF_UP | unix.IFF_PROMISC | unix.IFF_ALLMULTI | unix.IFF_NOARP

func remember(l *nl.Link, t target) device {
	return device{
		Name: l.Name, Selected: t.words, Index: l.Index, Kind: l.Kind, MAC: l.MAC.String(), PermanentMAC: l.PermanentMAC.String(),
		Bus: l.Bus, BusAddr: l.BusAddr, MTU: l.MTU, Flags: l.Flags & restored, Alias: l.Alias,
	}
}

// recorded returns the device that the record speaks of. One without a name is
// none: it was a driver's of userspace, or the ADD was killed before it knew.
func recorded(e *journal.Entry) (d device, ok bool, err error) {
	if e == nil || e.Found == journal.Nothing {
		return d, false, nil
	}
	if err := e.GetState(&d); err != nil {
		return d, true, fmt.Errorf("record of the device: %w", err)
	}
	return d, true, nil
}

// survives reports whether the kernel brings the device back to the host when
// the sandbox dies. Those that were made by a request of netlink die with it.
func (d *device) survives() bool { return d.Kind == "" }

// is reports whether l, which is in the attachment's sandbox, is the device. The
// container may have changed its name, and its address where it has another
// mark.
func (d *device) is(l *nl.Link) bool {
	switch {
	case d.PermanentMAC != "" && len(l.PermanentMAC) > 0:
		return d.PermanentMAC == l.PermanentMAC.String()
	case d.BusAddr != "" && l.BusAddr != "":
		// Several ports may have one bus address.
		return d.Bus == l.Bus && d.BusAddr == l.BusAddr && (l.Alias == d.Name || l.MAC.String() == d.MAC)
	}
	return d.Kind == l.Kind && (l.Alias == d.Name || l.MAC.String() == d.MAC)
}

// isOnHost reports whether l, which is on the host, is the device. A virtual one
// may have died, and somebody made another of its name and address.
func (d *device) isOnHost(l *nl.Link) bool {
	lasting := d.PermanentMAC != "" || d.BusAddr != ""
	return d.is(l) && (lasting || l.Index == d.Index || l.Alias == d.Name)
}

// search looks for the device among the links of c, under the names that it is
// likely to have first. nil is none.
func (d *device) search(c *nl.Conn, ifName string, is func(*nl.Link) bool) (*nl.Link, error) {
	if c == nil {
		return nil, nil
	}
	for _, name := range []string{ifName, d.Name} {
		l, err := c.LinkByName(name)
		if err != nil && !nl.NotFound(err) {
			return nil, err
		}
		if err == nil && is(l) {
			return l, nil
		}
	}
	all, err := c.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		if is(l) {
			return l, nil
		}
	}
	return nil, nil
}

// restore gives the device, which is on the host, back what else was its own.
// The alias comes last: as long as it is there, an interrupted DEL knows the
// device by it.
func (d *device) restore(host *nl.Conn, l *nl.Link) error {
	var batch []*nl.Message
	set := func(what string) *nl.Message {
		m := nl.SetLink("restore "+what+" of "+l.Name, l.Index)
		batch = append(batch, m)
		return m
	}
	if l.MTU != d.MTU {
		set("mtu").Uint32(unix.IFLA_MTU, uint32(d.MTU))
	}
	if mac, err := net.ParseMAC(d.MAC); err == nil && d.MAC != l.MAC.String() {
		set("MAC address").Attr(unix.IFLA_ADDRESS, mac)
	}
	if differ := (l.Flags ^ d.Flags) & restored; differ != 0 {
		batch = append(batch, nl.SetFlags("restore flags of "+l.Name, l.Index, d.Flags&differ, differ))
	}
	if l.Alias != d.Alias {
		set("alias").Attr(unix.IFLA_IFALIAS, append([]byte(d.Alias), 0))
	}
	if len(batch) == 0 {
		return nil
	}
	return host.Do(batch...)
}
