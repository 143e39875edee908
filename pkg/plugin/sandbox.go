package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
)

// sandboxWait bounds the wait for another call in the same sandbox. A process in
// there could hold the lock for ever.
const sandboxWait = 30 * time.Second

// LockSandbox keeps calls in one sandbox apart, such as from choosing the same
// routing table. The reference's sbr locks the same file, the sandbox's namespace.
// Closing p unlocks it.
func LockSandbox(ctx context.Context, p *nl.Pair) error {
	ctx, cancel := journal.LazyTimeout(ctx, sandboxWait)
	defer cancel()
	err := journal.Flock(ctx, p.NS.Fd())
	if errors.Is(err, journal.ErrBusy) {
		return cnierr.Newf(cnierr.TryAgain, "sandbox %s: locked by another process for more than %v", p.NS.Path, sandboxWait)
	}
	if err != nil {
		return fmt.Errorf("lock sandbox %s: %w", p.NS.Path, err)
	}
	return nil
}
