package collect

import (
	"context"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/connect"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

// libcni's memory of an attachment is the runtime's, but for what netcleat network
// connect has attached, whose runtime it is.

// forget has libcni forget an attachment that was removed.
func (o Options) forget(ctx context.Context, a attached.Attachment) error {
	return connect.Buried(ctx, o.connections(), a)
}

// forgetOld has libcni forget what has no record any more, as after a boot.
func (o Options) forgetOld(ctx context.Context) error {
	return connect.Forget(ctx, o.connections(), o.Out)
}

func (o Options) connections() connect.Options {
	return connect.Options{Places: show.Defaults(), Path: o.Plugins.Path, DryRun: o.DryRun}
}
