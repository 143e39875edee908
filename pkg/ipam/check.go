package ipam

import (
	"context"
	"errors"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Check answers CHECK for a plugin that makes the sandbox's interface: if the IPAM
// plugin confirms its part, compare compares the kernel with the result of ADD.
// required is the text for a CHECK without prevResult.
func Check(ctx context.Context, c *plugin.Call, required string, compare func(*nl.Pair, *current.Result) error) (err error) {
	res, err := c.PrevResult()
	if err != nil {
		return err
	}
	if res == nil {
		return cnierr.Config("%s", required)
	}
	if c.Conf.IPAM.Type != "" {
		if err := forward(ctx, c, plugin.Check); err != nil {
			return err
		}
	}
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return compare(p, res)
}
