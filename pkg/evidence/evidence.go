// Package evidence alone decides whether the owner of something is dead, alive or
// unknown. What acts on other owners than the one that a DEL or a GC names asks it
// first, and touches nothing of an owner that is alive or unknown.
//
// An owner is dead only where its sandbox, its end on the host and the holders of
// its namespace could be looked at, and none of them is there. A path that does not
// exist, a record that cannot be read, and what is in another network namespace
// prove nothing. One sign of life outweighs all signs of death.
package evidence

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// State says whether an owner exists.
type State string

// The states. Nothing may be taken from an owner that is not Dead.
const (
	Alive   State = "alive"
	Dead    State = "dead"
	Unknown State = "unknown"
)

// Verdict is a state and what it was seen by, in words.
type Verdict struct {
	State State
	Why   string
}

func alive(format string, args ...any) Verdict { return Verdict{Alive, fmt.Sprintf(format, args...)} }

func dead(format string, args ...any) Verdict { return Verdict{Dead, fmt.Sprintf(format, args...)} }

func unknown(format string, args ...any) Verdict {
	return Verdict{Unknown, fmt.Sprintf(format, args...)}
}

// Judge decides on owners. It looks at the host's network namespace that it was
// made in.
type Judge struct {
	host   netns.ID
	boot   uint64
	conn   *nl.Conn
	exists func(netns.ID) (bool, error)      // asks the kernel
	held   func() (map[uint64]string, error) // netns.Held, once
	find   func(journal.Link) (bool, error)  // a link of the host
}

// New returns a judge. The caller closes it.
func New() (*Judge, error) {
	host, err := netns.Identify(netns.Own)
	if err != nil {
		return nil, err
	}
	conn, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	host.Cookie = netns.CookieOf(conn.Fd())
	j := &Judge{host: host, boot: boot.ID(), conn: conn, exists: netns.Exists}
	j.held = sync.OnceValues(func() (map[uint64]string, error) { return netns.Held("/proc") })
	j.find = j.link
	return j, nil
}

// Twin returns a judge that may work at the same time as j, and shares what j
// finds out. The caller closes it.
func (j *Judge) Twin() (*Judge, error) {
	conn, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	t := *j
	t.conn = conn
	t.find = t.link
	return &t, nil
}

// Close ends the judge's work.
func (j *Judge) Close() error { return j.conn.Close() }

// Host is the namespace that the judge looks at.
func (j *Judge) Host() netns.ID { return j.host }

// Here reports whether all of it was made from the host that the judge looks at.
// What was made from another network namespace has its links and rules there.
func (j *Judge) Here(records []journal.Record) bool {
	for _, r := range records {
		if !r.HostID.Same(j.host) {
			return false
		}
	}
	return true
}

// Removable reports whether a dead attachment can be removed from here: it was made
// from this host, or from one that no longer exists.
func (j *Judge) Removable(records []journal.Record) bool {
	for _, r := range records {
		if !r.HostID.Same(j.host) && !j.earlier(r) && !j.hostEnded(r.HostID) {
			return false
		}
	}
	return true
}

// earlier reports whether a record is of an earlier boot.
func (j *Judge) earlier(r journal.Record) bool {
	return r.Boot != 0 && j.boot != 0 && r.Boot != j.boot
}

func (j *Judge) hostEnded(id netns.ID) bool {
	return id.Ino != 0 && j.Sandbox("", id).State == Dead
}

// Of judges an attachment by all its records. One sign of life is enough; dead it
// is where every sandbox that they name is.
func (j *Judge) Of(records []journal.Record) Verdict {
	verdict, judged := unknown(unnamed), false
	for _, r := range records {
		v := j.record(r)
		switch {
		case v.State == Alive:
			return v
		case v.State == Unknown && r.NetnsID.Ino == 0:
			// It names no sandbox, and leaves the verdict to the others.
		case !judged || v.State == Unknown:
			verdict, judged = v, true
		}
	}
	return verdict
}

const unnamed = "no record names a sandbox"

// record judges by one record. What costs least comes first: all holders are
// looked for where nothing else tells.
func (j *Judge) record(r journal.Record) Verdict {
	if j.earlier(r) {
		return dead("it was attached in an earlier boot")
	}
	if r.NetnsID.Ino == 0 {
		if v := j.ends(r); v.State == Alive {
			return v
		}
		return unknown(unnamed)
	}
	at := j.path(r.Netns, r.NetnsID)
	if at.State == Alive {
		return at
	}
	ends := j.ends(r)
	if ends.State == Alive {
		return ends
	}
	sandbox := at
	if at.State == Unknown {
		sandbox = j.namespace(r.NetnsID, at)
	}
	if sandbox.State == Dead && ends.State == Unknown {
		return ends
	}
	return sandbox
}

// Sandbox judges a namespace that was at path by its identity alone.
func (j *Judge) Sandbox(path string, id netns.ID) Verdict {
	at := j.path(path, id)
	if at.State != Unknown {
		return at
	}
	return j.namespace(id, at)
}

// Open opens a namespace that was at path, wherever it is now. Where it cannot be
// opened from here, the verdict says whether it has ended.
func (j *Judge) Open(path string, id netns.ID) (*netns.NS, Verdict) {
	v := j.Sandbox(path, id)
	if v.State == Dead {
		return nil, v
	}
	if ns, err := netns.Reopen(id); err == nil {
		return ns, v
	}
	paths := []string{path}
	if held, err := j.held(); err == nil {
		paths = append(paths, held[id.Ino])
	}
	for _, p := range paths {
		ns, err := netns.Open(p)
		if err != nil {
			continue
		}
		if ns.Cookie() == nil && ns.ID.Same(id) {
			return ns, v
		}
		_ = ns.Close() // it was only looked at
	}
	return nil, v
}

// absent is what a path without a namespace says. It is no obstacle to looking
// elsewhere.
const absent = "no namespace is there"

// path judges by what the sandbox's path leads to now. What it does not lead to
// may be at another path, or be seen from another mount namespace only.
func (j *Judge) path(path string, id netns.ID) Verdict {
	ns, err := netns.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return unknown(absent)
	}
	if err != nil {
		return unknown("%v", err)
	}
	defer func() { _ = ns.Close() }() // it was only looked at
	if ns.ID.Ino != id.Ino {
		return unknown(absent)
	}
	if err := ns.Cookie(); err != nil {
		return unknown("%v", err)
	}
	if ns.ID.Same(id) {
		return alive("%s", path)
	}
	// The kernel gives a number again only when the namespace that had it has ended.
	return dead("%s is a later namespace with the number of the sandbox's", path)
}

// namespace judges by who knows or holds the namespace, wherever it is. path says
// what its path has told.
func (j *Judge) namespace(id netns.ID, path Verdict) Verdict {
	there, err := j.exists(id)
	switch {
	case err == nil && there:
		return alive("the namespace net:[%d] exists", id.Ino)
	case err == nil:
		return dead("the namespace net:[%d] no longer exists", id.Ino)
	case !errors.Is(err, netns.ErrUnsupported):
		return unknown("%v", err)
	}
	held, err := j.held()
	if err != nil {
		return unknown("%v", err)
	}
	holder, found := held[id.Ino]
	if !found && path.Why == absent {
		return dead("nothing holds the namespace net:[%d]", id.Ino)
	}
	if !found {
		return path
	}
	if v := j.path(holder, id); v.State != Unknown {
		return v
	}
	return unknown("something holds the namespace net:[%d]", id.Ino)
}

// ends judges by the ends on the host of the pairs that the record speaks of,
// which exist as long as the other ends do. That there is none proves nothing
// alone: it may have been moved to another namespace.
func (j *Judge) ends(r journal.Record) Verdict {
	verdict := dead("it has no end on the host")
	for _, l := range hostEnds(r) {
		if !r.HostID.Same(j.host) {
			if j.hostEnded(r.HostID) {
				continue // and the end with it
			}
			verdict = unknown("its end on the host, %s, cannot be seen from here: it was attached from another network namespace, net:[%d]", l.Name, r.HostID.Ino)
			continue
		}
		there, err := j.find(l)
		if there {
			return alive("its end on the host, %s, exists", l.Name)
		}
		if err != nil {
			verdict = unknown("%v", err)
		}
	}
	return verdict
}

// hostEnds returns the ends on the host of veth pairs that the record is about:
// other links do not end with the sandbox.
func hostEnds(r journal.Record) (ends []journal.Link) {
	if r.Plugin != "bridge" && r.Plugin != "ptp" {
		return nil
	}
	for _, l := range r.Links {
		if !l.Sandbox {
			ends = append(ends, l)
		}
	}
	return ends
}

// link looks for a link of the host by index and by name: it may have been
// renamed.
func (j *Judge) link(l journal.Link) (bool, error) {
	var errs []error
	if l.Index > 0 {
		_, err := j.conn.LinkByIndex(l.Index)
		if err == nil {
			return true, nil
		}
		errs = append(errs, err)
	}
	_, err := j.conn.LinkByName(l.Name)
	if err == nil {
		return true, nil
	}
	for _, err := range append(errs, err) {
		if !nl.NotFound(err) {
			return false, err
		}
	}
	return false, nil
}
