package create

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
)

// lockName is nerdctl's: neither creates a network while the other does.
const lockName = ".cni-concurrency.lock"

// lockWait bounds how long another command is waited for.
const lockWait = 30 * time.Second

// Lock keeps others from changing a directory of networks, which it makes where
// there is none. One that cannot be written nobody changes.
func Lock(ctx context.Context, dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	soon, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	if err := journal.Flock(soon, int(f.Fd())); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: held for %v by another command: %w", path, lockWait, err), f.Close())
	}
	return f.Close, nil
}
