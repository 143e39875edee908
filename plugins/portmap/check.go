package portmap

import (
	"context"
	"errors"

	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// check compares the kernel's rules with what ADD made.
func check(ctx context.Context, c *plugin.Call, conf config) error {
	if err := c.Chained("Required prevResult missing"); err != nil {
		return err
	}
	if len(conf.Mappings) == 0 {
		return nil
	}
	j, err := recorded(c)
	if err != nil {
		return err
	}
	if len(j.Targets) == 0 {
		return nil // attached by the reference, or without an address
	}
	return j.check(ctx)
}

func (j *job) check(ctx context.Context) (err error) {
	c, err := nft.Look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := j.checkLocalnet(); err != nil {
		return err
	}
	return j.backend().compare(ctx, c)
}
