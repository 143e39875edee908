package link

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// settleWait bounds the wait for what the kernel leaves to its workers, which serve
// all namespaces of the machine and are seconds behind where many come and go. One
// ADD in forty was seen to wait in vain at ten times more work than processors.
const settleWait = 30 * time.Second

// settle returns when packets pass, and then announces the addresses: what the
// kernel sends by itself when the link comes up is lost on a bridge, whose port
// does not forward yet.
func (s Setup) settle(p *nl.Pair, addrs []nl.Addr) error {
	for _, a := range addrs {
		if err := AwaitLocal(p.NS, p.Sandbox, a); err != nil {
			return err
		}
	}
	if s.Peer == 0 {
		return nil
	}
	if err := until(nil, unix.RTNLGRP_LINK, settleWait, func() (bool, error) { return carries(p.Host, s.Peer) }); err != nil {
		return err
	}
	if len(addrs) == 0 || s.MAC == nil {
		return nil
	}
	// Setting the address that the link has makes the kernel send a gratuitous
	// ARP (arp_notify) and an unsolicited neighbour advertisement (ndisc_notify)
	// for each address, at any time.
	return p.Sandbox.Do(nl.SetLink("tell neighbours of "+s.Name, s.Index).Attr(unix.IFLA_ADDRESS, s.MAC))
}

// AwaitLocal returns when packets to an address that was added without duplicate
// address detection arrive. With it, the address's time comes later, or never.
func AwaitLocal(ns *netns.NS, c *nl.Conn, a nl.Addr) error {
	if a.Flags&unix.IFA_F_NODAD == 0 {
		return nil
	}
	return until(ns, unix.RTNLGRP_IPV6_ROUTE, settleWait, func() (bool, error) { return c.IsLocal(a.Prefix.Addr()) })
}

// carries asks the kernel, which since Linux 6.8 brings the link's state up to
// date before it answers; before, that is left to a worker.
func carries(host *nl.Conn, index int) (bool, error) {
	l, err := host.LinkByIndex(index)
	if err != nil {
		return false, err
	}
	return l.OperState == nl.OperUp, nil
}

// until returns when done says so, which it does at once mostly; else it is
// asked again after each event of the group. When the wait is over it returns as
// well: what was configured is in the kernel's hands, and comes about without this
// process. To fail would have the container made again, and the kernel do all once
// more; the reference does not wait at all.
func until(ns *netns.NS, group int, wait time.Duration, done func() (bool, error)) error {
	ok, err := done()
	if ok || err != nil {
		return err
	}
	w, err := nl.NewWatch(ns, group)
	if err != nil {
		return err
	}
	err = w.Until(time.Now().Add(wait), done)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return errors.Join(err, w.Close())
}
