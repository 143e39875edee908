package dnsd

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/netcleat/netcleat/plugins/dnsname"
)

const (
	// patience is how long all servers together are asked. Resolvers ask again
	// after five seconds (resolv.conf(5)).
	patience = 4 * time.Second
	// oneServer is how long one of them is waited for.
	oneServer = 1500 * time.Millisecond
	// avoided is how long a server that did not answer is asked after the others.
	avoided = 15 * time.Second
)

// upstreams are the servers that answer what is none of ours.
type upstreams struct {
	files []string // resolv.conf, and the one with the servers behind systemd-resolved's stub

	mu       sync.Mutex
	read     time.Time
	stamp    string // of the files that were read
	hosts    []netip.AddrPort
	down     map[netip.AddrPort]time.Time
	failures map[netip.AddrPort]int
}

func newUpstreams() *upstreams {
	return &upstreams{
		files: []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"},
		down:  map[netip.AddrPort]time.Time{}, failures: map[netip.AddrPort]int{},
	}
}

// stub is systemd-resolved's address.
var stub = netip.MustParseAddr("127.0.0.53")

// of returns the servers for an asker: its network's, or the host's; those that
// did not answer lately last. Our own addresses are not among them.
func (u *upstreams) of(who asker, own []netip.Addr) []netip.AddrPort {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := slices.Clone(who.upstreams)
	if len(list) == 0 {
		u.refresh()
		list = slices.Clone(u.hosts)
	}
	list = slices.DeleteFunc(list, func(s netip.AddrPort) bool { return s.Port() == dnsPort && slices.Contains(own, s.Addr()) })
	slices.SortStableFunc(list, func(a, b netip.AddrPort) int { return u.rank(a) - u.rank(b) })
	return list
}

func (u *upstreams) rank(s netip.AddrPort) int {
	if time.Since(u.down[s]) < avoided {
		return 1
	}
	return 0
}

// refresh reads the host's servers again, at most once a second, where the files
// have changed.
func (u *upstreams) refresh() {
	if time.Since(u.read) < time.Second {
		return
	}
	u.read = time.Now()
	stamp := ""
	for _, f := range u.files {
		if st, err := os.Stat(f); err == nil {
			stamp += fmt.Sprint(st.ModTime().UnixNano(), st.Size(), " ")
		}
	}
	if stamp == u.stamp && stamp != "" {
		return
	}
	u.stamp = stamp
	u.hosts = servers(u.files[0])
	if len(u.hosts) > 0 && u.hosts[0].Addr() == stub {
		if real := servers(u.files[1]); len(real) > 0 {
			u.hosts = real
		}
	}
}

// servers reads the servers of a resolv.conf.
func servers(file string) (list []netip.AddrPort) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if at, err := dnsname.ParseServer(words[1]); err == nil {
			list = append(list, at)
		}
	}
	return list
}

// failed remembers that a server did not answer; worked that it did.
func (u *upstreams) failed(s netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down[s] = time.Now()
	u.failures[s]++
}

func (u *upstreams) worked(s netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.down, s)
}

// forward asks one server after the other and returns the packet of the answer.
func (s *server) forward(q *dns.Msg, who asker, v via) []byte {
	s.stats.forwarded.Add(1)
	m := s.ask(q, s.upstreams.of(who, s.doors.addrs()))
	if m == nil {
		s.stats.failed.Add(1)
		m = respondTo(q, dns.RcodeServerFailure)
	}
	return pack(q, m, v)
}

// ask returns the first answer that settles the question, or else the first that
// there was.
func (s *server) ask(q *dns.Msg, list []netip.AddrPort) (refusal *dns.Msg) {
	deadline := time.Now().Add(patience)
	for i, server := range list {
		left := time.Until(deadline)
		if left <= 0 {
			break
		}
		// The last one has all the time that is left.
		wait := left
		if i < len(list)-1 {
			wait = min(oneServer, left/2)
		}
		m, err := exchange(q, server, wait)
		if err != nil {
			s.upstreams.failed(server)
			continue
		}
		s.upstreams.worked(server)
		if m.Rcode != dns.RcodeServerFailure && m.Rcode != dns.RcodeRefused && m.Rcode != dns.RcodeNotImplemented {
			return m
		}
		if refusal == nil {
			refusal = m
		}
	}
	return refusal
}

// exchange asks one server over UDP, and over TCP where the answer does not fit.
func exchange(q *dns.Msg, server netip.AddrPort, wait time.Duration) (*dns.Msg, error) {
	deadline := time.Now().Add(wait)
	m, err := over("udp", q, server, deadline)
	if err != nil || !m.Truncated {
		return m, err
	}
	if full, err := over("tcp", q, server, deadline); err == nil {
		return full, nil
	}
	return m, nil // a part is better than nothing, and says that it is one
}

// over asks from a socket of its own, and so from a random port, with a random ID.
// The socket is connected: the kernel lets in only what comes from the server. What
// does not answer the question with that ID is ignored.
func over(network string, q *dns.Msg, server netip.AddrPort, deadline time.Time) (*dns.Msg, error) {
	query := question(q)
	packet, err := query.Pack()
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Deadline: deadline}
	c, err := d.Dial(network, server.String())
	if err != nil {
		return nil, err
	}
	conn := &dns.Conn{Conn: c, UDPSize: udpSize}
	defer func() { _ = conn.Close() }() // the answer is what counts
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := conn.Write(packet); err != nil {
		return nil, err
	}
	for {
		b, err := conn.ReadMsgHeader(nil)
		if err != nil && !errors.Is(err, dns.ErrShortRead) {
			return nil, err
		}
		m := new(dns.Msg)
		if err == nil && m.Unpack(b) == nil && answers(m, query) {
			return received(m, q), nil
		}
		if network == "tcp" {
			return nil, errors.New("not an answer")
		}
	}
}

// question is the query as others are asked: with an ID and EDNS0 of our own.
func question(q *dns.Msg) *dns.Msg {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true, CheckingDisabled: q.CheckingDisabled, AuthenticatedData: q.AuthenticatedData}}
	m.Question = q.Question
	opt := q.IsEdns0()
	m.SetEdns0(udpSize, opt != nil && opt.Do())
	return m
}

func answers(m, query *dns.Msg) bool {
	return m.Response && m.Id == query.Id && len(m.Question) == 1 && m.Question[0].Qtype == query.Question[0].Qtype &&
		m.Question[0].Qclass == query.Question[0].Qclass && strings.EqualFold(m.Question[0].Name, query.Question[0].Name)
}

// received makes a server's answer one to the asker.
func received(m, q *dns.Msg) *dns.Msg {
	m.Id, m.Question, m.RecursionAvailable, m.Compress = q.Id, q.Question, true, true
	m.RecursionDesired = q.RecursionDesired
	m.Extra = slices.DeleteFunc(m.Extra, func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeOPT })
	return m
}
