package dnsd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/names"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// remote is another host's attachment to a network.
type remote struct {
	names.Attachment
	in []netip.Addr // at which it is answered with
}

// remotes are those to one network, by host and by all that is said of them.
type remotes map[string]map[string]*remote

// join adds the names of other hosts to a network to which this host has its first
// attachment; the book is locked.
func (b *book) join(n *network, first *entry) {
	for _, all := range b.remotes[n.name] {
		for _, r := range all {
			r.in = nil
			n.addRemote(first, r)
		}
	}
}

// setRemote replaces the names that another host has on a network.
func (b *book) setRemote(network, host string, list []names.Attachment) {
	next := map[string]*remote{}
	for _, a := range list {
		if text, err := a.Text(); err == nil {
			next[text] = &remote{Attachment: a}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	had := b.remotes[network][host]
	for text, r := range had {
		if next[text] != nil {
			next[text] = r
		} else if n := b.networks[network]; n != nil {
			n.removeRemote(r)
		}
	}
	if n := b.networks[network]; n != nil {
		for _, e := range n.byAddr { // any: all have the network's prefixes
			for text, r := range next {
				if had[text] == nil {
					n.addRemote(e, r)
				}
			}
			break
		}
	}
	b.keepRemote(network, host, next)
}

func (b *book) keepRemote(network, host string, all map[string]*remote) {
	if b.remotes[network] == nil {
		b.remotes[network] = remotes{}
	}
	b.remotes[network][host] = all
	if len(all) == 0 {
		delete(b.remotes[network], host)
	}
	if len(b.remotes[network]) == 0 {
		delete(b.remotes, network)
	}
}

// addRemote has a container of another host answered with. Its addresses must be the
// network's, as one of this host's attachments has them.
func (n *network) addRemote(local *entry, r *remote) {
	for _, ip := range r.Addrs {
		if local.covers(ip) {
			r.in = append(r.in, ip)
			n.remote[ip] = append(n.remote[ip], r)
			n.addTo(r.All(), ip)
		}
	}
}

func (n *network) removeRemote(r *remote) {
	for _, ip := range r.in {
		if n.remote[ip] = without(n.remote[ip], r); len(n.remote[ip]) == 0 {
			delete(n.remote, ip)
		}
		n.removeFrom(r.All(), ip)
	}
}

// hosts are those that have names on a network.
func (b *book) hosts(network string) []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return slices.Sorted(maps.Keys(b.remotes[network]))
}

// status says how many attachments other hosts have.
func (r remotes) status() (list []Host) {
	for _, host := range slices.Sorted(maps.Keys(r)) {
		list = append(list, Host{host, len(r[host])})
	}
	return list
}

// readRemotes reads the names of other hosts on all networks.
func (s *server) readRemotes() {
	s.book.mu.RLock()
	networks := slices.Collect(maps.Keys(s.book.remotes))
	s.book.mu.RUnlock()
	for _, n := range append(networks, names.Networks(s.dir)...) {
		for _, h := range append(s.book.hosts(n), names.Hosts(s.dir, n)...) {
			s.readRemote(n, h)
		}
	}
}

// readRemote reads the names that another host has on a network.
func (s *server) readRemote(network, host string) {
	list, err := names.Read(s.dir, network, host)
	if err != nil {
		s.log.Print(err)
		if len(list) == 0 {
			return // what is known stays
		}
	}
	s.book.setRemote(network, host, list)
}

// followers are cluster daemons, of which there is one: they are told of each attachment
// of which the names have changed.
type followers struct {
	mu  sync.Mutex
	all map[chan journal.Key]bool
}

// backlog is how many changes may wait for a follower. One that is slower has to connect
// again, and to read all records.
const backlog = 1024

func (f *followers) join() chan journal.Key {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[chan journal.Key]bool{}
	}
	c := make(chan journal.Key, backlog)
	f.all[c] = true
	return c
}

// tell does not wait. Names of containers/dnsname's are this host's alone.
func (f *followers) tell(k journal.Key) {
	if k.Plugin != dnsname.Name {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.all {
		select {
		case c <- k:
		default:
			f.end(c)
		}
	}
}

func (f *followers) leave(c chan journal.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end(c)
}

func (f *followers) end(c chan journal.Key) {
	if f.all[c] {
		delete(f.all, c)
		close(c)
	}
}

// follow tells a cluster daemon of changes, and reads again what it names, until one of
// them hangs up.
func (s *server) follow(conn net.Conn, from *bufio.Reader) error {
	changes := s.followers.join()
	defer s.followers.leave(changes)
	s.mu.Lock()
	s.readRemotes()
	s.mu.Unlock()
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "ok\n"); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- s.obey(from)
		s.followers.leave(changes)
	}()
	for k := range changes {
		err := conn.SetWriteDeadline(time.Now().Add(handshake))
		if err == nil {
			_, err = fmt.Fprintln(conn, names.Changed, k.Network, k.ContainerID, k.IfName)
		}
		if err != nil {
			break
		}
	}
	return errors.Join(conn.Close(), <-ended)
}

// obey reads another host's names again for each line, until there are no more.
func (s *server) obey(from *bufio.Reader) error {
	for {
		line, err := readLine(from)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		w := strings.Fields(line)
		if len(w) != 3 || w[0] != names.Remote {
			return fmt.Errorf("unknown request %.80q", line)
		}
		s.mu.Lock()
		s.readRemote(w[1], w[2])
		s.mu.Unlock()
	}
}
