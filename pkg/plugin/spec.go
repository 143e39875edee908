package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/undo"
)

// Spec is one plugin. C is its configuration. A verb without a function is a
// success that does nothing.
type Spec[C any] struct {
	// Name is the plugin's, and its binary's.
	Name string
	// Since is the oldest version of the specification that it speaks; "" is all.
	Since string
	// Role is where it stands in a network.
	Role Role
	// Parse reads the configuration. It must not look at the host. On an error
	// it returns what it could read: DEL and GC go on with that.
	Parse func(*Call) (C, error)
	// HasRecord says whether an attachment with this configuration has a record in
	// the journal: whether ADD makes something that DEL must find again without
	// the runtime's help. nil is never. Call.Entry is that record.
	HasRecord func(C) bool
	// AllowRepeat lets an ADD of a live attachment through, for a plugin that may be
	// in one list more than once. Add then finds the record as the first left it
	// (Call.Entry.Found is journal.Done), and begins it anew with what it adds.
	AllowRepeat bool
	// Add attaches. It undoes what it did where it fails. A nil result passes
	// prevResult on as it came.
	Add func(context.Context, *Call, C) (*current.Result, error)
	// Del detaches: everything that is there, whatever is missing.
	Del func(context.Context, *Call, C) error
	// Check compares the kernel with what ADD made. It changes nothing.
	Check func(context.Context, *Call, C) error
	// AddIn, DelIn and CheckIn take the place of Add, Del and Check where the plugin
	// works in the sandbox: host and sandbox are open while they run. DEL may have no
	// sandbox.
	AddIn   func(context.Context, *Call, *nl.Pair, C) (*current.Result, error)
	DelIn   func(context.Context, *Call, *nl.Pair, C) error
	CheckIn func(context.Context, *Call, *nl.Pair, C) error
	// Status says whether an ADD could work.
	Status func(context.Context, *Call, C) error
	// GC removes what belongs to the network and to none of Call.ValidAttachments;
	// attachments that are not valid and have a record were removed by Del before.
	GC func(context.Context, *Call, C) error
	// Restore makes what is missing of the rules that a record speaks of; nil where
	// the plugin makes none.
	Restore func(context.Context, gate.Gate, journal.Dir, journal.Record) error
}

// Role is where a plugin stands in a network.
type Role int

// The roles.
const (
	Interface Role = iota // makes the sandbox's interface
	Chained               // works on the interface that one before it made
	IPAM                  // hands out addresses
)

// About is what can be known of a plugin without calling it.
type About struct {
	Role    Role
	Since   string
	Parse   func(*Call) error
	Restore func(context.Context, gate.Gate, journal.Dir, journal.Record) error
}

// About describes the plugin.
func (s Spec[C]) About() About {
	return About{s.Role, s.Since, func(c *Call) error {
		_, err := s.Parse(c)
		return err
	}, s.Restore}
}

// Plugin is a Spec of any configuration.
type Plugin interface {
	About() About
	versions() []string
	do(context.Context, *Call) (*current.Result, error)
	revert(context.Context, *Call) error
}

// Table holds the plugins by name.
type Table map[string]Plugin

// lockWait bounds how long a call waits for another on the same attachment.
const lockWait = 60 * time.Second

func (s Spec[C]) versions() []string { return since(s.Since) }

// do answers one verb.
func (s Spec[C]) do(ctx context.Context, c *Call) (*current.Result, error) {
	conf, err := s.Parse(c)
	if err != nil && !c.Removing() {
		return nil, err
	}
	if err != nil {
		c.Note("%s: %v (ignored: %s needs it not)", s.Name, err, c.Verb)
	}
	switch c.Verb {
	case Add:
		return s.add(ctx, c, conf)
	case Del:
		return nil, s.del(ctx, c, conf)
	case Check:
		return nil, s.check(ctx, c, conf)
	case Status:
		return nil, call(s.Status, ctx, c, conf)
	case GC:
		return nil, s.gc(ctx, c, conf)
	}
	return nil, cnierr.Env("unknown CNI_COMMAND: %s", c.Verb)
}

// attach is ADD itself.
func (s Spec[C]) attach(ctx context.Context, c *Call, conf C) (res *current.Result, err error) {
	if s.AddIn == nil {
		return s.Add(ctx, c, conf)
	}
	err = c.in(func(p *nl.Pair) error {
		res, err = s.AddIn(ctx, c, p, conf)
		return err
	})
	return res, err
}

// detach is DEL itself.
func (s Spec[C]) detach(ctx context.Context, c *Call, conf C) error {
	if s.DelIn == nil {
		return call(s.Del, ctx, c, conf)
	}
	return c.in(func(p *nl.Pair) error { return s.DelIn(ctx, c, p, conf) })
}

func call[C any](fn func(context.Context, *Call, C) error, ctx context.Context, c *Call, conf C) error {
	if fn == nil {
		return nil
	}
	return fn(ctx, c, conf)
}

// add runs ADD with a pending record around it. The record becomes done when
// the result has been written (see finish).
func (s Spec[C]) add(ctx context.Context, c *Call, conf C) (*current.Result, error) {
	if s.HasRecord == nil || !s.HasRecord(conf) {
		return s.attach(ctx, c, conf)
	}
	if err := s.begin(ctx, c, conf); err != nil {
		return nil, err
	}
	res, err := s.attach(ctx, c, conf)
	if err != nil {
		return nil, errors.Join(err, s.abort(c, err))
	}
	return res, nil
}

// begin opens the attachment's record, refuses one that lives, takes back what
// a killed ADD left, and writes the record as pending.
func (s Spec[C]) begin(ctx context.Context, c *Call, conf C) error {
	if err := s.open(ctx, c); err != nil {
		return err
	}
	if err := s.renew(ctx, c, conf); err != nil {
		return errors.Join(err, s.close(c))
	}
	return nil
}

func (s Spec[C]) renew(ctx context.Context, c *Call, conf C) error {
	e := c.Entry
	if e.Found == journal.Done {
		switch v, err := judge(e.Record, c.Netns); {
		case err != nil:
			return err
		case v.State == evidence.Alive && s.AllowRepeat && here(e.Record, c.Netns):
			return nil
		case v.State == evidence.Alive:
			return cnierr.Newf(cnierr.AlreadyAttached, "container %q interface %q on network %q already exists: attached since %s", c.ContainerID, c.IfName, c.Conf.Name, e.Created.Format(time.RFC3339))
		case v.State == evidence.Unknown:
			return cnierr.Newf(cnierr.AlreadyAttached, "container %q interface %q on network %q may already exist: attached since %s, and nothing proves that its sandbox has ended: %s (%s)",
				c.ContainerID, c.IfName, c.Conf.Name, e.Created.Format(time.RFC3339), v.Why, evidence.Forget(c.Conf.Name, c.ContainerID))
		}
	}
	if e.Found != journal.Nothing {
		if err := s.takeBack(ctx, c, conf); err != nil {
			return fmt.Errorf("remains of an earlier ADD: %w", err)
		}
	}
	sandbox, host, err := c.identities()
	if err != nil {
		return err
	}
	e.Found = journal.Nothing
	e.Record = journal.Record{
		Key: c.Key(s.Name), Netns: c.Netns, NetnsID: sandbox, HostID: host, Boot: boot.ID(), Created: time.Now().UTC(), Args: bounded(c.Args), Config: kept[C](c.withoutPrevResult()),
	}
	return cnierr.With(cnierr.IOFailure, e.Begin())
}

// takeBack removes what an earlier ADD of the attachment left.
func (s Spec[C]) takeBack(ctx context.Context, c *Call, conf C) error {
	if err := s.undo(ctx, c, conf); err != nil {
		return err
	}
	return c.Entry.Restart()
}

// undo is DEL as a part of an ADD.
func (s Spec[C]) undo(ctx context.Context, c *Call, conf C) error {
	old := *c
	old.Verb, old.Renewing = Del, true
	return s.detach(ctx, &old, conf)
}

// judge says whether what r was made for still exists: at the path that the call
// names, or by all that shows it.
func judge(r journal.Record, path string) (v evidence.Verdict, err error) {
	if here(r, path) {
		return evidence.Verdict{State: evidence.Alive, Why: path}, nil
	}
	j, err := evidence.New()
	if err != nil {
		return v, cnierr.Netns(fmt.Errorf("own namespace: %w", err))
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	return j.Of([]journal.Record{r}), nil
}

// here reports whether the path leads to the sandbox that r was made for.
func here(r journal.Record, path string) bool {
	return !boot.Earlier(r.Boot) && netns.Is(path, r.NetnsID)
}

// abort ends a failed ADD: the record goes with what it spoke of, unless
// something could not be undone, which DEL or GC will find by it. The record of
// an earlier ADD of the same attachment (AllowRepeat) stays as it was.
func (s Spec[C]) abort(c *Call, cause error) error {
	var err error
	if !undo.Incomplete(cause) {
		err = c.Entry.Abandon()
	}
	return errors.Join(err, s.close(c))
}

// revert takes back an ADD whose result could not be written.
func (s Spec[C]) revert(ctx context.Context, c *Call) error {
	conf, err := s.Parse(c)
	if err != nil {
		return err
	}
	if c.Entry != nil {
		c.Entry.Found = journal.Pending // by now the record tells what is there
		err := s.undo(ctx, c, conf)
		if err == nil {
			err = c.Entry.Remove()
		}
		return errors.Join(err, s.close(c))
	}
	old := *c
	old.Verb = Del
	return s.detach(ctx, &old, conf)
}

// open locks the attachment's record, waiting for another call on it.
func (s Spec[C]) open(ctx context.Context, c *Call) (err error) {
	ctx, cancel := journal.LazyTimeout(ctx, lockWait)
	defer cancel()
	c.Entry, err = c.Journal.Open(ctx, c.Key(s.Name))
	if errors.Is(err, journal.ErrBusy) {
		return cnierr.With(cnierr.TryAgain, err)
	}
	return cnierr.With(cnierr.IOFailure, err)
}

func (s Spec[C]) close(c *Call) error {
	e, p := c.Entry, c.opened
	c.Entry, c.opened = nil, nil
	if p != nil {
		return errors.Join(e.Close(), p.Close())
	}
	return e.Close()
}

// del runs DEL with the record, if there is one, and forgets it when nothing of
// the attachment is left. It also works where the journal cannot be used.
func (s Spec[C]) del(ctx context.Context, c *Call, conf C) error {
	if s.HasRecord == nil {
		return s.detach(ctx, c, conf)
	}
	if err := s.open(ctx, c); err != nil {
		if cnierr.Code(err) == cnierr.TryAgain {
			return err
		}
		c.Note("%v (removing all the same)", err)
		return s.delUnlocked(ctx, c, conf)
	}
	if err := s.follow(ctx, c); err != nil {
		return err
	}
	if at := c.created; at != "" && at != c.Entry.Created.Format(time.RFC3339Nano) {
		return s.close(c)
	}
	err := s.detach(ctx, c, conf)
	if err == nil {
		err = c.Entry.Remove()
	}
	return errors.Join(err, s.close(c))
}

// follow goes over to the attachment's record where that is under another name of
// the network, which was renamed since: the record of the same container and
// interface in the same sandbox.
func (s Spec[C]) follow(ctx context.Context, c *Call) error {
	if c.Entry.Found != journal.Nothing || c.Entry.Damaged || c.gone || c.created != "" {
		return nil
	}
	others, err := c.Journal.Elsewhere(c.Entry.Key)
	if err != nil {
		return cnierr.With(cnierr.IOFailure, err)
	}
	if len(others) == 0 {
		return nil
	}
	sandbox, err := netns.Identify(c.Netns)
	if err != nil {
		return nil // without a sandbox nothing says that it is the same
	}
	for _, r := range others {
		if !r.NetnsID.Same(sandbox) {
			continue
		}
		c.Note("%s: attached as network %q, which is removed", s.Name, r.Network)
		if err := errors.Join(c.Entry.Remove(), s.close(c)); err != nil {
			return err
		}
		c.Conf.Name = r.Network
		return s.open(ctx, c)
	}
	return nil
}

// delUnlocked runs DEL where the journal cannot be written: with the record, if
// it can be read. What then stays of it speaks of nothing.
func (s Spec[C]) delUnlocked(ctx context.Context, c *Call, conf C) error {
	e, err := c.Journal.Peek(c.Key(s.Name))
	if err != nil {
		return cnierr.With(cnierr.IOFailure, err)
	}
	c.Entry = e
	err = s.detach(ctx, c, conf)
	if err != nil {
		return err
	}
	if err := c.Entry.Remove(); err != nil {
		c.Note("%v", err)
	}
	return nil
}

// check runs CHECK with a copy of the record.
func (s Spec[C]) check(ctx context.Context, c *Call, conf C) error {
	if s.HasRecord != nil && s.HasRecord(conf) {
		e, err := c.Journal.Peek(c.Key(s.Name))
		if err != nil {
			return cnierr.With(cnierr.IOFailure, err)
		}
		if e.Found != journal.Nothing {
			c.Entry = e
		}
	}
	if s.CheckIn != nil {
		return c.in(func(p *nl.Pair) error { return s.CheckIn(ctx, c, p, conf) })
	}
	return call(s.Check, ctx, c, conf)
}

// finish makes the record of a successful ADD final, now that the runtime has
// its result.
func finish(c *Call) error {
	if c.Entry == nil || c.Verb != Add {
		return nil
	}
	errs := []error{c.Entry.Done(), c.Entry.Close()}
	if c.opened != nil {
		errs = append(errs, c.opened.Close())
	}
	return errors.Join(errs...)
}
