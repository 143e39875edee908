// Package journal remembers what each plugin did for each attachment, so that
// DEL, GC, reconcile and ls are complete without the runtime's memory.
//
// An attachment of a plugin has one small file in /run/netcleat/<network>/. A
// file that ends in ".pending" marks an operation in progress: it is written
// before the first change, is locked (flock) as long as the operation runs, and
// holds what is needed to take the changes back. When the result has been
// written, it takes the record's final name by rename. A pending file without a
// lock is what a killed operation left behind; beside a finished record it is
// the later of the two.
//
// Boot clears the directory, which is right: no namespace outlives a boot.
package journal

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/fields"
	"github.com/netcleat/netcleat/pkg/file"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/sha2"
)

// Default is where the plugins keep their records. Rootless runtimes leave only
// /run and /var/lib/cni writable.
const Default Dir = "/run/netcleat"

// Dir is a directory of records.
type Dir string

// Key names one attachment of one plugin.
type Key struct {
	Network     string `json:"network"`
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
	Plugin      string `json:"plugin"`
}

// version is the format of the records. One with a later version is used for
// removal only, and kept when that is not understood.
const version = 1

// Record is what a plugin remembers of an attachment.
type Record struct {
	Version int `json:"version"`
	Key
	Netns   string   `json:"netns"` // CNI_NETNS as ADD was given it
	NetnsID netns.ID `json:"netnsID"`
	// HostID is the namespace that ADD ran in: links that are not the sandbox's
	// are looked for there and nowhere else.
	HostID netns.ID `json:"hostID"`
	// Boot is boot.ID as ADD saw it: no namespace outlives a boot, but the record
	// may, where its directory is on a disk. 0 is unknown.
	Boot    uint64    `json:"boot,omitempty"`
	Created time.Time `json:"created"`
	// Args is CNI_ARGS, which names the pod.
	Args string `json:"args,omitempty"`
	// Config is the configuration that ADD was given, without prevResult.
	Config json.RawMessage `json:"config,omitempty"`
	Links  []Link          `json:"links,omitempty"`
	IPs    []netip.Prefix  `json:"ips,omitempty"`
	// State is the plugin's own; only it reads it.
	State json.RawMessage `json:"state,omitempty"`
}

// Link is an interface that an attachment made or moved.
type Link struct {
	Name    string `json:"name"`
	Index   int    `json:"index,omitempty"`
	MAC     string `json:"mac,omitempty"`
	Sandbox bool   `json:"sandbox,omitempty"` // it is in the sandbox, not on the host
	Kind    string `json:"kind,omitempty"`    // "macvlan", "vlan" …
	Parent  int    `json:"parent,omitempty"`  // the index of the link that it is made from
}

// Entry is the record of one attachment while an operation on it runs. No other
// operation on the same attachment runs at the same time.
type Entry struct {
	Record
	// Found says what an earlier operation left.
	Found Found
	// Damaged says that there is a file, and that nothing can be read from it.
	Damaged bool
	dir     Dir
	lock    int    // the pending file; -1 where there is none
	begun   []byte // what the pending file holds
	later   bool   // a later version's record is kept, which this one does not understand
}

// Found is what Open came upon.
type Found int

// What Open can come upon.
const (
	Nothing Found = iota // no operation before this one
	Pending              // an ADD that was killed, or could not undo all it did
	Done                 // an attachment whose result was written
)

// ErrBusy says that another operation on the attachment did not end in time.
var ErrBusy = errors.New("another operation on this attachment is running")

// Open locks the attachment and reads what is known of it, waiting for another
// operation on it until ctx ends (ErrBusy). The caller must Close the Entry. A
// record that cannot be read counts as none.
func (d Dir) Open(ctx context.Context, k Key) (*Entry, error) {
	lock, err := lockFile(ctx, d.path(k)+pendingSuffix)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	e := &Entry{dir: d, lock: lock, Record: Record{Key: k}}
	if err := e.load(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Peek returns what is known of the attachment without locking it: for CHECK,
// and for a DEL that cannot write. Nothing can be begun with it. It is an error
// where the file could not be read just now, which says nothing of what is in it.
func (d Dir) Peek(k Key) (*Entry, error) {
	e := &Entry{dir: d, lock: -1, Record: Record{Key: k}}
	switch err := e.load(); {
	case errors.Is(err, errLater), errors.Is(err, unix.ENOTDIR):
		return &Entry{dir: d, lock: -1, Record: Record{Key: k}, later: errors.Is(err, errLater)}, nil
	case err != nil:
		return nil, err
	}
	return e, nil
}

// load reads the finished record and the pending one. Where there are both, the
// pending one is the later, and speaks of a finished attachment.
func (e *Entry) load() error {
	key, path := e.Key, e.dir.path(e.Key)
	done, derr := read(path)
	pending, perr := Record{}, errEmpty
	if !e.fresh() {
		pending, perr = read(path + pendingSuffix)
	}
	for _, err := range []error{perr, derr} {
		if err != nil && !absent(err) && !errors.Is(err, errDamaged) {
			return fmt.Errorf("journal: %w", err)
		}
	}
	e.Damaged = errors.Is(derr, errDamaged)
	if derr == nil {
		e.Record, e.Found = done, Done
	}
	if perr == nil {
		e.Record, e.Found = pending, max(e.Found, Pending)
		e.begun = []byte{0} // not what Begin would write, but not to be lost either
	}
	e.Key = key
	return nil
}

// fresh reports whether the pending file is empty: no operation has begun.
func (e *Entry) fresh() bool {
	var st unix.Stat_t
	return e.lock >= 0 && unix.Fstat(e.lock, &st) == nil && st.Size == 0
}

// Begin writes e's record as pending: call it before the first change, and again
// when there is more to remember. Where it fails, what was written before stays.
func (e *Entry) Begin() error {
	if e.Version > version {
		return fmt.Errorf("journal: record of %s: %w", e.dir.path(e.Key), errLater)
	}
	if err := remove(e.dir.path(e.Key) + leavingSuffix); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	e.Version = version
	b, err := e.encode()
	switch {
	case err != nil:
	case len(e.begun) == 0:
		err = e.fill(b)
	default:
		err = e.replace(b)
	}
	if err != nil {
		return fmt.Errorf("journal: write %s: %w", e.dir.path(e.Key)+pendingSuffix, err)
	}
	e.begun = b
	return nil
}

// fill writes the pending file in place. A kill meanwhile leaves a part of it,
// which is worth as much as nothing: no change was made yet.
func (e *Entry) fill(b []byte) error {
	if err := unix.Ftruncate(e.lock, 0); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	if err := pwriteAll(e.lock, b); err != nil {
		return errors.Join(err, os.NewSyscallError("ftruncate", unix.Ftruncate(e.lock, 0)))
	}
	return nil
}

// replace puts a new pending file in the place of the one that speaks of changes
// made, locked before anybody can see it. Whoever waits for the old one finds
// that it is gone and starts over.
func (e *Entry) replace(b []byte) error {
	path := e.dir.path(e.Key)
	fd, err := unix.Open(path+tempSuffix, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	err = flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = pwriteAll(fd, b)
	}
	if err == nil {
		err = unix.Rename(path+tempSuffix, path+pendingSuffix)
	}
	if err != nil {
		return errors.Join(err, remove(path+tempSuffix), unix.Close(fd))
	}
	fd, e.lock = e.lock, fd
	return unix.Close(fd)
}

// Done makes e's record that of a finished attachment: call it when the result
// has been written. It takes no space that the pending record did not have, but
// where the record has changed since; then the pending one has to do where there
// is none.
func (e *Entry) Done() error {
	b, err := e.encode()
	if err != nil || !bytes.Equal(b, e.begun) {
		err = e.Begin()
	}
	if len(e.begun) == 0 {
		return err
	}
	path := e.dir.path(e.Key)
	if rerr := unix.Rename(path+pendingSuffix, path); rerr != nil {
		err = errors.Join(err, &fs.PathError{Op: "rename", Path: path, Err: rerr})
	}
	return err
}

// Remove forgets the attachment: nothing of it is left. The last one of a network
// takes the network's directory with it.
func (e *Entry) Remove() error {
	if e.later {
		return nil
	}
	path := e.dir.path(e.Key)
	err := errors.Join(remove(path), remove(path+tempSuffix), e.unpend(), remove(path+leavingSuffix))
	_ = unix.Rmdir(e.dir.network(e.Network)) // not empty, mostly
	return err
}

// Leave marks the attachment, where it has a record, as one that is being
// removed: Any no longer counts it. Without that, two that go at the same time
// would each leave what they share to the other. Begin and Remove take the mark
// away.
func (d Dir) Leave(k Key) error {
	path := d.path(k)
	if !exists(path) && !exists(path+pendingSuffix) {
		return nil
	}
	fd, err := unix.Open(path+leavingSuffix, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", &fs.PathError{Op: "create", Path: path + leavingSuffix, Err: err})
	}
	return unix.Close(fd)
}

// Leaving reports whether the attachment is being removed.
func (d Dir) Leaving(k Key) bool { return exists(d.path(k) + leavingSuffix) }

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// Abandon ends an operation that took back all it did: a finished record stays
// as the operation found it.
func (e *Entry) Abandon() error {
	path := e.dir.path(e.Key)
	return errors.Join(remove(path+tempSuffix), remove(path+leavingSuffix), e.unpend())
}

// Sweep removes what operations of the network that were killed before their
// first change, or after their last, left: files that hold nothing. Those of an
// operation that runs are left to it. drop decides on each attachment's.
func (d Dir) Sweep(network string, drop func(path string) bool) error {
	files, err := os.ReadDir(d.network(network))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, f := range files {
		path := filepath.Join(d.network(network), f.Name())
		for _, suffix := range []string{pendingSuffix, leavingSuffix, tempSuffix} {
			if base, ok := strings.CutSuffix(path, suffix); ok && hollow(base) {
				errs = append(errs, sweep(base, drop))
			}
		}
	}
	_ = unix.Rmdir(d.network(network)) // not empty, mostly
	return errors.Join(errs...)
}

// hollow reports whether nothing is known of the attachment.
func hollow(path string) bool {
	_, derr := read(path)
	_, perr := read(path + pendingSuffix)
	return absent(derr) && absent(perr)
}

// sweep removes the files of an attachment of which nothing is known.
func sweep(path string, drop func(path string) bool) error {
	now, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	fd, err := lockFile(now, path+pendingSuffix)
	if errors.Is(err, ErrBusy) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if hollow(path) && drop(path+pendingSuffix) {
		err = errors.Join(remove(path+tempSuffix), remove(path+leavingSuffix), remove(path+pendingSuffix))
	}
	return errors.Join(err, unix.Close(fd))
}

// Restart forgets what an earlier operation left, and keeps the lock for the
// one that follows.
func (e *Entry) Restart() error {
	path := e.dir.path(e.Key)
	err := errors.Join(remove(path), remove(path+tempSuffix), os.NewSyscallError("ftruncate", unix.Ftruncate(e.lock, 0)))
	e.begun = nil
	return err
}

// unpend removes the pending file, which also is the lock's; whoever waits for
// it sees that it is gone and starts over.
func (e *Entry) unpend() error {
	if e.lock < 0 {
		return nil
	}
	return remove(e.dir.path(e.Key) + pendingSuffix)
}

// Close ends the operation and lets the next one in. A pending record that was
// neither Done nor Removed stays for the next ADD, DEL or GC.
func (e *Entry) Close() error {
	if e.lock < 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(e.lock, &st); err == nil && st.Size == 0 && st.Nlink > 0 {
		_ = e.unpend() // nothing was begun: leave no empty file behind
	}
	lock := e.lock
	e.lock = -1
	return os.NewSyscallError("close", unix.Close(lock))
}

// SetState stores the plugin's own part of the record.
func (e *Entry) SetState(v any) error {
	b, err := fields.Text(v)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	e.State = json.RawMessage(b)
	return nil
}

// GetState reads the plugin's own part of the record into v; an absent one
// leaves v as it is.
func (r *Record) GetState(v any) error {
	if len(r.State) == 0 {
		return nil
	}
	o, err := fields.Parse(r.State)
	if err != nil {
		return err
	}
	return o.Into(v)
}

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
	all, bad, err := d.look(name)
	errs := []error{err}
	for _, b := range bad {
		errs = append(errs, b.Err)
	}
	return all, errors.Join(errs...)
}

// Readable returns the records of one network that can be read, as Network does.
// A file that cannot be read is no error: it stops nobody but its owner.
func (d Dir) Readable(name string) ([]Record, error) {
	all, _, err := d.look(name)
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
	_, bad, err := d.look(network)
	return bad, err
}

// look reads the records of one network.
func (d Dir) look(network string) (all []Record, bad []Bad, err error) {
	seen := map[string]bool{}
	one := func(name string) bool {
		base := strings.TrimSuffix(name, pendingSuffix)
		key, is := keyOf(network, base)
		if seen[base] || !is || strings.HasSuffix(name, tempSuffix) || strings.HasSuffix(name, leavingSuffix) {
			return false
		}
		path := filepath.Join(d.network(network), base)
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

// locks is where Lock keeps its files. No network is called so.
const locks = ".locks"

// Lock takes a lock that all plugins share, waiting until ctx ends (ErrBusy);
// what names it: "masquerade of <network>". The lock order of the suite is: an
// attachment's record (Open), then at most one of these, then IPAM's.
//
// Where the directory cannot be written there is nothing to share the lock with:
// what is to be removed can be removed without. unlock is then a no-op.
func (d Dir) Lock(ctx context.Context, what string) (unlock func() error, err error) {
	ctx, cancel := LazyTimeout(ctx, lockWait)
	defer cancel()
	unlock, err = d.lock(ctx, what)
	if err != nil && !errors.Is(err, ErrBusy) {
		return func() error { return nil }, nil
	}
	return unlock, err
}

// lockWait bounds how long a call waits for others.
const lockWait = time.Minute

func (d Dir) lock(ctx context.Context, what string) (unlock func() error, err error) {
	path := filepath.Join(string(d), locks, Cut(what, 2*readable))
	fd, err := lockFile(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	// Whoever waits sees that the file is gone and makes a new one.
	return func() error { return errors.Join(remove(path), unix.Close(fd)) }, nil
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
		if e.IsDir() && e.Name() != locks {
			names = append(names, e.Name())
		}
	}
	return names, err
}

const (
	pendingSuffix = ".pending"
	leavingSuffix = ".leaving"
	tempSuffix    = ".new"
	readable      = 100 // bytes of a name that stay readable when it is cut
)

// path returns the file of a finished attachment. Neither container IDs nor
// interface names hold a colon.
func (d Dir) path(k Key) string {
	return filepath.Join(d.network(k.Network), Cut(k.ContainerID, readable)+":"+k.IfName+":"+k.Plugin)
}

func (d Dir) network(name string) string { return filepath.Join(string(d), NetworkName(name)) }

// NetworkName is the name by which Networks knows a network.
func NetworkName(name string) string { return Cut(name, 2*readable) }

const hashed = 17 // bytes that Cut adds: "~" and 16 hex digits

// Cut returns name, or where it is longer than limit bytes its beginning and a
// hash of all of it: limit bytes together.
func Cut(name string, limit int) string {
	if len(name) <= limit {
		return name
	}
	sum := sha2.Sum256([]byte(name))
	return name[:limit-hashed] + "~" + hex.EncodeToString(sum[:8])
}

// IsCut reports whether cut is name, or what Cut makes of it for some limit.
func IsCut(cut, name string) bool {
	begins, hash, found := strings.Cut(cut, "~")
	return cut == name || found && len(hash) == hashed-1 && strings.HasPrefix(name, begins) && Cut(name, len(cut)) == cut
}

var (
	errEmpty   = errors.New("empty record")
	errDamaged = errors.New("damaged record")
	errLater   = errors.New("written by a later version of netcleat, which alone can go on with it")
)

func read(path string) (Record, error) {
	b, err := file.Read(path)
	if err != nil {
		return Record{}, err
	}
	if len(b) == 0 {
		return Record{}, errEmpty
	}
	r, err := decode(b)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", path, unreadable(path, b, err))
	}
	return r, nil
}

// unreadable says why a record cannot be read.
func unreadable(path string, b []byte, err error) error {
	var v struct{ Version int }
	switch {
	case json.Unmarshal(b, &v) == nil && v.Version > version:
		return fmt.Errorf("%w: %w", errLater, err)
	case strings.HasSuffix(path, pendingSuffix):
		return errEmpty // killed while writing it, which is before any change
	default:
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
}

// lockFile opens or creates path and its directory and locks it, waiting until
// ctx ends.
func lockFile(ctx context.Context, path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err == unix.ENOENT { // the first of its network, or just after its last
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return -1, err
			}
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		if err := Flock(ctx, fd); err != nil {
			return -1, errors.Join(fmt.Errorf("lock %s: %w", path, err), unix.Close(fd))
		}
		if current(fd, path) {
			return fd, nil
		}
		// Its last holder removed or renamed it while this call waited.
		if err := unix.Close(fd); err != nil {
			return -1, &fs.PathError{Op: "close", Path: path, Err: err}
		}
	}
}

// current reports whether the open file is the one at path.
func current(fd int, path string) bool {
	var open, named unix.Stat_t
	return unix.Fstat(fd, &open) == nil && unix.Stat(path, &named) == nil && open.Ino == named.Ino && open.Dev == named.Dev
}

// Flock locks fd exclusively, waiting until ctx ends; it then returns ErrBusy.
// The wait is the kernel's, not a poll.
func Flock(ctx context.Context, fd int) error {
	if err := flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	if ctx.Err() != nil {
		return ErrBusy
	}
	locked := make(chan error, 1)
	go func() { locked <- flock(fd, unix.LOCK_EX) }()
	select {
	case err := <-locked:
		return err
	case <-ctx.Done():
		return ErrBusy // the process is about to end, and the waiting thread with it
	}
}

func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); err != unix.EINTR {
			return err
		}
	}
}
