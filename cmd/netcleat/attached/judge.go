package attached

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// State says whether an attachment's sandbox exists.
type State string

// The states. What is neither seen nor provably gone is Unproven, and nothing
// may be taken from it.
const (
	Alive    State = "alive"
	Gone     State = "gone"
	Unproven State = "unproven"
)

// Verdict is a state and what it was seen by.
type Verdict struct {
	State State
	Why   string
}

// Judge tells attachments that live from those that are gone. It looks at the
// host that it was made in.
type Judge struct {
	host netns.ID
	conn *nl.Conn
	held func() (map[uint64]bool, error) // network namespaces that something holds
}

// NewJudge returns a judge. The caller closes it.
func NewJudge() (*Judge, error) {
	host, err := netns.Identify(netns.Own)
	if err != nil {
		return nil, err
	}
	conn, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	host.Cookie = netns.CookieOf(conn.Fd())
	held := sync.OnceValues(func() (map[uint64]bool, error) { return netns.Held("/proc") })
	return &Judge{host: host, conn: conn, held: held}, nil
}

// Twin returns a judge that may work at the same time as j, and shares what j
// finds out. The caller closes it.
func (j *Judge) Twin() (*Judge, error) {
	conn, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	return &Judge{host: j.host, conn: conn, held: j.held}, err
}

// Close ends the judge's work.
func (j *Judge) Close() error { return j.conn.Close() }

// Of judges an attachment by its records: one that shows the sandbox, or proves
// its end, speaks for those of the same sandbox.
func (j *Judge) Of(records []journal.Record) Verdict {
	verdict := Verdict{Unproven, "no record names a sandbox"}
	for _, r := range records {
		if r.NetnsID.Ino == 0 {
			continue
		}
		v := j.path(r)
		if v.State == Alive {
			return v
		}
		if verdict.State != Gone {
			verdict = v
		}
	}
	if verdict.State == Gone {
		return verdict
	}
	for _, r := range records {
		if v := j.traces(r); v.State == Gone {
			return v
		}
	}
	return verdict
}

// path judges by what the sandbox's path leads to now.
func (j *Judge) path(r journal.Record) Verdict {
	ns, err := netns.Open(r.Netns)
	if errors.Is(err, fs.ErrNotExist) {
		return Verdict{Unproven, r.Netns + " does not exist, but the namespace may"}
	}
	if err != nil {
		return Verdict{Unproven, err.Error()}
	}
	if ns.ID.Ino == r.NetnsID.Ino {
		err = ns.Cookie()
	}
	id := ns.ID
	_ = ns.Close()
	switch {
	case err != nil:
		return Verdict{Unproven, err.Error()}
	case id.Same(r.NetnsID):
		return Verdict{Alive, r.Netns}
	case id.Dev == r.NetnsID.Dev && id.Ino == r.NetnsID.Ino:
		// The kernel numbers anew only what has ended.
		return Verdict{Gone, r.Netns + " is a later namespace with the number of the sandbox's"}
	}
	return Verdict{Unproven, r.Netns + " leads to another namespace"}
}

// traces judges by what a sandbox that exists would show. A pair of veths dies
// with it, and the end on the host can be seen from all of the host's network
// namespace; of other sandboxes nothing must be left that holds them.
func (j *Judge) traces(r journal.Record) Verdict {
	if l, ok := hostEnd(r); ok && r.HostID.Same(j.host) {
		if !j.exists(l) {
			return Verdict{Gone, fmt.Sprintf("its end on the host, %s, is gone", l.Name)}
		}
		return Verdict{Unproven, fmt.Sprintf("its end on the host, %s, exists", l.Name)}
	}
	held, err := j.held()
	if err == nil && len(held) > 0 && r.NetnsID.Ino != 0 && !held[r.NetnsID.Ino] {
		return Verdict{Gone, fmt.Sprintf("nothing holds the namespace net:[%d]", r.NetnsID.Ino)}
	}
	return Verdict{Unproven, ""}
}

// hostEnd returns the end on the host of a veth pair that the record is about.
func hostEnd(r journal.Record) (journal.Link, bool) {
	if r.Plugin != "bridge" && r.Plugin != "ptp" {
		return journal.Link{}, false
	}
	for _, l := range r.Links {
		if !l.Sandbox && l.Index > 0 {
			return l, true
		}
	}
	return journal.Link{}, false
}

// exists reports whether the host has a link of the name or the index: it may
// have been renamed.
func (j *Judge) exists(l journal.Link) bool {
	_, byName := j.conn.LinkByName(l.Name)
	_, byIndex := j.conn.LinkByIndex(l.Index)
	return !nl.NotFound(byName) || !nl.NotFound(byIndex)
}
