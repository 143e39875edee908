package firewall

import (
	"context"
	"errors"
	"fmt"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func check(ctx context.Context, c *plugin.Call, _ config) (err error) {
	if err := c.Chained("missing prevResult from earlier plugin"); err != nil {
		return err
	}
	j := &job{key: c.Key("firewall"), dir: c.Journal, gate: c.Gate}
	if c.Entry == nil {
		return nil // attached by the reference
	}
	if err := c.Entry.GetState(&j.needs); err != nil {
		return cnierr.With(cnierr.IOFailure, fmt.Errorf("journal: %w", err))
	}
	return j.check(ctx)
}

func (j *job) check(ctx context.Context) (err error) {
	c, err := nft.Look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := j.checkIsolation(c); err != nil {
		return err
	}
	if j.Zone != "" {
		if err := j.checkSources(); err != nil {
			return err
		}
	}
	for _, p := range j.places(c) {
		if err := p.check(ctx, j, c); err != nil {
			return err
		}
	}
	return nil
}
