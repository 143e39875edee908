package connect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/netns"
)

// Sandbox is a container's network namespace. It is held open, so that it stays
// the one that was looked at, though its path comes to name another.
type Sandbox struct {
	Path string
	ns   *netns.NS   // nil: there is none at Path any more
	proc *os.Process // whose namespace it is; nil where a path was named
}

// At opens the namespace at a path.
func At(path string) (*Sandbox, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return opened(&Sandbox{Path: path})
}

// Of opens the namespace of a process. The plugins get its path below /proc: that
// it did not come to be another process's is what the handle proves, afterwards.
func Of(pid int) (*Sandbox, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("pid %d: want a process's number", pid)
	}
	proc, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", pid, err)
	}
	return opened(&Sandbox{Path: fmt.Sprintf("/proc/%d/ns/net", pid), proc: proc})
}

func opened(s *Sandbox) (*Sandbox, error) {
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Sandbox) open() error {
	ns, err := netns.Open(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // Gone
	}
	if err != nil {
		return err
	}
	host, err := netns.Identify(netns.Own)
	if err == nil && host.Same(ns.ID) {
		err = fmt.Errorf("%s: is the host's own network namespace, not a container's", s.Path)
	}
	if err == nil {
		err = ns.Cookie()
	}
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	s.ns = ns
	return nil
}

// Close lets the namespace go.
func (s *Sandbox) Close() error {
	var err error
	if s.proc != nil {
		err = s.proc.Release()
	}
	if s.ns != nil {
		err = errors.Join(err, s.ns.Close())
	}
	return err
}

// Gone reports whether there is no namespace at the path.
func (s *Sandbox) Gone() bool { return s.ns == nil }

// ContainerID is made of the namespace alone, "" where that is gone.
func (s *Sandbox) ContainerID() string {
	if s.Gone() {
		return ""
	}
	return attached.ConnectID(s.ns.ID)
}

// same reports whether the path still leads to the namespace.
func (s *Sandbox) same() error {
	if s.proc != nil {
		if err := s.proc.Signal(unix.Signal(0)); err != nil {
			return fmt.Errorf("pid %d: has ended meanwhile: %w", s.proc.Pid, err)
		}
	}
	ns, err := netns.Open(s.Path)
	if err != nil {
		return fmt.Errorf("the container has ended meanwhile: %w", err)
	}
	err = ns.Cookie()
	if err == nil && !ns.ID.Same(s.ns.ID) {
		err = fmt.Errorf("%s: has come to be another container's meanwhile", s.Path)
	}
	return errors.Join(err, ns.Close())
}

// holds reports whether the attachment is in the namespace, whoever made it.
func (s *Sandbox) holds(r show.Row) bool {
	if r.Container == s.ContainerID() {
		return true
	}
	id, err := netns.Identify(r.Netns)
	return err == nil && !s.Gone() && id.Same(s.ns.ID)
}

// refuseTwice refuses a container that is on the network already: two interfaces
// in one subnet get in each other's way.
func (s *Sandbox) refuseTwice(n show.Network) error {
	if s.Gone() {
		return fmt.Errorf("%s: no network namespace there: has the container ended?", s.Path)
	}
	for _, r := range n.Containers {
		if s.holds(r) {
			return fmt.Errorf("network %s: the container is on it already, by %s of %s", n.Name, r.Interface, r.Called())
		}
	}
	return nil
}

// find returns the container's attachment among those of a network. One whose
// namespace is gone is found by its path.
func (s *Sandbox) find(rows []show.Row, ifName string) (found show.Row, err error) {
	others := ""
	n := 0
	for _, r := range rows {
		_, _, connected := attached.Connected(r.Container)
		ours := connected && (s.Gone() && r.Netns == s.Path || r.Container == s.ContainerID())
		switch {
		case ifName != "" && r.Interface != ifName:
		case ours:
			found = r
			n++
		case s.holds(r):
			others = fmt.Sprintf(": its %s is of container %s, whose runtime has to detach it", r.Interface, r.Container)
		}
	}
	switch {
	case n == 1:
		return found, nil
	case n > 1:
		return found, fmt.Errorf("%s has %d attachments: name one by --ifname", s.Path, n)
	}
	return found, fmt.Errorf("%s is not connected to it%s", s.Path, others)
}
