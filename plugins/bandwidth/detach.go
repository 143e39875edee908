package bandwidth

import (
	"context"
	"errors"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// detach answers DEL: what this suite made by the record, what the reference
// made by its name. The sandbox is not needed.
func detach(_ context.Context, c *plugin.Call, _ config) (err error) {
	var st state
	recorded := c.Entry != nil && c.Entry.Found != journal.Nothing
	if recorded {
		if err := c.Entry.GetState(&st); err != nil {
			c.Note("bandwidth: record: %v", err)
		}
	}
	if !recorded && !perhaps(c, referenceIFB(c)) {
		return nil
	}
	p, err := nl.Open("", c.Gate)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if !recorded {
		return delIFB(p.Host, referenceIFB(c), alias(c))
	}
	if here, err := c.OnItsHost(p.Host); !here || err != nil {
		return err
	}
	err = delIFB(p.Host, st.IFB, alias(c))
	l, lerr := p.Host.LinkByName(st.Host)
	switch {
	case st.Host == "" || nl.NotFound(lerr):
		return err
	case lerr != nil:
		return errors.Join(err, lerr)
	case l.Index != st.Index:
		return err // another link has the name now
	}
	return errors.Join(err, p.Host.Do(st.unshape()...))
}

// delIFB deletes an ifb device. A link of another kind that has its name is not
// touched, nor is one whose alias says that it is another attachment's. The
// reference sets none, and this suite's has none as long as it is being made.
func delIFB(host *nl.Conn, name, alias string) error {
	if name == "" {
		return nil
	}
	l, err := host.LinkByName(name)
	if nl.NotFound(err) {
		return nil
	}
	if err != nil || l.Kind != "ifb" || l.Alias != "" && l.Alias != alias {
		return err
	}
	return host.Do(nl.DelLinkIndex(name, l.Index))
}

// perhaps reports whether the reference may have made the ifb device for this
// attachment. Its names are ambiguous ("ab" and "c" or "a" and "bc"); a
// prevResult that does not list it says that it is not.
func perhaps(c *plugin.Call, name string) bool {
	res, err := c.PrevResult()
	if err != nil || res == nil || len(res.Interfaces) == 0 {
		return true
	}
	return listed(res, name)
}

func listed(res *current.Result, name string) bool {
	for _, i := range res.Interfaces {
		if i.Name == name && i.Sandbox == "" {
			return true
		}
	}
	return false
}
