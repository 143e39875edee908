// Package veth makes the pair of interfaces that joins a sandbox to its host,
// in one request, and finds the host's end again when the sandbox is gone.
//
// The host's end has a name and a MAC address that are a hash of (network,
// container ID, interface name). Both together prove whose it is.
package veth

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sha2"
	"github.com/netcleat/netcleat/pkg/undo"
)

// End is one end of a pair.
type End struct {
	Name  string
	MAC   net.HardwareAddr
	Index int
	MTU   int
}

// identity is the host end of an attachment. Two attachments may have the same
// 32-bit name; the next salt then gives another.
func identity(k journal.Key, salt byte) (host, sandbox End) {
	sum := sha2.Sum256([]byte(strings.Join([]string{k.Network, k.ContainerID, k.IfName, string(rune('0' + salt))}, "\x00")))
	host = End{Name: "veth" + hex.EncodeToString(sum[:4]), MAC: highMAC(sum[4:10])}
	sandbox = End{Name: k.IfName, MAC: localMAC(sum[10:16])}
	return host, sandbox
}

// salts is how many names are tried: with 10,000 attachments one in 100,000
// needs the second.
const salts = 4

func localMAC(b []byte) net.HardwareAddr {
	m := append(net.HardwareAddr(nil), b...)
	m[0] = m[0]&^1 | 2 // unicast, locally administered
	return m
}

// highMAC is an address above those of network cards: a bridge takes the lowest
// of its ports' addresses for its own, and keeps that of the port to the LAN
// (libvirt does the same).
func highMAC(b []byte) net.HardwareAddr {
	m := localMAC(b)
	m[0] = 0xfe
	return m
}

// Spec is a pair to be made.
type Spec struct {
	Key journal.Key
	MTU int // of the sandbox's end; 0 is the kernel's default
	// HostMTU is that of the host's end, where it is not the sandbox's.
	HostMTU int
	MAC     net.HardwareAddr // of the sandbox's end; nil is derived like the host's
	// Master is the index of the bridge that the host's end becomes a port of, or 0.
	Master int

	noEcho bool // for a test: as kernels are that do not answer with the links
}

// Create makes the pair, both ends down: whoever sets up the host's end brings it
// up afterwards (a change to a link that is up costs the kernel a walk over all
// IPv6 routes of the host). A
// sandbox that has an interface of the name already is refused with
// cnierr.AlreadyAttached.
func Create(p *nl.Pair, s Spec) (host, sandbox End, err error) {
	for salt := range byte(salts) {
		host, sandbox = identity(s.Key, salt)
		if s.MAC != nil {
			sandbox.MAC = s.MAC
		}
		taken, err := s.try(p, &host, &sandbox)
		if taken && err == nil {
			taken, err = s.try(p, &host, &sandbox) // the stale one is gone now
		}
		if !taken {
			return host, sandbox, err
		}
	}
	return host, sandbox, fmt.Errorf("host end %s: all names of the attachment are taken: %w", host.Name, unix.EEXIST)
}

// try makes the pair. taken says that the host's end's name is another's (err is
// then set), or was that of a stale pair, which is gone.
func (s Spec) try(p *nl.Pair, host, sandbox *End) (taken bool, err error) {
	err = s.create(p, host, sandbox)
	if !errors.Is(err, unix.EEXIST) {
		return false, err
	}
	_, lerr := p.Sandbox.LinkByName(sandbox.Name)
	if lerr == nil {
		return false, cnierr.Newf(cnierr.AlreadyAttached, "container veth name (%q) peer provided (%q) already exists", sandbox.Name, host.Name)
	}
	if !nl.NotFound(lerr) {
		return false, lerr
	}
	deleted, derr := deleteStale(p.Host, *host)
	if derr != nil {
		return false, derr
	}
	if deleted {
		return true, nil
	}
	return true, err
}

// create sends the request. Where the kernel does not answer it with the links
// (before 6.2), they are looked up.
func (s Spec) create(p *nl.Pair, host, sandbox *End) error {
	m := nl.NewLink("veth", host.Name, 0)
	if !s.noEcho {
		m.Flags |= unix.NLM_F_ECHO
	}
	m.Attr(unix.IFLA_ADDRESS, host.MAC)
	if mtu := cmp.Or(s.HostMTU, s.MTU); mtu != 0 {
		m.Uint32(unix.IFLA_MTU, uint32(mtu))
	}
	if s.Master != 0 {
		m.Uint32(unix.IFLA_MASTER, uint32(s.Master))
	}
	const peer = 1 // VETH_INFO_PEER
	m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "veth").Begin(unix.IFLA_INFO_DATA).Begin(peer)
	m.Raw(nl.Ifinfomsg(0)).String(unix.IFLA_IFNAME, sandbox.Name).Attr(unix.IFLA_ADDRESS, sandbox.MAC)
	m.Uint32(unix.IFLA_NET_NS_FD, uint32(p.NS.Fd()))
	if s.MTU != 0 {
		m.Uint32(unix.IFLA_MTU, uint32(s.MTU))
	}
	m.End().End().End()
	var made *nl.Link
	m.Reply = func(b []byte) (err error) {
		made, err = nl.ParseLink(b)
		return err
	}
	if err := p.Host.Do(m); err != nil {
		return err
	}
	if made == nil {
		var err error
		if made, err = p.Host.LinkByName(host.Name); err != nil {
			if derr := p.Host.Do(nl.DelLinkName(host.Name)); derr != nil {
				err = errors.Join(err, &undo.Failed{What: "delete " + host.Name, Err: derr})
			}
			return err
		}
	}
	host.Index, host.MTU = made.Index, made.MTU
	sandbox.Index, sandbox.MTU = made.Parent, cmp.Or(s.MTU, made.MTU)
	return nil
}

// deleteStale removes a host end that is this attachment's though its sandbox
// has no interface of that name: the record of it was lost.
func deleteStale(host *nl.Conn, e End) (deleted bool, err error) {
	l, err := host.LinkByName(e.Name)
	if nl.NotFound(err) {
		return true, nil // by another
	}
	if err != nil || !e.is(l) {
		return false, err
	}
	return true, host.Do(nl.DelLinkIndex(l.Name, l.Index))
}

// is reports whether l is the host end e. Earlier versions took the first byte of
// its address from the hash, too.
func (e End) is(l *nl.Link) bool {
	return l.Kind == "veth" && l.Name == e.Name && len(l.MAC) == len(e.MAC) &&
		l.MAC[0]&3 == 2 && bytes.Equal(l.MAC[1:], e.MAC[1:])
}

// HostName returns the name of the host's end, but for the rare attachment that
// found it taken and has another in its record.
func HostName(k journal.Key) string {
	host, _ := identity(k, 0)
	return host.Name
}

// Delete removes the attachment's pair by its host end, wherever the sandbox is.
// None is success. found says whether there was one.
func Delete(host *nl.Conn, k journal.Key) (found bool, err error) {
	for salt := range byte(salts) {
		e, _ := identity(k, salt)
		l, err := host.LinkByName(e.Name)
		if nl.NotFound(err) {
			continue // perhaps a later one, made while another had this name
		}
		if err != nil {
			return false, err
		}
		if e.is(l) {
			return true, host.Do(nl.DelLinkIndex(l.Name, l.Index))
		}
	}
	return false, nil
}

// maxAlias is the kernel's limit, in bytes, without the final zero.
const maxAlias = 255

// Alias says in words whose the host's end is, for people who type `ip link`.
// It is cut where the kernel does not hold it.
func Alias(k journal.Key) string {
	return journal.Cut(aliases(k.Network)+k.ContainerID+" "+k.IfName, maxAlias)
}

// aliases begins the aliases of a network's host ends.
func aliases(network string) string { return link.Ours + network + " " }

// Unrecorded returns the aliases of the network's host ends on this host that
// are of none of the known attachments: of containers that run though the journal
// has lost them. Networks whose long names begin alike are taken for one.
func Unrecorded(network string, known []journal.Key) (lost []string, err error) {
	links, err := veths()
	for _, l := range links {
		if MayBeOf(l.Alias, network) {
			lost = append(lost, l.Alias)
		}
	}
	return without(lost, known), err
}

// UnrecordedOn returns the aliases of a bridge's ports, of whichever network, that
// are of none of the known attachments.
func UnrecordedOn(bridge string, known []journal.Key) (lost []string, err error) {
	links, err := veths()
	if err != nil {
		return nil, err
	}
	host, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	l, err := host.LinkByName(bridge)
	if err = errors.Join(err, host.Close()); nl.NotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, port := range links {
		if port.Master == l.Index && strings.HasPrefix(port.Alias, link.Ours) {
			lost = append(lost, port.Alias)
		}
	}
	return without(lost, known), nil
}

// MayBeOf reports whether an alias is of the network, or of one whose long name
// begins alike.
func MayBeOf(alias, network string) bool {
	const hashed = 17 // what Cut ends a name with
	start := aliases(network)
	return strings.HasPrefix(alias, start[:min(len(start), maxAlias-hashed)])
}

func veths() (links []*nl.Link, err error) {
	host, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	links, err = host.LinksOfKind("veth")
	return links, errors.Join(err, host.Close())
}

// without drops the aliases of the known attachments.
func without(list []string, known []journal.Key) []string {
	drop := map[string]bool{}
	for _, k := range known {
		drop[Alias(k)] = true
	}
	return slices.DeleteFunc(list, func(alias string) bool { return drop[alias] })
}

// DeleteEnd removes a pair that this call has just made.
func DeleteEnd(host *nl.Conn, e End) error { return host.Do(nl.DelLinkIndex(e.Name, e.Index)) }

// Remove removes the pair of the call's attachment, for DEL: by its host end
// where this suite made it. One that the reference made has a random name on the
// host; it is found in the sandbox, and only removed where nothing says that it
// is another attachment's.
func Remove(p *nl.Pair, c *plugin.Call) error {
	found, err := Delete(p.Host, c.Key(""))
	if found || err != nil {
		return err
	}
	if c.Entry != nil && c.Entry.Found != journal.Nothing {
		return deleteRecorded(p.Host, c)
	}
	if p.Sandbox == nil {
		return nil
	}
	return link.Remove(p, c, "veth")
}

// deleteRecorded removes the recorded host end, where it is still there but has
// another MAC address or name by now: the kernel gives an index only once in a
// network namespace. In another one than ADD ran in, the index is another link's.
func deleteRecorded(host *nl.Conn, c *plugin.Call) error {
	if here, err := c.OnItsHost(host); !here || err != nil {
		return err
	}
	for _, r := range c.Entry.Links {
		if r.Sandbox || r.Index == 0 {
			continue
		}
		l, err := host.LinkByIndex(r.Index)
		if nl.NotFound(err) || err == nil && l.Kind != "veth" {
			continue
		}
		if err != nil {
			return err
		}
		return host.Do(nl.DelLinkIndex(l.Name, l.Index))
	}
	return nil
}
