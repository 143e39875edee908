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
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
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
