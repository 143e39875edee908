package clusterd

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/create"
	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/cmd/netcleat/remove"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

// conflists makes the cluster's networks in a directory of this host.
type conflists struct {
	places   show.Places
	underlay overlay.Underlay
	life     context.Context
	post     func(func())
}

func (c *conflists) make(all []overlay.Definition, done func(errs []error)) {
	go func() {
		errs := c.write(all)
		errs = append(errs, c.remove(all)...)
		c.post(func() { done(errs) })
	}()
}

func (c *conflists) write(all []overlay.Definition) (errs []error) {
	for _, d := range all {
		if d.VNI == 0 {
			continue // it cannot be read
		}
		if err := d.Write(c.life, c.places.NetConf, c.underlay); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// remove removes networks that the cluster does not have any more, unless something is
// attached to them.
func (c *conflists) remove(all []overlay.Definition) (errs []error) {
	for _, name := range made(c.places.NetConf) {
		if slices.ContainsFunc(all, func(d overlay.Definition) bool { return d.Name == name }) {
			continue
		}
		o := remove.Options{Places: c.places, Out: io.Discard, Cluster: true, Warn: func(string, ...any) {}}
		if err := remove.Run(c.life, o, []string{name}); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// made returns the networks that the cluster's daemon has made in a directory.
func made(dir string) (names []string) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil // there are none
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil || !overlay.Made(text) {
			continue
		}
		name := strings.TrimSuffix(f.Name(), filepath.Ext(f.Name()))
		name = strings.TrimPrefix(name, filepath.Base(strings.TrimSuffix(create.File("", ""), ".conflist")))
		if f.Name() == filepath.Base(create.File(dir, name)) {
			names = append(names, name)
		}
	}
	return names
}

// IsMade reports whether the cluster's daemon has made a network on this host.
func IsMade(dir, name string) (bool, error) {
	text, err := os.ReadFile(create.File(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return overlay.Made(text), err
}
