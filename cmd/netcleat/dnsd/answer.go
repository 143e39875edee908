package dnsd

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	// udpSize is what answers over UDP are cut to where the asker takes more: they
	// pass everywhere without fragments (DNS flag day 2020).
	udpSize = 1232
	// maxTCP bounds the records of an answer over TCP, in bytes.
	maxTCP = 64000
	noTTL  = 0
)

// reply is what becomes of a query: an answer, nothing, or a question to others.
type reply struct {
	packet  []byte
	forward *dns.Msg // the query, where others are asked
	who     asker
}

// respond answers a query's packet. What cannot be read or is no query is not
// answered: it would cost more than to drop it, and two servers could go on
// answering each other for ever.
func (s *server) respond(packet []byte, at arrival, v via) reply {
	var q dns.Msg
	if err := q.Unpack(packet); err != nil || q.Response {
		s.stats.dropped.Add(1)
		return reply{}
	}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		return s.plain(&q, dns.RcodeNotImplemented)
	case len(q.Question) != 1:
		return s.plain(&q, dns.RcodeFormatError)
	case q.Question[0].Qclass != dns.ClassINET && q.Question[0].Qclass != dns.ClassANY:
		return s.plain(&q, dns.RcodeRefused)
	}
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	who, known := s.book.who(at, s.links)
	if !known {
		s.stats.refused.Add(1)
		return s.plain(&q, dns.RcodeRefused)
	}
	m, ours := s.local(&q, who, v)
	switch {
	case ours:
		s.stats.answered.Add(1)
		return reply{packet: pack(&q, m, v)}
	case !who.outward:
		s.stats.refused.Add(1)
		return s.plain(&q, dns.RcodeRefused)
	case !q.RecursionDesired:
		return s.plain(&q, dns.RcodeRefused)
	}
	return reply{forward: &q, who: who}
}

// plain is an answer without records.
func (s *server) plain(q *dns.Msg, code int) reply {
	return reply{packet: pack(q, respondTo(q, code), via{})}
}

func respondTo(q *dns.Msg, code int) *dns.Msg {
	m := new(dns.Msg).SetRcode(q, code)
	m.RecursionAvailable = true
	m.Compress = true
	return m
}

// via is how a query came in.
type via struct{ tcp bool }

// room is how many bytes the answer may have.
func (v via) room(q *dns.Msg) int {
	if v.tcp {
		return maxTCP
	}
	if opt := q.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), udpSize)
	}
	return dns.MinMsgSize
}

// pack writes an answer, cut to what the asker takes, with EDNS0 if the query has
// it.
func pack(q, m *dns.Msg, v via) []byte {
	if opt := q.IsEdns0(); opt != nil && m.IsEdns0() == nil {
		m.SetEdns0(udpSize, opt.Do())
	}
	b, err := m.Pack()
	if err != nil || len(b) > v.room(q) {
		m.Truncate(v.room(q))
		if b, err = m.Pack(); err != nil {
			b, _ = respondTo(q, dns.RcodeServerFailure).Pack() // q has been read
		}
	}
	return b
}

// local answers from the book, which is locked, what it has an answer to.
func (s *server) local(q *dns.Msg, who asker, v via) (m *dns.Msg, ours bool) {
	asked := q.Question[0]
	text := strings.ToLower(strings.TrimSuffix(asked.Name, "."))
	if isReverse(text) {
		return s.reverse(q, who, text)
	}
	list, verdict := s.book.find(who, text)
	if verdict == foreign || verdict == unknown && isDelegation(asked.Qtype, text) {
		return nil, false
	}
	m = respondTo(q, dns.RcodeSuccess)
	m.Authoritative = true
	if verdict == unknown {
		m.Rcode = dns.RcodeNameError
		return m, true
	}
	room := v.room(q)
	if asked.Qtype == dns.TypeA || asked.Qtype == dns.TypeANY {
		s.addresses(m, list, family{false, room})
	}
	if asked.Qtype == dns.TypeAAAA || asked.Qtype == dns.TypeANY {
		s.addresses(m, list, family{true, room})
	}
	return m, true
}

// isDelegation reports whether the question is about the world's domains, not
// about a host: servers in containers ask for them.
func isDelegation(qtype uint16, text string) bool {
	return !strings.Contains(text, ".") && (text == "" || slices.Contains([]uint16{dns.TypeNS, dns.TypeDS, dns.TypeDNSKEY, dns.TypeSOA}, qtype))
}

// family says which addresses an answer has, and how many bytes.
type family struct {
	v6   bool
	room int
}

// addresses adds the addresses of all the names, each answer beginning with the
// one after that which the last began with. What does not fit is left out: then
// the answer says that it is truncated, but over TCP, where there is no more room.
func (s *server) addresses(m *dns.Msg, list []*name, f family) {
	asked := m.Question[0].Name
	header := dns.RR_Header{Name: asked, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: noTTL}
	size := 16 // name as a pointer, type, class, TTL, length, address
	if f.v6 {
		header.Rrtype, size = dns.TypeAAAA, 28
	}
	total := 0
	for _, n := range list {
		all, _ := n.of(f.v6)
		total += len(all)
	}
	if total == 0 {
		return
	}
	const optSize = 11
	fits := (f.room - 12 - len(asked) - 1 - 4 - optSize) / size
	_, counter := list[0].of(f.v6)
	start := int(counter.Add(1)-1) % total
	m.Answer = slices.Grow(m.Answer, min(total, fits))
	for i := range min(total, fits) {
		m.Answer = append(m.Answer, record(header, nth(list, f.v6, (start+i)%total)))
	}
	m.Truncated = total > fits && f.room < maxTCP
}

// nth is the i-th address of all the names together.
func nth(list []*name, v6 bool, i int) netip.Addr {
	for _, n := range list {
		all, _ := n.of(v6)
		if i < len(all) {
			return all[i]
		}
		i -= len(all)
	}
	return netip.Addr{}
}

func record(h dns.RR_Header, a netip.Addr) dns.RR {
	if h.Rrtype == dns.TypeAAAA {
		return &dns.AAAA{Hdr: h, AAAA: net.IP(a.AsSlice())}
	}
	return &dns.A{Hdr: h, A: net.IP(a.AsSlice())}
}

const reverse4, reverse6 = ".in-addr.arpa", ".ip6.arpa"

func isReverse(text string) bool {
	return strings.HasSuffix(text, reverse4) || strings.HasSuffix(text, reverse6)
}

// reverse answers who has an address of the asker's networks.
func (s *server) reverse(q *dns.Msg, who asker, text string) (m *dns.Msg, ours bool) {
	addr, ok := addrOf(text)
	if !ok {
		return nil, false
	}
	owner, ours := s.book.owner(who, addr)
	if !ours {
		return nil, false
	}
	m = respondTo(q, dns.RcodeSuccess)
	m.Authoritative = true
	asked := q.Question[0]
	switch {
	case owner == "":
		m.Rcode = dns.RcodeNameError
	case asked.Qtype == dns.TypePTR || asked.Qtype == dns.TypeANY:
		h := dns.RR_Header{Name: asked.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: noTTL}
		m.Answer = append(m.Answer, &dns.PTR{Hdr: h, Ptr: owner + "."})
	}
	return m, true
}

// addrOf reads the address in a name of in-addr.arpa or ip6.arpa.
func addrOf(text string) (netip.Addr, bool) {
	if rest, is := strings.CutSuffix(text, reverse4); is {
		words := strings.Split(rest, ".")
		slices.Reverse(words)
		a, err := netip.ParseAddr(strings.Join(words, "."))
		return a, err == nil && a.Is4()
	}
	words := strings.Split(strings.TrimSuffix(text, reverse6), ".")
	if len(words) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(words)
	var b strings.Builder
	for i, w := range words {
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		if len(w) != 1 {
			return netip.Addr{}, false
		}
		b.WriteString(w)
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil && a.Is6()
}
