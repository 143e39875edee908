package hostdevice

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// moveIn moves the device into the sandbox under the interface's name, with its
// own for an alias: one request, and nobody on the host sees it under another
// name. It arrives down.
func moveIn(p *nl.Pair, d *device, ifName string) (*nl.Link, error) {
	m := nl.SetLink(fmt.Sprintf("move %s into the sandbox as %s", d.Name, ifName), d.Index)
	m.Uint32(unix.IFLA_NET_NS_FD, uint32(p.NS.Fd())).String(unix.IFLA_IFNAME, ifName).Attr(unix.IFLA_IFALIAS, []byte(d.Name))
	if err := p.Host.Do(m); err != nil {
		return nil, err
	}
	return p.Sandbox.LinkByName(ifName)
}

// bringHome looks for the device in the sandbox and on the host, where the
// kernel brings it when its sandbox dies, and sees that it is on the host under
// its own name. nil is a device that is in neither.
func bringHome(p *nl.Pair, c *plugin.Call, d *device) (*nl.Link, error) {
	l, err := d.search(p.Sandbox, c.IfName, d.is)
	if err != nil {
		return nil, err
	}
	if l != nil {
		return moveOut(p, c, d, l)
	}
	if c.Entry != nil && c.Entry.Found != journal.Nothing {
		// Elsewhere the device's index and name are another link's.
		if here, err := c.OnItsHost(p.Host); !here || err != nil {
			return nil, err
		}
	}
	l, err = d.search(p.Host, c.IfName, d.isOnHost)
	if err != nil || l == nil || l.Name == d.Name {
		return l, err
	}
	return l, rename(p, c, d, l)
}

// moveOut moves l, which is the device, to the host.
func moveOut(p *nl.Pair, c *plugin.Call, d *device, l *nl.Link) (_ *nl.Link, err error) {
	name, err := freeName(p.Host, d.Name)
	if err != nil {
		return nil, err
	}
	host, err := netns.Open(netns.Own)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.Close()) }()

	// The host's udev sees the device once, under its final name, where it can
	// have that in the sandbox already. Otherwise it is renamed on arrival.
	early := nl.SetLink("rename "+l.Name+" to "+name, l.Index).String(unix.IFLA_IFNAME, name)
	early.Ignore = []unix.Errno{unix.EEXIST}
	eerr := p.Sandbox.Do(nl.SetDown(l.Name, l.Index), early)

	m := nl.SetLink(fmt.Sprintf("move %s to the host as %s", l.Name, name), l.Index)
	m.Uint32(unix.IFLA_NET_NS_FD, uint32(host.Fd())).String(unix.IFLA_IFNAME, name)
	if _, err := p.Host.LinkByIndex(d.Index); d.Index != 0 && nl.NotFound(err) {
		m.Uint32(unix.IFLA_NEW_IFINDEX, uint32(d.Index)) // since Linux 5.13; others choose one
	}
	if err := p.Sandbox.Do(m); err != nil {
		return nil, errors.Join(eerr, err)
	}
	sayRenamed(c, d, name)
	return p.Host.LinkByName(name)
}

// rename gives l, which is the device and came to the host by itself, its name.
func rename(p *nl.Pair, c *plugin.Call, d *device, l *nl.Link) error {
	name, err := freeName(p.Host, d.Name)
	if err != nil {
		return err
	}
	m := nl.SetLink("rename "+l.Name+" to "+name, l.Index).String(unix.IFLA_IFNAME, name)
	if err := p.Host.Do(nl.SetDown(l.Name, l.Index), m); err != nil {
		return err
	}
	l.Name, l.Flags = name, l.Flags&^unix.IFF_UP
	sayRenamed(c, d, name)
	return nil
}

func sayRenamed(c *plugin.Call, d *device, name string) {
	if name != d.Name {
		c.Note("device %s: another interface of the host has taken its name: it is %s now", d.Name, name)
	}
}

// freeName returns the name, or where another link has it one like it.
func freeName(host *nl.Conn, name string) (string, error) {
	const tries = 100
	free := name
	for i := range tries {
		_, err := host.LinkByName(free)
		if nl.NotFound(err) {
			return free, nil
		}
		if err != nil {
			return "", err
		}
		free = fmt.Sprintf("%.12s_%d", name, i)
	}
	return "", fmt.Errorf("device %s: no name like it is free on the host", name)
}
