package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
)

// gc removes the network's attachments that are not valid: those with a record
// by Del, then whatever else the plugin finds.
func (s Spec[C]) gc(ctx context.Context, c *Call, conf C) error {
	list, known, err := c.Conf.valid()
	if err != nil {
		return err
	}
	if !known {
		c.Note("%s: GC without cni.dev/valid-attachments: nothing removed", s.Name)
		return nil
	}
	c.valid = list
	var errs []error
	if s.HasRecord != nil {
		errs = append(errs, s.gcRecords(ctx, c, conf))
	}
	return errors.Join(append(errs, call(s.GC, ctx, c, conf))...)
}

// gcRecords is DEL of each attachment that has a record and is not valid, also
// where the record cannot be read: then its file's name says whose it is.
func (s Spec[C]) gcRecords(ctx context.Context, c *Call, conf C) error {
	records, err := c.Journal.Readable(c.Conf.Name)
	errs := []error{err}
	bad, _ := c.Journal.Bad(c.Conf.Name) // err says it already
	for _, b := range bad {
		c.Note("%v (skipped)", b.Err)
		if b.Damaged() && isIdentifier(b.Key.ContainerID) { // not cut
			records = append(records, journal.Record{Key: b.Key})
		}
	}
	valid := make(map[Attachment]bool, len(c.valid))
	for _, a := range c.valid {
		valid[a] = true
	}
	isValid := func(k journal.Key) bool {
		return valid[Attachment{ContainerID: k.ContainerID, IfName: asJSON(k.IfName)}]
	}
	for _, r := range records {
		if r.Plugin != s.Name || r.Network != c.Conf.Name || isValid(r.Key) {
			continue
		}
		if left, err := ofAnotherHost(c, r); left || err != nil {
			errs = append(errs, err)
			continue
		}
		d := *c
		d.Verb, d.ContainerID, d.IfName, d.Netns, d.Args = Del, r.ContainerID, r.IfName, r.Netns, r.Args
		if err := s.gcOne(ctx, &d, conf); err != nil {
			errs = append(errs, fmt.Errorf("container %q interface %q: %w", r.ContainerID, r.IfName, err))
		}
	}
	return errors.Join(append(errs, c.Journal.Sweep(c.Conf.Name, func(string) bool { return true }))...)
}

// ofAnotherHost reports whether the attachment was made from another network
// namespace, which may still exist: whoever made the list of valid attachments
// knows those of this host.
func ofAnotherHost(c *Call, r journal.Record) (left bool, err error) {
	own, err := netns.Identify(netns.Own)
	if err != nil || r.HostID.Ino == 0 || own.Same(r.HostID) || boot.Earlier(r.Boot) {
		return false, err
	}
	j, err := evidence.New()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if j.Removable([]journal.Record{r}) {
		return false, nil
	}
	c.Note("container %q interface %q: left: it was attached from another network namespace, net:[%d], which may still exist (%s)",
		r.ContainerID, r.IfName, r.HostID.Ino, evidence.Forget(r.Network, r.ContainerID))
	return true, nil
}

// gcOne is DEL of an attachment that is not valid. One that an operation is
// working on right now is left to it.
func (s Spec[C]) gcOne(ctx context.Context, c *Call, conf C) error {
	soon, cancel := context.WithTimeout(ctx, 0)
	defer cancel()
	e, err := c.Journal.Open(soon, c.Key(s.Name))
	if errors.Is(err, journal.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	if e.Found == journal.Nothing && !e.Damaged {
		return e.Close() // its DEL came first
	}
	c.Entry = e
	if err = c.lookAtSandbox(); err == nil {
		err = s.detach(ctx, c, conf)
	}
	if err == nil {
		err = e.Remove()
	}
	return errors.Join(err, e.Close())
}
