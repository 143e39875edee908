// Package dnsd answers the names of containers: `netcleat dns daemon`.
//
// What it knows is in the records of the plugin dnsname, from which it rebuilds
// everything when it starts. It holds no namespace, no descriptor of a sandbox
// and no file, so it can be killed at any time.
package dnsd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/names"
	"github.com/netcleat/netcleat/cmd/netcleat/socket"
	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// server is the daemon.
type server struct {
	dir       journal.Dir
	log       *log.Logger
	host      netns.ID
	book      *book
	doors     *doors
	links     *links
	limits    *limits
	upstreams *upstreams
	stats     stats
	started   time.Time

	mu     sync.Mutex               // one record is read at a time, so that what was read last counts
	empty  time.Time                // since when there is no attachment; zero is not
	ending bool                     // nothing is answered any more: the next daemon is to be asked
	left   map[string][]journal.Key // what containers/dnsname has left, by network

	followers followers
}

// errEnding has the plugin ask again, and so start the next daemon.
var errEnding = errors.New("ending")

// stats count since the start.
type stats struct {
	queries, answered, forwarded, failed, refused, dropped atomic.Uint64
}

func newServer(dir journal.Dir, logger *log.Logger) (*server, error) {
	host, err := netns.Identify(netns.Own)
	if err != nil {
		return nil, err
	}
	s := &server{
		dir: dir, log: logger, host: host, book: newBook(), links: &links{names: map[int]string{}}, limits: newLimits(),
		upstreams: newUpstreams(), started: time.Now(), empty: time.Now(), left: map[string][]journal.Key{},
	}
	s.doors = &doors{s: s, at: map[netip.Addr]*door{}}
	return s, nil
}

// load reads the records of all attachments. What is known and has no record is
// forgotten. A daemon that starts listens when it has read all: until then it
// would deny names that it is about to read.
func (s *server) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return errEnding
	}
	networks, err := s.dir.Networks()
	if err != nil {
		return err
	}
	s.readRemotes()
	known := map[journal.Key]bool{}
	var errs []error
	var taken []*entry
	for _, n := range networks {
		records, bad, err := s.dir.Of(n, dnsname.Name)
		errs = append(errs, err)
		for _, r := range records {
			known[r.Key] = true
			e, err := s.take(r)
			if errs = append(errs, err); e != nil {
				taken = append(taken, e)
			}
		}
		for _, b := range bad { // what was read of it before stays
			known[b.Key] = true
			s.log.Print(b.Err)
		}
	}
	for _, e := range taken {
		errs = append(errs, s.open(e))
	}
	for _, k := range s.keys() {
		if !known[k] && k.Plugin == dnsname.Name {
			s.forget(k)
		}
	}
	return errors.Join(append(errs, s.formers())...)
}

func (s *server) keys() (all []journal.Key) {
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	for k := range s.book.entries {
		all = append(all, k)
	}
	return all
}

// sync reads the record of one attachment again.
func (s *server) sync(k journal.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return errEnding
	}
	// First the names that were there, at addresses that may be others' by now.
	return errors.Join(s.former(k.Network), s.syncRecord(k))
}

func (s *server) syncRecord(k journal.Key) error {
	if s.dir.Leaving(k) {
		s.forget(k)
		return nil
	}
	e, err := s.dir.Peek(k)
	if err != nil {
		return err
	}
	if e.Found == journal.Nothing {
		s.forget(k)
		return nil
	}
	taken, err := s.take(e.Record)
	if taken == nil || err != nil {
		return err
	}
	return s.open(taken)
}

// take answers by a record from here on; nil says that there is nothing to answer.
// Records of another network namespace have their gateways there, and those of an
// earlier boot are of containers that ended.
func (s *server) take(r journal.Record) (*entry, error) {
	if boot.Earlier(r.Boot) {
		return nil, nil
	}
	if r.HostID.Ino != 0 && !r.HostID.Same(s.host) {
		return nil, fmt.Errorf("attachment of %s to %s: it was made from another network namespace, net:[%d]", r.ContainerID, r.Network, r.HostID.Ino)
	}
	e, err := newEntry(r)
	if err != nil || len(e.Gateways) == 0 {
		return nil, err // not written yet
	}
	if !s.enter(e) {
		return nil, nil
	}
	return e, nil
}

// enter puts an attachment into the book, and reports false where its address belongs
// to a later one.
func (s *server) enter(e *entry) bool {
	s.links.forget()
	for _, old := range s.book.put(e) {
		s.doors.leave(old)
		if old.Key != e.Key {
			s.followers.tell(old.Key)
		}
	}
	if s.book.get(e.Key) != e {
		return false
	}
	s.doors.use(e)
	s.empty = time.Time{}
	s.followers.tell(e.Key)
	return true
}

// open listens where the attachment's queries come in. What cannot be opened is
// tried again every second.
func (s *server) open(e *entry) error {
	var errs []error
	for _, gw := range e.Gateways {
		if err := s.doors.open(gw); err != nil {
			errs = append(errs, fmt.Errorf("listen at %s: %w", gw, err))
		}
	}
	return errors.Join(errs...)
}

// forget answers no longer with an attachment's names.
func (s *server) forget(k journal.Key) {
	if e := s.book.drop(k); e != nil {
		s.doors.leave(e)
		s.followers.tell(k)
	}
	if s.book.size() == 0 && s.empty.IsZero() {
		s.empty = time.Now()
	}
}

// endIdle ends the daemon if there has been no attachment for the time, and
// reports whether it did.
func (s *server) endIdle(after time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = !s.empty.IsZero() && time.Since(s.empty) > after
	return s.ending
}

// verify says what of an attachment is not answered as its record says.
func (s *server) verify(k journal.Key) error {
	e := s.book.get(k)
	if e == nil {
		return fmt.Errorf("attachment of %s to %s: its names are not known", k.ContainerID, k.Network)
	}
	var errs []error
	for _, gw := range e.Gateways {
		if err := s.doors.problem(gw); err != nil {
			errs = append(errs, fmt.Errorf("address %s: %w", gw, err))
		}
	}
	return errors.Join(errs...)
}

// serve answers one plugin.
func (s *server) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }() // the answer was written, or the plugin is not there
	if err := s.answer(conn); err != nil {
		s.log.Printf("socket: %v", err)
	}
}

// handshake bounds how long a connection may take to say what it wants.
const handshake = 10 * time.Second

// maxLine bounds what is read at a time.
const maxLine = 2048

func readLine(from *bufio.Reader) (string, error) {
	b, err := from.ReadSlice('\n')
	return string(b), err
}

// answer answers one line.
func (s *server) answer(conn net.Conn) error {
	if err := socket.Authorised(conn); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(handshake)); err != nil {
		return err
	}
	from := bufio.NewReaderSize(conn, maxLine)
	line, err := readLine(from)
	if errors.Is(err, io.EOF) && line == "" {
		return nil // a probe that only connects
	}
	if err != nil {
		return err
	}
	words := strings.Fields(line)
	if len(words) == 1 && words[0] == names.Follow {
		return s.follow(conn, from)
	}
	text, err := s.act(words)
	if errors.Is(err, errEnding) {
		return nil
	}
	if err != nil {
		_, err = io.WriteString(conn, "error "+strings.ReplaceAll(err.Error(), "\n", "; ")+"\n")
		return err
	}
	_, err = io.WriteString(conn, "ok\n"+text)
	return err
}

func (s *server) act(words []string) (string, error) {
	key := func() journal.Key {
		return journal.Key{Network: words[1], ContainerID: words[2], IfName: words[3], Plugin: dnsname.Name}
	}
	switch {
	case len(words) == 1 && words[0] == "status":
		return s.status()
	case len(words) == 1 && words[0] == "reload":
		return "", s.load()
	case len(words) == 4 && words[0] == "sync":
		return "", s.sync(key())
	case len(words) == 4 && words[0] == "verify":
		return "", s.verify(key())
	}
	return "", fmt.Errorf("unknown request %q", strings.Join(words, " "))
}
