package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Uninstall removes netcleat's plugins from the directory, each name in one
// rename, and puts back what was there before the first installation: the file
// that dpkg has been told to put elsewhere, or the one in the newest backup that
// is not netcleat's. A name that neither has becomes free. Backups are removed.
// One that was interrupted is continued by the next.
func Uninstall(ctx context.Context, o Options) error {
	if _, err := os.Stat(o.Dir); err != nil {
		return err
	}
	lock, err := o.open()
	if err != nil {
		return err
	}
	if lock != nil {
		defer func() { _ = lock.Close() }()
	}
	saved, err := o.originals()
	if err != nil {
		return err
	}
	all, err := o.taken(ctx, saved)
	if err != nil {
		return err
	}
	claims, err := o.claims(ctx, all)
	if err != nil {
		return err
	}
	for _, n := range all {
		if err := o.giveBack(n, saved[n.name]); err != nil {
			return err
		}
	}
	if o.DryRun {
		return nil
	}
	return errors.Join(lock.Sync(), o.undivert(ctx, claims), os.RemoveAll(o.path(BackupDir)), os.RemoveAll(o.path(DivertedDir)))
}

// originals are the files to put back, by their names.
func (o Options) originals() (map[string]string, error) {
	saved := map[string]string{}
	found, err := o.backups()
	if err != nil {
		return nil, err
	}
	for _, path := range found { // a newer one wins
		dir, m, err := readManifest(path)
		if err != nil {
			return nil, err
		}
		for _, k := range m.Files {
			file := filepath.Join(dir, k.Name)
			if _, err := os.Lstat(file); err != nil || builder(file) == ours {
				continue // nothing was there, it is back already, or it is an earlier version of ours
			}
			if err := k.verify(dir); err != nil {
				return nil, err
			}
			saved[k.Name] = file
		}
	}
	diverted, err := os.ReadDir(o.path(DivertedDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range diverted {
		saved[e.Name()] = filepath.Join(o.path(DivertedDir), e.Name())
	}
	return saved, nil
}

// taken are the names that are netcleat's now, or that something is kept for.
func (o Options) taken(ctx context.Context, saved map[string]string) ([]name, error) {
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for n := range saved {
		names = append(names, n)
	}
	for _, e := range entries {
		if !e.IsDir() && builder(o.path(e.Name())) == ours {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	var all []name
	for _, n := range slices.Compact(names) {
		who, err := identify(ctx, o.path(n))
		if err != nil {
			return nil, err
		}
		all = append(all, name{name: n, occupant: who})
	}
	return all, nil
}

// giveBack replaces netcleat's plugin by the saved file, or frees its name where
// there is none. What has replaced netcleat's meanwhile stays, unless its package
// put a newer file where dpkg was told to.
func (o Options) giveBack(n name, saved string) error {
	diverted := saved != "" && filepath.Dir(saved) == o.path(DivertedDir)
	switch {
	case n.owner != ours && n.owner != nobody && !diverted:
		_, err := fmt.Fprintf(o.Out, "%s: stays, as it is %s\n", n.name, n.occupant)
		return err
	case saved == "":
		return o.free(n)
	case o.DryRun:
		_, err := fmt.Fprintf(o.Out, "%s: would be put back\n", n.name)
		return err
	}
	if err := os.Rename(saved, o.path(n.name)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(o.Out, "%s: put back\n", n.name)
	return err
}

// undivert has dpkg put the packages' files under their own names again.
func (o Options) undivert(ctx context.Context, claims []claim) error {
	dir, err := o.realDir()
	errs := []error{err}
	for _, c := range claims {
		if c.diverted {
			_, err := tool(ctx, "dpkg-divert", "--package", holder, "--remove", "--no-rename", filepath.Join(dir, c.name.name))
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
