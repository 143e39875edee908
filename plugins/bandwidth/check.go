package bandwidth

import (
	"bytes"
	"context"
	"errors"
	"math"

	codec "github.com/vishvananda/netlink/nl"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// check answers CHECK: the limits are in force on the host's end and on the ifb
// device, and everything that the container sends goes there.
func check(_ context.Context, c *plugin.Call, conf config) (err error) {
	if err := c.Chained(unchained); err != nil || !conf.limits() {
		return err
	}
	st, err := expected(c, conf)
	if err != nil {
		return err
	}
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	host, err := hostEnd(p, c.IfName)
	if nl.NotFound(err) {
		return cnierr.Check("interface %s is missing", c.IfName)
	}
	if err != nil {
		return err
	}
	return st.check(p.Host, host)
}

// check compares what limits the host's end.
func (st state) check(c *nl.Conn, host *nl.Link) error {
	if st.Ingress != nil {
		if err := (shaper{*st.Ingress, st.list(), true}).check(c, host); err != nil {
			return err
		}
	}
	if st.Egress == nil {
		return nil
	}
	ifb, err := c.LinkByName(st.IFB)
	if nl.NotFound(err) || err == nil && !ifb.Up() {
		return cnierr.Check("ifb device %s is missing or down", st.IFB)
	}
	if err != nil {
		return err
	}
	if err := redirected(c, host, ifb); err != nil {
		return err
	}
	return shaper{*st.Egress, st.list(), false}.check(c, ifb)
}

func (st state) list() subnets {
	if st.Subnets == nil {
		return subnets{}
	}
	return *st.Subnets
}

// expected is what ADD made: by the record, or where the reference attached, by
// the configuration.
func expected(c *plugin.Call, conf config) (st state, err error) {
	if c.Entry != nil {
		return st, cnierr.With(cnierr.IOFailure, c.Entry.GetState(&st))
	}
	st = state{Ingress: conf.Ingress, Egress: conf.Egress, IFB: referenceIFB(c)}
	if len(conf.Subnets.List) > 0 {
		st.Subnets = &conf.Subnets
	}
	return st, nil
}

func (s shaper) check(host *nl.Conn, l *nl.Link) error {
	want := "tbf"
	if len(s.Subnets.List) > 0 {
		want = "htb"
	}
	q, err := host.QdiscAt(l.Index, nl.TCRoot)
	if nl.NotFound(err) {
		return cnierr.Check("Failed to find qdisc: %s has no %s", l.Name, want)
	}
	if err != nil {
		return err
	}
	if q.Kind != want {
		return cnierr.Check("Failed to find qdisc: the root qdisc of %s is %s, not %s", l.Name, q.Kind, want)
	}
	if want == "htb" {
		return s.checkHTB(host, l, q)
	}
	return s.checkTBF(l, q)
}

func (s shaper) checkTBF(l *nl.Link, q *nl.TC) error {
	p := attr(q.Options, codec.TCA_TBF_PARMS)
	if len(p) < codec.SizeofTcTbfQopt {
		return cnierr.Check("%s: tbf without parameters", l.Name)
	}
	opt := codec.DeserializeTcTbfQopt(p)
	switch ticks, exact := s.Limit.ticks(); {
	case rateOf(opt.Rate, attr(q.Options, codec.TCA_TBF_RATE64)) != s.Limit.Rate:
		return cnierr.Check("%s: Rate doesn't match", l.Name)
	case opt.Limit != s.Limit.queue():
		return cnierr.Check("%s: Limit doesn't match", l.Name)
	case exact && opt.Buffer != ticks:
		return cnierr.Check("%s: Buffer doesn't match", l.Name)
	}
	return nil
}

func (s shaper) checkHTB(host *nl.Conn, l *nl.Link, q *nl.TC) error {
	if g := attr(q.Options, codec.TCA_HTB_INIT); len(g) < codec.SizeofTcHtbGlob || codec.DeserializeTcHtbGlob(g).Defcls != s.defaultMinor() {
		return cnierr.Check("%s: Default class does not match", l.Name)
	}
	class, err := host.ClassOf(l.Index, shapedClass)
	if nl.NotFound(err) {
		return cnierr.Check("%s: the class of limited traffic is missing", l.Name)
	}
	if err != nil {
		return err
	}
	p := attr(class.Options, codec.TCA_HTB_PARMS)
	if len(p) < codec.SizeofTcHtbCopt {
		return cnierr.Check("%s: class without parameters", l.Name)
	}
	opt := codec.DeserializeTcHtbCopt(p)
	if rateOf(opt.Rate, attr(class.Options, codec.TCA_HTB_RATE64)) != s.Limit.Rate {
		return cnierr.Check("%s: Rate does not match for the default class", l.Name)
	}
	if diff := int64(opt.Buffer) - int64(s.classTicks()); diff < -1 || diff > 1 {
		return cnierr.Check("%s: Burst buffer size does not match", l.Name)
	}
	filters, err := host.Filters(l.Index, rootHandle)
	if err != nil {
		return err
	}
	for _, subnet := range s.Subnets.List {
		if want := selector(s.keys(subnet)); !anySelects(filters, want) {
			return cnierr.Check("%s: the filter for %s is missing", l.Name, subnet)
		}
	}
	return nil
}

// anySelects reports whether a filter compares what the selector want does. The
// kernel fills in fields of its own before the keys.
func anySelects(filters []*nl.TC, want []byte) bool {
	for _, f := range filters {
		if have := attr(f.Options, codec.TCA_U32_SEL); len(have) == len(want) && bytes.Equal(nl.After(have, codec.SizeofTcU32Sel), nl.After(want, codec.SizeofTcU32Sel)) {
			return true
		}
	}
	return false
}

// redirected requires the filter that sends what arrives at the host's end to
// the ifb device.
func redirected(host *nl.Conn, l, ifb *nl.Link) error {
	filters, err := host.Filters(l.Index, ingressHandle)
	if err != nil && !nl.NotFound(err) {
		return err
	}
	for _, f := range filters {
		if mirrors(f, ifb.Index) {
			return nil
		}
	}
	return cnierr.Check("what arrives at %s is not redirected to %s", l.Name, ifb.Name)
}

func mirrors(f *nl.TC, index int) (yes bool) {
	const indexAt = 24 // in struct tc_mirred, of which the library has another idea
	nl.Attrs(attr(f.Options, codec.TCA_U32_ACT), func(_ uint16, action []byte) {
		p := attr(attr(action, codec.TCA_ACT_OPTIONS), codec.TCA_MIRRED_PARMS)
		yes = yes || nl.Uint32(nl.After(p, indexAt)) == uint32(index)
	})
	return yes
}

// rateOf reads a rate; one that does not fit its field is in rate64.
func rateOf(r codec.TcRateSpec, rate64 []byte) uint64 {
	if r.Rate != math.MaxUint32 || len(rate64) < 8 {
		return uint64(r.Rate)
	}
	return nl.Uint64(rate64)
}

// attr returns the first attribute of that type, or nil.
func attr(b []byte, typ uint16) (found []byte) {
	nl.Attrs(b, func(t uint16, d []byte) {
		if t == typ && found == nil {
			found = d
		}
	})
	return found
}
