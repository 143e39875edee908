package nft

import (
	"context"
	"errors"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
)

// Shared is what several calls work on at the same time.
type Shared struct {
	Dir  journal.Dir
	What string // in words: it names the lock
	Gate gate.Gate
}

// Locked runs fn with a socket in the calling thread's namespace, alone among all
// who lock the same. A lock that is not let go of in time is cnierr.TryAgain. The
// socket is closed, which may wait for the kernel, when the lock is free again.
func (s Shared) Locked(ctx context.Context, fn func(*Conn) error) error {
	unlock, err := s.Dir.Lock(ctx, s.What)
	if err != nil {
		return cnierr.With(cnierr.TryAgain, err)
	}
	c, err := Dial(nil, s.Gate)
	if err != nil {
		return errors.Join(err, unlock())
	}
	err = errors.Join(fn(c), unlock())
	return errors.Join(err, c.Close())
}
