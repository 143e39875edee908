package hostdevice

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/ipam"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// detach answers DEL: the device goes back to the host as it was, wherever it
// is, and whatever else happens the lease is given back.
func (s sysfs) detach(ctx context.Context, c *plugin.Call, p *nl.Pair, conf config) (err error) {
	back := func() error {
		if err := s.giveBack(p, c, &conf); err != nil {
			return err
		}
		link.AnnounceOthers(p)
		return nil
	}
	if !conf.layer3 {
		return back()
	}
	return release(ctx, c, back)
}

// release gives the device back, and then the addresses, which by then do not
// answer any more.
func release(ctx context.Context, c *plugin.Call, back func() error) error {
	if err := ipam.Release(ctx, c); err != nil {
		c.Note("%v (the device goes back all the same)", err)
	}
	return errors.Join(back(), ipam.Del(ctx, c))
}

func (s sysfs) giveBack(p *nl.Pair, c *plugin.Call, conf *config) error {
	d, known, err := recorded(c.Entry)
	if err != nil {
		return err
	}
	if !known {
		if d, err = s.foreign(p, c, conf); err != nil {
			return err
		}
	}
	if d.Name == "" {
		return nil
	}
	l, err := bringHome(p, c, &d)
	if l == nil && err == nil && p.Sandbox == nil && d.survives() && s.plugged(&d) {
		l, err = awaitReturn(p, c, &d)
	}
	if err != nil {
		return err
	}
	if l == nil {
		c.Note("device %s is neither in the sandbox nor on the host: unplugged, gone with its namespace, or still in one", d.Name)
		return nil
	}
	if err := d.restore(p.Host, l); err != nil {
		c.Note("device %s is back, but not all is as it was: %v", d.Name, err)
	}
	return nil
}

// plugged reports whether the bus still has the device, or there is none to ask.
func (s sysfs) plugged(d *device) bool {
	return d.BusAddr == "" || exists(path.Join(string(s), "bus", d.Bus, "devices", d.BusAddr))
}

// returnWait bounds the wait for a device whose sandbox has just died.
const returnWait = 2 * time.Second

// awaitReturn waits for the device to come back: the kernel takes a namespace
// apart some time after its last user left it.
func awaitReturn(p *nl.Pair, c *plugin.Call, d *device) (l *nl.Link, err error) {
	w, err := nl.NewWatch(nil, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, err
	}
	err = w.Until(time.Now().Add(returnWait), func() (bool, error) {
		l, err = bringHome(p, c, d)
		return l != nil, err
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return l, errors.Join(err, w.Close())
}

// foreign returns a device that was attached without a record being left, by the
// reference perhaps: its own name is its alias. One without a name is none.
func (s sysfs) foreign(p *nl.Pair, c *plugin.Call, conf *config) (d device, err error) {
	conn := p.Sandbox
	if conn == nil {
		conn = p.Host
	}
	l, err := conn.LinkNamed(c.IfName)
	if nl.NotFound(err) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	if !nl.IsName(l.Alias) || !conf.describes(l) {
		return d, nil
	}
	d = remember(l, target{})
	d.Name, d.Alias, d.Index, d.Flags = l.Alias, "", 0, 0
	if p.Sandbox == nil {
		// Any link of the host may have that name, so the configuration must
		// have named the very device, which must be missing.
		if !d.survives() || !s.identifies(conf, l) {
			return device{}, nil
		}
		if _, err := p.Host.LinkByName(l.Alias); !nl.NotFound(err) {
			return device{}, err
		}
		return d, nil
	}
	if other, err := link.IsOthers(p, c, l); other || err != nil {
		return device{}, err
	}
	return d, nil
}

// identifies reports whether the configuration names the device itself, and l,
// which is on the host, is it.
func (s sysfs) identifies(conf *config, l *nl.Link) bool {
	switch conf.selects() {
	case "":
		return false
	case "device":
		return conf.describes(l)
	case "hwaddr":
		return score(l, conf.hwaddr) > 0
	}
	t, err := s.resolve(conf)
	return err == nil && exists(path.Join(t.dir, l.Name))
}

// describes reports whether nothing in the configuration says that the device
// whose name is l's alias is another.
func (c *config) describes(l *nl.Link) bool {
	switch c.selects() {
	case "device":
		return l.Alias == c.Device || slices.Contains(l.AltNames, c.Device)
	case "hwaddr":
		return len(l.PermanentMAC) == 0 || score(l, c.hwaddr) > 0 // the container may have changed the other one
	case "pciBusID":
		return l.Bus != "pci" || l.BusAddr == c.PCIBusID
	}
	return true
}
