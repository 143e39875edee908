// Package journal remembers what each plugin did for each attachment, so that
// DEL, GC, reconcile and ls are complete without the runtime's memory.
//
// An attachment of a plugin has one small file in /run/netcleat/<network>/. A
// file that ends in ".pending" marks an operation in progress: it is written
// before the first change, is locked (flock) as long as the operation runs, and
// holds what is needed to take the changes back. When the result has been
// written, the record takes its final name by rename and the pending file goes.
// A pending file without a lock is what a killed operation left behind.
//
// Boot clears the directory, which is right: no namespace outlives a boot.
package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
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
	HostID  netns.ID  `json:"hostID"`
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
	dir   Dir
	lock  int
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
// operation on it until ctx ends (ErrBusy). The caller must Close the Entry.
func (d Dir) Open(ctx context.Context, k Key) (*Entry, error) {
	lock, err := lockFile(ctx, d.path(k)+pendingSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(d.network(k.Network), 0o700); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		lock, err = lockFile(ctx, d.path(k)+pendingSuffix)
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	e := &Entry{dir: d, lock: lock, Record: Record{Key: k}}
	if err := e.load(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// load reads the finished record and the pending one. Where there are both, the
// pending one is as new or newer, and speaks of a finished attachment.
func (e *Entry) load() error {
	path := e.dir.path(e.Key)
	for _, f := range []struct {
		path  string
		found Found
	}{{path, Done}, {path + pendingSuffix, Pending}} {
		if f.found == Pending && e.fresh() {
			break
		}
		r, err := read(f.path)
		if errors.Is(err, errEmpty) || errors.Is(err, fs.ErrNotExist) {
			continue // fresh, or killed before its first change
		}
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		e.Record = r
		if e.Found == Nothing {
			e.Found = f.found
		}
	}
	return nil
}

// fresh reports whether the pending file is empty: no operation has begun.
func (e *Entry) fresh() bool {
	var st unix.Stat_t
	return unix.Fstat(e.lock, &st) == nil && st.Size == 0
}

// Begin writes e's record as pending: call it before the first change.
func (e *Entry) Begin() error {
	if err := remove(e.dir.path(e.Key) + leavingSuffix); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	e.Version = version
	if err := errors.Join(unix.Ftruncate(e.lock, 0), pwriteAll(e.lock, e.encode())); err != nil {
		return fmt.Errorf("journal: write %s: %w", e.dir.path(e.Key)+pendingSuffix, err)
	}
	return nil
}

// Done makes e's record that of a finished attachment: call it when the result
// has been written.
func (e *Entry) Done() error {
	e.Version = version
	path := e.dir.path(e.Key)
	if err := replaceFile(path, e.encode()); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return e.unpend()
}

// Remove forgets the attachment: nothing of it is left.
func (e *Entry) Remove() error {
	path := e.dir.path(e.Key)
	return errors.Join(remove(path), remove(path+tempSuffix), e.unpend(), remove(path+leavingSuffix))
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

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// Abandon ends an operation that took back all it did: a finished record stays
// as the operation found it.
func (e *Entry) Abandon() error {
	return errors.Join(remove(e.dir.path(e.Key)+leavingSuffix), e.unpend())
}

// Restart forgets what an earlier operation left, and keeps the lock for the
// one that follows.
func (e *Entry) Restart() error {
	path := e.dir.path(e.Key)
	return errors.Join(remove(path), remove(path+tempSuffix), os.NewSyscallError("ftruncate", unix.Ftruncate(e.lock, 0)))
}

// unpend removes the pending file, which also is the lock's; whoever waits for
// it sees that it is gone and starts over.
func (e *Entry) unpend() error { return remove(e.dir.path(e.Key) + pendingSuffix) }

// Close ends the operation and lets the next one in. A pending record that was
// neither Done nor Removed stays for the next ADD, DEL or GC.
func (e *Entry) Close() error {
	var st unix.Stat_t
	if err := unix.Fstat(e.lock, &st); err == nil && st.Size == 0 && st.Nlink > 0 {
		_ = e.unpend() // nothing was begun: leave no empty file behind
	}
	return unix.Close(e.lock)
}

// SetState stores the plugin's own part of the record.
func (e *Entry) SetState(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	e.State = b
	return nil
}

// GetState reads the plugin's own part of the record into v; an absent one
// leaves v as it is.
func (r *Record) GetState(v any) error {
	if len(r.State) == 0 {
		return nil
	}
	return json.Unmarshal(r.State, v)
}

// Read returns the record of an attachment, finished or pending, without
// locking it. One that does not exist satisfies errors.Is(err, fs.ErrNotExist).
func (d Dir) Read(k Key) (Record, error) {
	r, err := read(d.path(k))
	if errors.Is(err, fs.ErrNotExist) {
		r, err = read(d.path(k) + pendingSuffix)
	}
	if errors.Is(err, errEmpty) {
		err = fs.ErrNotExist
	}
	return r, err
}

// Network returns the records of one network, pending ones included, without
// locking them. What cannot be read is joined to the error; the rest is
// returned all the same.
func (d Dir) Network(name string) ([]Record, error) {
	files, err := os.ReadDir(d.network(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	errs := []error{err}
	byKey := map[Key]Record{}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), tempSuffix) || strings.HasSuffix(f.Name(), leavingSuffix) {
			continue
		}
		r, err := read(filepath.Join(d.network(name), f.Name()))
		if errors.Is(err, errEmpty) || errors.Is(err, fs.ErrNotExist) {
			continue // an operation that has not begun, or has ended meanwhile
		}
		if _, done := byKey[r.Key]; err != nil || done && strings.HasSuffix(f.Name(), pendingSuffix) {
			errs = append(errs, err)
			continue
		}
		byKey[r.Key] = r
	}
	all := make([]Record, 0, len(byKey))
	for _, r := range byKey {
		all = append(all, r)
	}
	return all, errors.Join(errs...)
}

// Any reports whether a record of the network matches, pending ones included but
// not those that are being removed (Leave). It
// looks at one after the other until one does, so that its cost does not grow
// with the network where most do. pick says by its key's plugin which are worth
// reading. What cannot be read counts as a match: nothing may be taken from an
// attachment for want of knowledge.
func (d Dir) Any(network string, pick func(plugin string) bool, match func(Record) bool) (bool, error) {
	dir, err := os.Open(d.network(network))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("journal: %w", err)
	}
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(64)
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("journal: %w", err)
		}
		if d.anyOf(network, names, pick, match) {
			return true, nil
		}
	}
}

func (d Dir) anyOf(network string, names []string, pick func(string) bool, match func(Record) bool) bool {
	for _, name := range names {
		name = strings.TrimSuffix(strings.TrimSuffix(name, tempSuffix), pendingSuffix)
		path := filepath.Join(d.network(network), name)
		if !pick(name[strings.LastIndexByte(name, ':')+1:]) || exists(path+leavingSuffix) {
			continue
		}
		r, err := read(path)
		if errors.Is(err, fs.ErrNotExist) {
			r, err = read(path + pendingSuffix)
		}
		if errors.Is(err, fs.ErrNotExist) {
			r, err = read(path) // it became final meanwhile
		}
		if errors.Is(err, errEmpty) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || match(r) {
			return true
		}
	}
	return false
}

// locks is where Lock keeps its files. No network is called so.
const locks = ".locks"

// Lock takes a lock that all plugins share, waiting until ctx ends (ErrBusy);
// what names it: "masquerade of <network>". The lock order of the suite is: an
// attachment's record (Open), then at most one of these, then IPAM's.
func (d Dir) Lock(ctx context.Context, what string) (unlock func() error, err error) {
	dir := filepath.Join(string(d), locks)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	path := filepath.Join(dir, Cut(what, 2*readable))
	fd, err := lockFile(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	// Whoever waits sees that the file is gone and makes a new one.
	return func() error { return errors.Join(remove(path), unix.Close(fd)) }, nil
}

// Networks returns the names of all networks that have a record, each cut as
// Cut does to 200 bytes; Network takes them.
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

func (d Dir) network(name string) string { return filepath.Join(string(d), Cut(name, 2*readable)) }

// Cut returns name, or where it is longer than limit bytes its beginning and a
// hash of all of it: limit bytes together.
func Cut(name string, limit int) string {
	const hashed = 17 // "~" and 16 hex digits
	if len(name) <= limit {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:limit-hashed] + "~" + hex.EncodeToString(sum[:8])
}

var errEmpty = errors.New("empty record")

func read(path string) (Record, error) {
	b, err := readFile(path)
	if err != nil {
		return Record{}, err
	}
	if len(b) == 0 {
		return Record{}, errEmpty
	}
	r, err := decode(b)
	if err != nil {
		if strings.HasSuffix(path, pendingSuffix) {
			return Record{}, errEmpty // killed while writing it, which is before any change
		}
		return Record{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// lockFile opens or creates path and locks it, waiting until ctx ends.
func lockFile(ctx context.Context, path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		if err := Flock(ctx, fd); err != nil {
			return -1, errors.Join(fmt.Errorf("lock %s: %w", path, err), unix.Close(fd))
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return -1, errors.Join(&fs.PathError{Op: "stat", Path: path, Err: err}, unix.Close(fd))
		}
		if st.Nlink > 0 {
			return fd, nil
		}
		// Its last holder removed it while this call waited.
		if err := unix.Close(fd); err != nil {
			return -1, &fs.PathError{Op: "close", Path: path, Err: err}
		}
	}
}

// Flock locks fd exclusively, waiting until ctx ends; it then returns ErrBusy.
// The wait is the kernel's, not a poll.
func Flock(ctx context.Context, fd int) error {
	if err := flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return err
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
