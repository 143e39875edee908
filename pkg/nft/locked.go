package nft

import (
	"context"
	"errors"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
)

// Locked runs fn with a socket in the calling thread's namespace, alone among all
// who lock the same thing; what names it. A lock that is not let go of in time is
// cnierr.TryAgain. The socket is closed, which may wait for the kernel, when the
// lock is free again.
func Locked(ctx context.Context, dir journal.Dir, what string, g gate.Gate, fn func(*Conn) error) error {
	unlock, err := dir.Lock(ctx, what)
	if err != nil {
		return cnierr.With(cnierr.TryAgain, err)
	}
	c, err := Dial(nil, g)
	if err != nil {
		return errors.Join(err, unlock())
	}
	err = errors.Join(fn(c), unlock())
	return errors.Join(err, c.Close())
}
