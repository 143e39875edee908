package link

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sha2"
	"github.com/netcleat/netcleat/pkg/undo"
)

// New is a link to be made in the sandbox, for all kinds but veth. It is called
// as Key says.
type New struct {
	Key  journal.Key
	Kind string
	MAC  net.HardwareAddr  // nil: the kernel's choice
	MTU  int               // 0: the kernel's choice
	Info func(*nl.Message) // adds the attributes that depend on Kind; nil adds none
	// Parent is the index of the link that it is made from, on the host or,
	// with ParentInSandbox, in the sandbox; 0 is none.
	Parent          int
	ParentInSandbox bool
}

// Create makes the link, down, and returns it. A sandbox that has an interface
// of the name already is refused with cnierr.AlreadyAttached.
//
// From Linux 6.15 on the kernel looks for the name of a link whose parent is on
// the host in the sandbox alone, so that one request makes it. Before, it looks
// on the host, too, and refuses a name that is there ("eth0"): then the link is
// made under another, and renamed.
func Create(p *nl.Pair, n New) (*nl.Link, error) {
	name := n.Key.IfName
	err := n.create(p, name)
	if errors.Is(err, unix.EEXIST) {
		if _, lerr := p.Sandbox.LinkByName(name); lerr == nil {
			return nil, taken(name)
		}
		if n.fromHost() {
			return n.createAside(p)
		}
	}
	if err != nil {
		return nil, err
	}
	return n.found(p, name)
}

func taken(name string) error {
	return cnierr.Newf(cnierr.AlreadyAttached, "interface %q already exists in the sandbox", name)
}

func (n New) fromHost() bool { return n.Parent != 0 && !n.ParentInSandbox }

// create sends the request. The socket's namespace is where the kernel looks for
// the parent.
func (n New) create(p *nl.Pair, name string) error {
	m := nl.NewLink(n.Kind, name, 0)
	c := p.Sandbox
	if n.fromHost() {
		c = p.Host
		m.Uint32(unix.IFLA_NET_NS_FD, uint32(p.NS.Fd()))
	}
	if n.Parent != 0 {
		m.Uint32(unix.IFLA_LINK, uint32(n.Parent))
	}
	if n.MAC != nil {
		m.Attr(unix.IFLA_ADDRESS, n.MAC)
	}
	if n.MTU != 0 {
		m.Uint32(unix.IFLA_MTU, uint32(n.MTU))
	}
	m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, n.Kind)
	if n.Info != nil {
		m.Begin(unix.IFLA_INFO_DATA)
		n.Info(m)
		m.End()
	}
	return c.Do(m.End())
}

// found returns the new link as the kernel has it.
func (n New) found(p *nl.Pair, name string) (*nl.Link, error) {
	l, err := p.Sandbox.LinkByName(name)
	if err != nil {
		return nil, takeBack(err, p.Sandbox, nl.DelLinkName(name))
	}
	if n.MAC == nil || bytes.Equal(l.MAC, n.MAC) {
		return l, nil
	}
	// Some, such as a macvlan in mode passthru, are born with their parent's
	// address whatever is asked, and take another afterwards.
	m := nl.SetLink("set MAC address of "+name, l.Index).Attr(unix.IFLA_ADDRESS, n.MAC)
	if err := p.Sandbox.Do(m); err != nil {
		return nil, takeBack(err, p.Sandbox, nl.DelLinkIndex(name, l.Index))
	}
	l.MAC = n.MAC
	return l, nil
}

// createAside makes the link under a name that the host does not have, and
// renames it.
func (n New) createAside(p *nl.Pair) (*nl.Link, error) {
	aside := asideName(n.Key)
	if err := n.create(p, aside); err != nil {
		return nil, err
	}
	l, err := n.found(p, aside)
	if err != nil {
		return nil, err
	}
	m := nl.SetLink(fmt.Sprintf("rename %s to %s", aside, n.Key.IfName), l.Index).String(unix.IFLA_IFNAME, n.Key.IfName)
	err = p.Sandbox.Do(m)
	if err == nil {
		l.Name = n.Key.IfName
		return l, nil
	}
	if errors.Is(err, unix.EEXIST) {
		err = taken(n.Key.IfName)
	}
	return nil, takeBack(err, p.Sandbox, nl.DelLinkIndex(aside, l.Index))
}

// takeBack deletes the link that is of no use after err. Where that fails the
// attachment's record stays, by which Remove finds it.
func takeBack(err error, sandbox *nl.Conn, m *nl.Message) error {
	if derr := sandbox.Do(m); derr != nil {
		return errors.Join(err, &undo.Failed{What: m.What, Err: derr})
	}
	return err
}

// asideName is where Remove finds what an ADD left that was killed before the
// link had its name.
func asideName(k journal.Key) string {
	sum := sha2.Sum256([]byte(strings.Join([]string{"aside", k.Network, k.ContainerID, k.IfName}, "\x00")))
	return "new" + hex.EncodeToString(sum[:5])
}

// RequireFree refuses a sandbox that has an interface of the name, for links
// that are made or moved there in another way than by Create.
func RequireFree(sandbox *nl.Conn, name string) error {
	_, err := sandbox.LinkByName(name)
	if nl.NotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return taken(name)
}
