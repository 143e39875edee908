// Package install puts the plugin binary into a directory under the names of
// all its plugins, and puts back what it replaced.
//
// Every name changes over in one rename, so that whoever runs a plugin meanwhile
// gets a whole file, and calls in progress keep the file that they were started
// from.
package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// Options say what to install where.
type Options struct {
	Plugins string // the plugin binary
	Dir     string // where runtimes look for plugins
	DryRun  bool   // only say what would be done
	Force   bool   // replace what is neither ours nor the reference's, too
	Backup  bool   // keep what is replaced
	Out     io.Writer
}

// name is one plugin's name in the directory, and what stands there now.
type name struct {
	name string
	occupant
	upToDate bool
}

// Install puts the plugin binary into the directory under all its names. Where
// a name is taken by somebody else's file it changes nothing.
func Install(ctx context.Context, o Options) error {
	names, err := pluginNames(ctx, o.Plugins)
	if err != nil {
		return err
	}
	dir, err := o.open()
	if err != nil {
		return err
	}
	if dir != nil {
		defer func() { _ = dir.Close() }()
	}
	all, err := o.look(ctx, names)
	if err != nil {
		return err
	}
	if err := o.refuse(all); err != nil {
		return err
	}
	owned, err := o.owned(ctx, all)
	if err != nil {
		return err
	}
	if o.DryRun || current(all) && len(owned) == 0 {
		return errors.Join(o.report(all), o.reportOwned(owned))
	}
	if err := o.divert(ctx, owned); err != nil {
		return fmt.Errorf("divert: %w", err)
	}
	if o.Backup && !current(all) {
		if err := o.backup(all); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
	if err := o.place(all); err != nil {
		return err
	}
	return errors.Join(dir.Sync(), o.report(all), o.reportOwned(owned))
}

// open makes the directory where it is missing, locks it against another
// installation, and removes what a killed one left. A dry run opens nothing.
func (o Options) open() (*os.File, error) {
	if o.DryRun {
		return nil, nil
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	d, err := os.Open(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another installation is running: %w", o.Dir, err), d.Close())
	}
	left, err := filepath.Glob(filepath.Join(o.Dir, tempPrefix+"*"))
	errs := []error{err}
	for _, path := range left {
		errs = append(errs, os.Remove(path))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// look finds out what stands under each name.
func (o Options) look(ctx context.Context, names []string) ([]name, error) {
	want, err := os.ReadFile(o.Plugins)
	if err != nil {
		return nil, err
	}
	all := make([]name, 0, len(names))
	for _, n := range names {
		who, err := identify(ctx, o.path(n))
		if err != nil {
			return nil, err
		}
		have, err := os.ReadFile(o.path(n))
		upToDate := err == nil && who.owner == ours && bytes.Equal(have, want)
		all = append(all, name{n, who, upToDate})
	}
	return all, nil
}

func (o Options) path(name string) string { return filepath.Join(o.Dir, name) }

// current reports whether there is nothing to do.
func current(all []name) bool {
	for _, n := range all {
		if !n.upToDate {
			return false
		}
	}
	return true
}

// refuse is the error of an installation that would replace somebody else's
// file.
func (o Options) refuse(all []name) error {
	var taken []string
	for _, n := range all {
		if st, err := os.Lstat(o.path(n.name)); err == nil && st.IsDir() {
			return fmt.Errorf("%s: is a directory", o.path(n.name))
		}
		if n.owner == foreign {
			taken = append(taken, n.name)
		}
	}
	if len(taken) == 0 || o.Force {
		return nil
	}
	return fmt.Errorf("%s: neither netcleat's nor the reference's: %s; nothing was changed (--force replaces them, --backup keeps them)",
		o.Dir, strings.Join(taken, ", "))
}

// tempPrefix starts the names of files on their way into the directory. No
// runtime takes them for a plugin.
const tempPrefix = ".netcleat-new-"

// place copies the plugin binary to the first name and links the others to it.
func (o Options) place(all []name) error {
	first := o.path(all[0].name)
	if err := o.rename(all[0].name, func(temp string) error { return copyFile(o.Plugins, temp) }); err != nil {
		return err
	}
	for _, n := range all[1:] {
		if err := o.rename(n.name, func(temp string) error { return linkOrCopy(first, temp) }); err != nil {
			return err
		}
	}
	return nil
}

// rename makes a file under a temporary name and gives it its own at once.
func (o Options) rename(name string, create func(temp string) error) error {
	temp := filepath.Join(o.Dir, tempPrefix+name)
	if err := create(temp); err != nil {
		return errors.Join(err, remove(temp))
	}
	if err := os.Rename(temp, o.path(name)); err != nil {
		return errors.Join(err, remove(temp))
	}
	return nil
}

// copyFile copies a program, and returns when it is on the disk.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	// The mode again, whatever the umask is: runtimes may run as another user.
	return errors.Join(err, out.Chmod(0o755), out.Sync(), out.Close())
}

// linkOrCopy makes another name of a file, or a copy where the filesystem knows
// no hard links. Of a symbolic link it links the link.
func linkOrCopy(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return copyFile(from, to)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// report says what became of each name, or would.
func (o Options) report(all []name) error {
	w := tabwriter.NewWriter(o.Out, 0, 0, 2, ' ', 0)
	done := "installed"
	if o.DryRun {
		done = "would be installed"
	}
	for _, n := range all {
		switch {
		case n.upToDate && current(all):
			fmt.Fprintf(w, "%s\tup to date\n", n.name)
		case n.owner == nobody:
			fmt.Fprintf(w, "%s\t%s\n", n.name, done)
		default:
			fmt.Fprintf(w, "%s\t%s, replacing %s\n", n.name, done, strings.TrimSpace(n.String()+" "+n.short()))
		}
	}
	return w.Flush()
}
