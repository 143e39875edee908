package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/fields"
)

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

// Abandon ends an operation that took back all it did: a finished record stays
// as the operation found it.
func (e *Entry) Abandon() error {
	path := e.dir.path(e.Key)
	return errors.Join(remove(path+tempSuffix), remove(path+leavingSuffix), e.unpend())
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
