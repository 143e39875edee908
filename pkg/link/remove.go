package link

import (
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Remove removes the sandbox's link of the call's attachment, for DEL. None is
// success. A link is removed only where it is provably the attachment's: by the
// record, or where there is none, such as of one that the reference made, as long as
// nothing says that it is another's.
func Remove(p *nl.Pair, c *plugin.Call, kind string) error {
	if p.Sandbox == nil {
		return nil // the link went with it
	}
	l, err := owned(p, c, kind)
	if l == nil || err != nil {
		return err
	}
	return p.Sandbox.Do(nl.DelLinkIndex(l.Name, l.Index))
}

// owned returns the attachment's link, or nil where there is none.
func owned(p *nl.Pair, c *plugin.Call, kind string) (*nl.Link, error) {
	if e := c.Entry; e != nil && (e.Found != journal.Nothing || len(e.Links) > 0) {
		return recorded(p, e, kind)
	}
	l, err := lookUp(p.Sandbox.LinkNamed(c.IfName))
	if l == nil || err != nil {
		return nil, err
	}
	if l.Kind != kind {
		return nil, nil
	}
	if other, err := IsOthers(p, c, l); other || err != nil {
		return nil, err
	}
	return l, nil
}

// recorded returns the link of which the record speaks. That the sandbox is the
// recorded one, Call.Open has seen to.
func recorded(p *nl.Pair, e *journal.Entry, kind string) (*nl.Link, error) {
	for _, r := range e.Links {
		switch {
		case !r.Sandbox:
		case r.Index != 0:
			return byIndex(p.Sandbox, e, r, kind)
		default:
			return byName(p.Sandbox, e, r, kind)
		}
	}
	return nil, nil
}

// byIndex finds the link of a finished ADD, whatever its name is now. No index
// is given twice in a namespace. But before the kernel had cookies the namespace
// may be another one with the same number: then the MAC address must agree.
func byIndex(c *nl.Conn, e *journal.Entry, r journal.Link, kind string) (*nl.Link, error) {
	l, err := lookUp(c.LinkByIndex(r.Index))
	if l == nil || err != nil || l.Kind != kind {
		return nil, err
	}
	if e.NetnsID.Cookie == 0 && r.MAC != l.MAC.String() {
		return nil, nil
	}
	return l, nil
}

// byName finds the link of an ADD that was killed while it made it.
func byName(c *nl.Conn, e *journal.Entry, r journal.Link, kind string) (*nl.Link, error) {
	for _, name := range []string{r.Name, asideName(e.Key)} {
		l, err := lookUp(c.LinkByName(name))
		if err != nil {
			return nil, err
		}
		if l != nil && l.Kind == kind && l.MAC.String() == r.MAC {
			return l, nil
		}
	}
	return nil, nil
}

func lookUp(l *nl.Link, err error) (*nl.Link, error) {
	if nl.NotFound(err) {
		return nil, nil
	}
	return l, err
}
