package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/file"
)

// Forget removes all files of a container on a network, by their names: also what
// cannot be read. It returns which those were. An operation that runs keeps its own.
func (d Dir) Forget(network, containerID string) (removed []string, err error) {
	prefix := Cut(containerID, readable) + ":"
	var bases []string
	err = file.Names(d.network(network), func(name string) bool {
		base := name
		for _, suffix := range []string{pendingSuffix, leavingSuffix, tempSuffix} {
			base = strings.TrimSuffix(base, suffix)
		}
		if strings.HasPrefix(name, prefix) && !slices.Contains(bases, base) {
			bases = append(bases, base)
		}
		return false
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	errs := []error{err}
	for _, base := range bases {
		path := filepath.Join(d.network(network), base)
		if err := forget(path); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, path)
	}
	_ = unix.Rmdir(d.network(network)) // not empty, mostly
	return removed, errors.Join(errs...)
}

// forget removes the files of one attachment of one plugin.
func forget(path string) error {
	now, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	fd, err := lockFile(now, path+pendingSuffix)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	err = errors.Join(remove(path), remove(path+tempSuffix), remove(path+leavingSuffix), remove(path+pendingSuffix))
	return errors.Join(err, unix.Close(fd))
}
