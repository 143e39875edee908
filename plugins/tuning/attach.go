package tuning

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sysctl"
	"github.com/netcleat/netcleat/pkg/undo"
)

// state is tuning's part of the record: how to set back what ADD set.
type state struct {
	Index   int        `json:"index,omitempty"` // of the link
	Before  attributes `json:"before"`
	Sysctls []changed  `json:"sysctls,omitempty"` // in the order they were set
	Backup  string     `json:"backup,omitempty"`  // the reference's file that ADD wrote
}

// changed is a sysctl that ADD set.
type changed struct {
	Key      string  `json:"key"`
	Before   *string `json:"before,omitempty"` // nil: the kernel does not tell
	Asked    string  `json:"asked"`
	Realized *string `json:"realized,omitempty"` // as the kernel tells it, which may be other units
}

// attach answers ADD.
func attach(_ context.Context, c *plugin.Call, conf config) (*current.Result, error) {
	return attachWith(allowlist, c, conf)
}

func attachWith(allowlist string, c *plugin.Call, conf config) (*current.Result, error) {
	if err := c.Chained(unchained); err != nil {
		return nil, err
	}
	if !conf.changes() {
		return nil, nil
	}
	if err := allow(allowlist, conf.Sysctls); err != nil {
		return nil, err
	}
	return tune(c, conf)
}

func tune(c *plugin.Call, conf config) (_ *current.Result, err error) {
	p, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := refuseHost(p.NS.ID, conf.Sysctls); err != nil {
		return nil, err
	}
	var steps undo.Stack
	defer steps.OnError(&err)

	var st state
	if err := c.Entry.GetState(&st); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	now, link, err := observe(p, c.IfName, conf)
	if err != nil {
		return nil, err
	}
	now.Backup = backupPath(conf.DataDir, c)
	if err := st.remember(c, conf, now); err != nil {
		return nil, err
	}
	keepBackup(c, st, &steps)

	steps.Push("set back sysctls", func() error { return sysctl.Set(p.NS, p.Gate, now.sysctls()...) })
	if err := sysctl.Set(p.NS, p.Gate, wanted(conf.Sysctls)...); err != nil {
		return nil, refused(err)
	}
	if link != nil {
		steps.Push("set back "+link.Name, func() error { return p.Sandbox.Do(now.Before.set(link)...) })
		if err := p.Sandbox.Do(conf.Link.set(link)...); err != nil {
			return nil, err
		}
	}
	if err := st.realize(p.NS, conf.Sysctls); err != nil {
		return nil, err
	}
	if err := c.Entry.SetState(st); err != nil {
		return nil, err
	}
	return result(c, conf.Link)
}

// refuseHost refuses to set sysctls where the sandbox is the host, whatever
// CNI_NETNS_OVERRIDE says (GHSA-w2j5-3rcx-vx7x): the plugin's own namespace, or
// that of the first process where it may be looked at.
func refuseHost(sandbox netns.ID, settings []setting) error {
	if len(settings) == 0 {
		return nil
	}
	for _, path := range []string{netns.Own, "/proc/1/ns/net"} {
		if id, err := netns.Identify(path); err == nil && id.Same(sandbox) {
			return cnierr.Netns(errors.New("sysctl: the sandbox is the host's namespace"))
		}
	}
	return nil
}

// observe returns what the call is about to change, as it is now.
func observe(p *nl.Pair, ifName string, conf config) (now state, l *nl.Link, err error) {
	keys := make([]string, 0, len(conf.Sysctls))
	for _, s := range conf.Sysctls {
		keys = append(keys, s.Key)
	}
	if len(keys) > 0 {
		values, err := sysctl.Values(p.NS, keys...)
		if errors.Is(err, fs.ErrNotExist) {
			err = cnierr.With(cnierr.UnsupportedField, err)
		}
		if err != nil {
			return now, nil, err
		}
		for _, k := range keys {
			ch := changed{Key: k}
			if v, ok := values[k]; ok {
				ch.Before = &v
			}
			now.Sysctls = append(now.Sysctls, ch)
		}
	}
	if conf.Link == (attributes{}) {
		return now, nil, nil
	}
	if l, err = p.Sandbox.LinkByName(ifName); err != nil {
		return now, nil, fmt.Errorf("failed to get %q: %w", ifName, err)
	}
	now.Index, now.Before = l.Index, conf.Link.of(l)
	return now, l, nil
}

// remember adds what is now to what an earlier ADD of the attachment found, and
// writes the record: from here on DEL can set everything back.
func (st *state) remember(c *plugin.Call, conf config, now state) error {
	before := now.Before
	if st.Backup == "" && conf.Link != (attributes{}) {
		theirs, exists, err := readBackup(now.Backup)
		if err != nil {
			c.Note("tuning: backup: %v", err)
		}
		if exists {
			// The reference attached this: where the link has what is configured,
			// its file knows better what was before.
			before = theirs.where(conf.Link, now.Before).or(before)
		} else {
			st.Backup = now.Backup
		}
	}
	st.Index = max(st.Index, now.Index)
	st.Before = st.Before.or(before)
	for _, ch := range now.Sysctls {
		if !slices.ContainsFunc(st.Sysctls, func(o changed) bool { return o.Key == ch.Key }) {
			st.Sysctls = append(st.Sysctls, ch)
		}
	}
	if err := c.Entry.SetState(st); err != nil {
		return err
	}
	return cnierr.With(cnierr.IOFailure, c.Entry.Begin())
}

// where keeps of a what has want's value now.
func (a attributes) where(want, now attributes) attributes {
	if now.MAC != want.MAC {
		a.MAC = ""
	}
	if now.Promisc != want.Promisc {
		a.Promisc = open
	}
	if now.MTU != want.MTU {
		a.MTU = 0
	}
	if now.AllMulti != want.AllMulti {
		a.AllMulti = open
	}
	if now.TxQLen != want.TxQLen {
		a.TxQLen = queue{}
	}
	return a
}

// keepBackup writes the reference's file. It is for changing over to the
// reference only, so that it cannot be written is a note.
func keepBackup(c *plugin.Call, st state, steps *undo.Stack) {
	if st.Backup == "" || st.Before == (attributes{}) {
		return
	}
	old, existed, err := readBackup(st.Backup)
	if err == nil && old == st.Before {
		return
	}
	if err == nil {
		err = writeBackup(st.Backup, st.Before)
	}
	if err != nil {
		c.Note("tuning: backup for the reference: %v", err)
		return
	}
	steps.Push("restore "+st.Backup, func() error {
		if existed {
			return writeBackup(st.Backup, old)
		}
		return removeFile(st.Backup)
	})
}

// wanted returns the settings that ADD makes.
func wanted(settings []setting) []sysctl.Setting {
	all := make([]sysctl.Setting, 0, len(settings))
	for _, s := range settings {
		all = append(all, sysctl.Setting{Key: s.Key, Value: s.Value})
	}
	return all
}

// sysctls returns the settings that take ADD's back, newest first. What belonged
// to a link that is gone, is gone with it.
func (st state) sysctls() []sysctl.Setting {
	var all []sysctl.Setting
	for _, ch := range slices.Backward(st.Sysctls) {
		if ch.Before != nil {
			all = append(all, sysctl.Setting{Key: ch.Key, Value: *ch.Before, IfExists: true})
		}
	}
	return all
}

// refused gives the kernel's refusal of a value its code.
func refused(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) {
		return cnierr.With(cnierr.InvalidConfig, err)
	}
	return err
}

// realize notes what the kernel made of the values.
func (st *state) realize(ns *netns.NS, settings []setting) error {
	for _, s := range settings {
		i := slices.IndexFunc(st.Sysctls, func(ch changed) bool { return ch.Key == s.Key })
		ch := &st.Sysctls[i]
		ch.Asked, ch.Realized = s.Value, nil
		if ch.Before == nil {
			continue
		}
		v, err := sysctl.Get(ns, s.Key)
		if err != nil {
			return err
		}
		ch.Realized = &v
	}
	return nil
}

// result is prevResult with the interface's new attributes, or nil where it
// stays as it is.
func result(c *plugin.Call, a attributes) (*current.Result, error) {
	if a.MAC == "" && a.MTU == 0 {
		return nil, nil
	}
	res, err := c.PrevResult()
	if err != nil {
		return nil, err
	}
	for _, i := range res.Interfaces {
		if i.Name != c.IfName || i.Sandbox == "" {
			continue
		}
		if a.MAC != "" {
			i.Mac = a.MAC
		}
		if a.MTU != 0 {
			i.Mtu = a.MTU
		}
	}
	return res, nil
}
