package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/jsontext"
)

// Builtin returns the plugin called name where the file at path is this very
// process's own: it can then be called without starting another.
func (c *Call) Builtin(name, path string) (Plugin, bool) {
	p, ok := c.table[name]
	if !ok {
		return nil, false
	}
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return nil, false
	}
	theirs, err := os.Stat(path)
	return p, err == nil && os.SameFile(own, theirs)
}

// Delegate calls p in this process with the verb of the call. It touches
// neither the environment nor standard output.
func (c *Call) Delegate(ctx context.Context, p Plugin) (*current.Result, error) {
	d := *c
	d.Delegated, d.Entry, d.opened, d.Within, d.created = true, nil, nil, "", ""
	res, err := p.do(ctx, &d)
	if err != nil {
		return nil, err
	}
	if err := finish(&d); err != nil {
		c.Note("%v", err) // what is left pending, DEL finds
	}
	return res, nil
}

// Knows reports whether the suite has a plugin of that name, whichever file would
// be run.
func (c *Call) Knows(name string) bool {
	_, ok := c.table[name]
	return ok
}

// IsChained reports whether the suite's plugin of that name works on what others made.
func (c *Call) IsChained(name string) bool {
	p, ok := c.table[name]
	return ok && p.About().Role == Chained
}

// Detach is DEL of another attachment, which has ended, by the plugin that made the
// record and by nothing else. One that came back meanwhile keeps its own.
func (c *Call) Detach(ctx context.Context, r journal.Record) error {
	p, ok := c.table[r.Plugin]
	if !ok {
		return fmt.Errorf("%s: not a plugin of this suite", r.Plugin)
	}
	conf := r.Config
	if len(conf) == 0 {
		conf = json.RawMessage(`{"cniVersion":"1.0.0","name":` + string(jsontext.String(r.Network)) + `,"type":` + string(jsontext.String(r.Plugin)) + `}`)
	}
	d := &Call{
		Verb: Del, ContainerID: r.ContainerID, Netns: r.Netns, IfName: r.IfName, Args: r.Args, Path: c.Path, Stdin: conf,
		Journal: c.Journal, Gate: c.Gate, Stderr: c.Stderr, Delegated: true, table: c.table, created: r.Created.Format(time.RFC3339Nano),
	}
	if err := d.read(p); err != nil {
		return err
	}
	_, err := p.do(ctx, d)
	return err
}
