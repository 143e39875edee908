package tuning

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// detach answers DEL: it sets back what ADD set, this suite's by the record, the
// reference's by its file.
func detach(_ context.Context, c *plugin.Call, conf config) error {
	path := backupPath(conf.DataDir, c)
	theirs, exists, err := readBackup(path)
	recorded := c.Entry != nil && c.Entry.Found != journal.Nothing
	if err != nil && !recorded { // what the link was like is in the file, and will be read next time
		return cnierr.With(cnierr.IOFailure, err)
	}
	if !recorded && !exists {
		return nil
	}
	st := state{Before: theirs}
	if recorded {
		st = state{}
		if err := c.Entry.GetState(&st); err != nil {
			c.Note("tuning: record: %v", err)
		}
	}
	if err := setBack(c, st); err != nil {
		return err
	}
	return errors.Join(removeFile(path), removeFile(st.Backup))
}

func setBack(c *plugin.Call, st state) (err error) {
	if st.Before == (attributes{}) && len(st.Sysctls) == 0 {
		return nil
	}
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if p.Sandbox == nil {
		return nil
	}
	errs := []error{setBackLink(c, p, st)}
	for _, s := range st.sysctls() {
		errs = append(errs, tolerate(c, sysctl.Set(p.NS, p.Gate, s)))
	}
	return errors.Join(errs...)
}

func setBackLink(c *plugin.Call, p *nl.Pair, st state) error {
	if st.Before == (attributes{}) {
		return nil
	}
	l, err := p.Sandbox.LinkNamed(c.IfName)
	if nl.NotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Index != 0 && l.Index != st.Index {
		return nil // another link has the name now
	}
	if st.Index == 0 { // by the reference's file: nothing proves whose sandbox this is
		if other, err := link.IsOthers(p, c, l); other || err != nil {
			return err
		}
	}
	var errs []error
	for _, m := range st.Before.set(l) {
		m.Ignore = []unix.Errno{unix.ENODEV}
		errs = append(errs, tolerate(c, p.Sandbox.Do(m)))
	}
	return errors.Join(errs...)
}

// tolerate turns a refusal that will be the same next time into a note: a value
// that the kernel no longer takes must not keep a container from being removed.
func tolerate(c *plugin.Call, err error) error {
	for _, e := range []unix.Errno{
		unix.EINVAL, unix.ERANGE, unix.EOPNOTSUPP, unix.EADDRNOTAVAIL, unix.EROFS, unix.EPERM, unix.EACCES, unix.EBUSY,
	} {
		if errors.Is(err, e) {
			c.Note("%v", fmt.Errorf("tuning: left as it is: %w", err))
			return nil
		}
	}
	return err
}
