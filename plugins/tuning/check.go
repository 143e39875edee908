package tuning

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// check answers CHECK: what is configured must be as ADD made it. What is not
// configured may be anything.
func check(_ context.Context, c *plugin.Call, conf config) (err error) {
	if err := c.Chained(unchained); err != nil || !conf.changes() {
		return err
	}
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	var st state
	if c.Entry != nil {
		if err := c.Entry.GetState(&st); err != nil {
			return cnierr.With(cnierr.IOFailure, err)
		}
	}
	if err := checkSysctls(p.NS, conf.Sysctls, st.Sysctls); err != nil {
		return err
	}
	if conf.Link == (attributes{}) {
		return nil
	}
	l, err := p.Sandbox.LinkNamed(c.IfName)
	if nl.NotFound(err) {
		return cnierr.Check("Cannot find container link %s", c.IfName)
	}
	if err != nil {
		return err
	}
	return checkLink(l, conf.Link)
}

// checkSysctls compares with what the kernel made of each value when ADD wrote
// it; where no record tells, with the value itself.
func checkSysctls(ns *netns.NS, settings []setting, made []changed) error {
	for _, s := range settings {
		want := s.Value
		i := slices.IndexFunc(made, func(ch changed) bool { return ch.Key == s.Key && ch.Asked == s.Value })
		if i >= 0 {
			if made[i].Realized == nil {
				continue // it can only be written
			}
			want = *made[i].Realized
		}
		have, err := sysctl.Get(ns, s.Key)
		if errors.Is(err, fs.ErrNotExist) {
			return cnierr.Check("tuning: sysctl %s is gone", s.Name)
		}
		if err != nil {
			return err
		}
		if !sysctl.Equal(have, want) {
			return cnierr.Check("Error: Tuning configured value of %s is %s, current value is %s", s.Key, s.Value, have)
		}
	}
	return nil
}

func checkLink(l *nl.Link, want attributes) error {
	have := want.of(l)
	for _, d := range []struct {
		what       string
		want, have any
	}{
		{"Ethernet", want.MAC, have.MAC},
		{"promisc", want.Promisc == yes, have.Promisc == yes},
		{"MTU", want.MTU, have.MTU},
		{"all-multicast mode", want.AllMulti == yes, have.AllMulti == yes},
		{"Transmit Queue Length", want.TxQLen.Len, have.TxQLen.Len},
	} {
		if d.want != d.have {
			return cnierr.Check("Error: Tuning configured %s of %s is %v, current value is %v", d.what, l.Name, d.want, d.have)
		}
	}
	return nil
}
