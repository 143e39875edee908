package bandwidth

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sha2"
	"github.com/netcleat/netcleat/pkg/undo"
)

// state is the plugin's part of the record: the limits as they were realized.
type state struct {
	Host    string   `json:"host"` // the host's end of the veth pair
	Index   int      `json:"index"`
	IFB     string   `json:"ifb,omitempty"`
	Ingress *limit   `json:"ingress,omitempty"`
	Egress  *limit   `json:"egress,omitempty"`
	Subnets *subnets `json:"subnets,omitempty"`
}

// attach answers ADD.
func attach(_ context.Context, c *plugin.Call, conf config) (*current.Result, error) {
	if err := c.Chained(unchained); err != nil || !conf.limits() {
		return nil, err
	}
	p, err := c.Open()
	if err != nil {
		return nil, err
	}
	res, err := shape(p, c, conf)
	return res, errors.Join(err, p.Close())
}

const unchained = "must be called as chained plugin"

func shape(p *nl.Pair, c *plugin.Call, conf config) (_ *current.Result, err error) {
	var steps undo.Stack
	defer steps.OnError(&err)

	host, err := hostEnd(p, c.IfName)
	if err != nil {
		return nil, err
	}
	if err := vacant(p.Host, host, conf); err != nil {
		return nil, err
	}
	st := plan(c, conf, host)
	if st.Egress != nil {
		if st.IFB, err = chooseIFB(p.Host, c); err != nil {
			return nil, err
		}
	}
	if err := remember(c, st); err != nil {
		return nil, err
	}
	steps.Push("take the limits off "+host.Name, func() error { return p.Host.Do(st.unshape()...) })
	var batch []*nl.Message
	if st.Ingress != nil {
		batch = shaper{*st.Ingress, conf.Subnets, true}.add(host.Name, host.Index)
	}
	if st.Egress == nil {
		return nil, p.Host.Do(batch...)
	}
	ifb, err := createIFB(p.Host, st.IFB, host.MTU, alias(c))
	if cnierr.Code(err) == cnierr.AlreadyAttached && st.IFB != ifbName(c) {
		// Another attachment has taken the name meanwhile.
		st.IFB = ifbName(c)
		if err := remember(c, st); err != nil {
			return nil, err
		}
		ifb, err = createIFB(p.Host, st.IFB, host.MTU, alias(c))
	}
	if err != nil {
		return nil, err
	}
	steps.Push("delete "+ifb.Name, func() error { return p.Host.Do(nl.DelLinkIndex(ifb.Name, ifb.Index)) })
	batch = append(batch, shaper{*st.Egress, conf.Subnets, false}.add(ifb.Name, ifb.Index)...)
	batch = append(batch, redirect(host.Name, host.Index, ifb.Index)...)
	if err := p.Host.Do(batch...); err != nil {
		return nil, err
	}
	res, err := c.PrevResult()
	if err != nil {
		return nil, err
	}
	res.Interfaces = append(res.Interfaces, &current.Interface{Name: ifb.Name, Mac: ifb.MAC.String(), Mtu: ifb.MTU})
	return res, nil
}

// hostEnd finds the host's end of the veth pair. Both ends must name each other:
// an index alone may be that of a link in a third namespace.
func hostEnd(p *nl.Pair, ifName string) (*nl.Link, error) {
	l, err := p.Sandbox.LinkByName(ifName)
	if err != nil {
		return nil, err
	}
	if l.Kind != "veth" || l.Parent == 0 {
		return nil, cnierr.Newf(cnierr.UnsupportedField, "container interface %s has no veth peer: it is %s, and only a veth pair can be limited", ifName, kindOf(l))
	}
	host, err := p.Host.LinkByIndex(l.Parent)
	if err != nil && !nl.NotFound(err) {
		return nil, err
	}
	if err != nil || host.Kind != "veth" || host.Parent != l.Index {
		return nil, cnierr.Newf(cnierr.UnsupportedField, "no veth peer of container interface found in host ns: the other end of %s has index %d elsewhere", ifName, l.Parent)
	}
	return host, nil
}

func kindOf(l *nl.Link) string {
	return "of kind " + cmp.Or(l.Kind, "device")
}

// vacant refuses a link that has a queueing discipline of somebody's in the
// place of one that would be added.
func vacant(host *nl.Conn, l *nl.Link, conf config) error {
	if conf.Ingress != nil {
		if err := none(host, l, nl.TCRoot); err != nil {
			return err
		}
	}
	if conf.Egress != nil {
		return none(host, l, nl.TCIngress)
	}
	return nil
}

func none(host *nl.Conn, l *nl.Link, place nl.TCHandle) error {
	q, err := host.QdiscAt(l.Index, place)
	switch {
	case nl.NotFound(err):
		return nil
	case err != nil:
		return err
	case q.Handle == 0: // the kernel's default
		return nil
	}
	return cnierr.Newf(cnierr.AlreadyAttached, "%s has a qdisc already, which exists for another use: %s %x:", l.Name, q.Kind, uint32(q.Handle)>>16)
}

// plan settles what will be made. A burst smaller than a packet would let
// nothing pass.
func plan(c *plugin.Call, conf config, host *nl.Link) state {
	const header = 14 // of Ethernet
	st := state{Host: host.Name, Index: host.Index, Ingress: conf.Ingress, Egress: conf.Egress}
	if len(conf.Subnets.List) > 0 {
		st.Subnets = &conf.Subnets
	}
	for _, l := range []*limit{st.Ingress, st.Egress} {
		if packet := uint32(host.MTU + header); l != nil && l.Burst < packet {
			c.Note("bandwidth: a burst of %d bytes lets no packet pass: raised to %d", l.Burst, packet)
			l.Burst = packet
		}
	}
	return st
}

// remember writes the record, before what it speaks of is made.
func remember(c *plugin.Call, st state) error {
	if err := c.Entry.SetState(st); err != nil {
		return err
	}
	return cnierr.With(cnierr.IOFailure, c.Entry.Begin())
}

// chooseIFB returns the name for the ifb device: the reference's, so that it can
// remove what this suite made, unless another attachment has it. It is the same
// for network "ab" and container "c" as for "a" and "bc", and for all interfaces
// of a container on a network.
func chooseIFB(host *nl.Conn, c *plugin.Call) (string, error) {
	name := referenceIFB(c)
	l, err := host.LinkByName(name)
	switch {
	case nl.NotFound(err):
		return name, nil
	case err != nil:
		return "", err
	case l.Alias == alias(c):
		return name, nil
	}
	return ifbName(c), nil
}

// ifbName returns the name that no other attachment's ifb device has. Its form is
// the reference's; what is hashed has separators, and the interface's name.
func ifbName(c *plugin.Call) string {
	return hashedName(strings.Join([]string{c.Conf.Name, c.ContainerID, c.IfName}, "\x00"))
}

// referenceIFB returns the name that the reference gives the ifb device.
func referenceIFB(c *plugin.Call) string { return hashedName(c.Conf.Name + c.ContainerID) }

func hashedName(s string) string {
	sum := sha2.Sum512([]byte(s))
	return "bwp" + hex.EncodeToString(sum[:6])
}

// alias says in words whose the ifb device is.
func alias(c *plugin.Call) string { return aliasOf(c.Key("")) }

func aliasOf(k journal.Key) string {
	const limit = 255
	return journal.Cut("netcleat "+k.Network+" "+k.ContainerID+" "+k.IfName, limit)
}

// createIFB makes the device. One that is this attachment's by its alias stayed
// when its record was lost, and is replaced.
func createIFB(host *nl.Conn, name string, mtu int, alias string) (*nl.Link, error) {
	create := nl.NewLink("ifb", name, unix.IFF_UP).Uint32(unix.IFLA_MTU, uint32(mtu)).Uint32(unix.IFLA_TXQLEN, 0)
	create.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "ifb").End()
	err := host.Do(create)
	if errors.Is(err, unix.EEXIST) {
		old, lerr := host.LinkByName(name)
		if lerr != nil || old.Kind != "ifb" || old.Alias != alias {
			return nil, cnierr.With(cnierr.AlreadyAttached, fmt.Errorf("%w: it is not this attachment's", err))
		}
		err = host.Do(nl.DelLinkIndex(name, old.Index), create)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, cnierr.With(cnierr.UnsupportedField, fmt.Errorf("%w: the kernel lacks ifb, which egress limits need", err))
	}
	if err != nil {
		return nil, err
	}
	// As bytes: the kernel's limit leaves no room for a final zero.
	err = host.Do(nl.SetLinkByName("name the owner of "+name, name).Attr(unix.IFLA_IFALIAS, []byte(alias)))
	var l *nl.Link
	if err == nil {
		l, err = host.LinkByName(name)
	}
	if err != nil {
		return nil, errors.Join(err, host.Do(nl.DelLinkName(name)))
	}
	return l, nil
}
