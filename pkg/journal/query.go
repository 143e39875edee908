package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/file"
)

// Read returns the record of an attachment, finished or pending, without
// locking it. One that does not exist satisfies errors.Is(err, fs.ErrNotExist).
func (d Dir) Read(k Key) (Record, error) {
	r, err := either(d.path(k))
	if errors.Is(err, errEmpty) {
		err = fs.ErrNotExist
	}
	return r, err
}

// either reads a record, finished or pending. A pending one may take its final
// name after the look for that: the third look sees it.
func either(path string) (r Record, err error) {
	for _, suffix := range []string{"", pendingSuffix, ""} {
		if r, err = read(path + suffix); !absent(err) {
			return r, err
		}
	}
	return r, err
}

// absent reports whether a record is not there, or its operation has not begun.
func absent(err error) bool { return errors.Is(err, errEmpty) || errors.Is(err, fs.ErrNotExist) }

// Elsewhere returns the records that other networks have of the same container,
// interface and plugin: of an attachment whose network has another name now. It is
// an error where that could not be read just now; damaged files name nobody.
func (d Dir) Elsewhere(k Key) (list []Record, err error) {
	networks, err := d.Networks()
	errs := []error{err}
	name := filepath.Base(d.path(k))
	for _, n := range networks {
		if n == NetworkName(k.Network) {
			continue
		}
		r, err := either(filepath.Join(string(d), n, name))
		switch {
		case err == nil && r.ContainerID == k.ContainerID:
			list = append(list, r)
		case err != nil && !absent(err) && !errors.Is(err, errDamaged) && !errors.Is(err, errLater):
			errs = append(errs, err)
		}
	}
	return list, errors.Join(errs...)
}

// Network returns the records of one network, pending ones included, without
// locking them. What cannot be read is joined to the error; the rest is
// returned all the same.
func (d Dir) Network(name string) ([]Record, error) {
	all, bad, err := d.look(name, nil)
	errs := []error{err}
	for _, b := range bad {
		errs = append(errs, b.Err)
	}
	return all, errors.Join(errs...)
}

// Readable returns the records of one network that can be read, as Network does.
// A file that cannot be read is no error: it stops nobody but its owner.
func (d Dir) Readable(name string) ([]Record, error) {
	all, _, err := d.look(name, nil)
	return all, err
}

// Joined returns the records of all networks that the network's and the container's
// name, one after the other, are the same for as for k: network ab with container c
// and network a with container bc. The reference names iptables' chains so. Files
// that cannot be read are skipped.
func (d Dir) Joined(k Key) (list []Record, err error) {
	networks, err := d.Networks()
	errs := []error{err}
	name := k.Network + k.ContainerID
	for _, n := range networks {
		begins, _, _ := strings.Cut(n, "~")
		if !strings.HasPrefix(name, begins) {
			continue
		}
		all, err := d.Readable(n)
		errs = append(errs, err)
		for _, r := range all {
			if r.Network+r.ContainerID == name {
				list = append(list, r)
			}
		}
	}
	return list, errors.Join(errs...)
}

// Bad is a file among the records that cannot be read: damaged, or written by a
// later version.
type Bad struct {
	Key  Key // as the file's name says; long names are cut
	Path string
	Err  error
}

// Damaged reports whether the file is nothing that a later version could read
// either.
func (b Bad) Damaged() bool { return errors.Is(b.Err, errDamaged) }

// Bad returns the files of one network that cannot be read.
func (d Dir) Bad(network string) ([]Bad, error) {
	_, bad, err := d.look(network, nil)
	return bad, err
}

// look reads the records of one network.
func (d Dir) look(network string, pick func(path string, k Key) bool) (all []Record, bad []Bad, err error) {
	seen := map[string]bool{}
	one := func(name string) bool {
		base := strings.TrimSuffix(name, pendingSuffix)
		key, is := keyOf(network, base)
		if seen[base] || !is || strings.HasSuffix(name, tempSuffix) || strings.HasSuffix(name, leavingSuffix) {
			return false
		}
		path := filepath.Join(d.network(network), base)
		if pick != nil && !pick(path, key) {
			return false
		}
		r, err := either(path)
		switch {
		case absent(err):
			return false
		case err != nil:
			bad = append(bad, Bad{key, path, err})
		default:
			all = append(all, r)
		}
		seen[base] = true
		return false
	}
	for range 2 { // as Any does
		if err := file.Names(d.network(network), one); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return all, bad, fmt.Errorf("journal: %w", err)
		}
	}
	return all, bad, nil
}

// keyOf returns what a record's file name says. Files with other names are none
// of the journal's.
func keyOf(network, name string) (k Key, is bool) {
	w := strings.Split(name, ":")
	if len(w) != 3 || slices.Contains(w, "") { // such as an IPv6 address
		return k, false
	}
	return Key{Network: network, ContainerID: w[0], IfName: w[1], Plugin: w[2]}, true
}

// Of returns the records of one plugin on a network, pending ones included but not
// those that are being removed (Leave), and the files that cannot be read.
func (d Dir) Of(network, plugin string) ([]Record, []Bad, error) {
	return d.look(network, func(path string, k Key) bool {
		return k.Plugin == plugin && !exists(path+leavingSuffix)
	})
}

// Any reports whether a record of the network matches, pending ones included but
// not those that are being removed (Leave). It
// looks at one after the other until one does, so that its cost does not grow
// with the network where most do. pick says by its key's plugin which are worth
// reading. What cannot be read counts as a match: nothing may be taken from an
// attachment for want of knowledge.
func (d Dir) Any(network string, pick func(plugin string) bool, match func(Record) bool) (bool, error) {
	seen := map[string]bool{}
	// A record that takes its final name while the directory is read may be
	// passed over under both; the second look then sees it.
	for range 2 {
		found, err := d.any(network, seen, func(name string) bool {
			plugin := strings.TrimSuffix(name[strings.LastIndexByte(name, ':')+1:], pendingSuffix)
			return pick(plugin) && d.matches(network, name, match)
		})
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// Remembers reports whether another plugin has a record of the attachment: then
// the one that k's plugin has not was hardly lost.
func (d Dir) Remembers(k Key) (found bool) {
	own := d.path(k)
	start := filepath.Base(own[:len(own)-len(k.Plugin)])
	_ = file.Names(d.network(k.Network), func(name string) bool {
		found = strings.HasPrefix(name, start) && !strings.HasPrefix(name, filepath.Base(own))
		return found
	}) // a directory that cannot be read knows nothing
	return found
}

// any reports whether a name that was not seen before satisfies match.
func (d Dir) any(network string, seen map[string]bool, match func(name string) bool) (found bool, err error) {
	err = file.Names(d.network(network), func(name string) bool {
		base := strings.TrimSuffix(name, tempSuffix)
		found = !seen[base] && match(base)
		seen[name] = true
		return found
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("journal: %w", err)
	}
	return found, nil
}

func (d Dir) matches(network, name string, match func(Record) bool) bool {
	path := filepath.Join(d.network(network), name)
	if exists(strings.TrimSuffix(path, pendingSuffix) + leavingSuffix) {
		return false
	}
	r, err := read(path)
	return !absent(err) && (err != nil || match(r))
}

// Networks returns the names of all networks that have a record, each cut as
// NetworkName does; Network takes them.
func (d Dir) Networks() ([]string, error) {
	dirs, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range dirs {
		if e.IsDir() && e.Name()[0] != '.' { // of which no network's name is the first
			names = append(names, e.Name())
		}
	}
	return names, err
}
