package portmap

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/nl"
)

// parseConditions turns conditions in nft(8)'s words into expressions. It knows
// the ones that make sense before a published port: addresses, interfaces, source
// ports and marks.
func parseConditions(cond []string, v6 bool) (all []nft.Expr, err error) {
	words := strings.Fields(strings.Join(cond, " "))
	for len(words) > 0 {
		var e []nft.Expr
		if e, words, err = condition(words, v6); err != nil {
			return nil, err
		}
		all = append(all, e...)
	}
	return all, nil
}

func unknownCondition(words []string) error {
	return cnierr.Newf(cnierr.UnsupportedField,
		"condition %q: want [ip|ip6] saddr|daddr, iifname|oifname, tcp|udp|sctp sport|dport, or mark, each with a value and optionally !=", strings.Join(words, " "))
}

// condition reads one condition off the front.
func condition(words []string, v6 bool) (e []nft.Expr, rest []string, err error) {
	head := words
	take := func() (w string) {
		if len(words) > 0 {
			w, words = words[0], words[1:]
		}
		return w
	}
	kind := take()
	if kind == "meta" {
		kind = take()
	}
	field := ""
	switch kind {
	case "ip", "ip6", "tcp", "udp", "sctp", "th":
		field = take()
	}
	op := nft.Equal
	if len(words) > 0 && (words[0] == "!=" || words[0] == "==") {
		if take() == "!=" {
			op = nft.Not
		}
	}
	value := take()
	if kind == "ip6" != v6 && (kind == "ip" || kind == "ip6") {
		return nil, nil, unknownCondition(head)
	}
	if e = match(kind, field, op, value); e == nil {
		return nil, nil, unknownCondition(head)
	}
	return e, words, nil
}

// match returns the expressions of one condition, or nil where it makes no sense.
func match(kind, field string, op nft.Op, value string) []nft.Expr {
	switch kind {
	case "iifname", "iif":
		return interfaceIs(unix.NFT_META_IIFNAME, op, value)
	case "oifname", "oif":
		return interfaceIs(unix.NFT_META_OIFNAME, op, value)
	case "mark":
		if n, err := strconv.ParseUint(value, 0, 32); err == nil {
			return []nft.Expr{nft.Meta(unix.NFT_META_MARK, 0), nft.Cmp(op, 0, nft.Native32(uint32(n)))}
		}
	case "ip", "ip6":
		return addressIs(kind == "ip6", field, op, value)
	case "tcp", "udp", "sctp":
		return portIs(map[string]proto{"tcp": tcp, "udp": udp, "sctp": sctp}[kind], field, op, value)
	}
	return nil
}

func interfaceIs(key uint32, op nft.Op, value string) []nft.Expr {
	name := strings.Trim(value, `"`)
	if !nl.IsName(name) || strings.ContainsAny(name, "*{") {
		return nil
	}
	return nft.IfName(key, op, name)
}

func addressIs(v6 bool, field string, op nft.Op, value string) []nft.Expr {
	side, ok := map[string]nft.Side{"saddr": nft.Source, "daddr": nft.Destination}[field]
	p, err := netip.ParsePrefix(value)
	if err != nil {
		ip, perr := netip.ParseAddr(value)
		if perr != nil {
			return nil
		}
		p = netip.PrefixFrom(ip, ip.BitLen())
	}
	if !ok || p.Addr().Is6() != v6 || p.Addr().Is4In6() {
		return nil
	}
	return nft.Addr(side, op, p)
}

func portIs(p proto, field string, op nft.Op, value string) []nft.Expr {
	offset, ok := map[string]uint32{"sport": 0, "dport": 2}[field]
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || !ok {
		return nil
	}
	return []nft.Expr{
		nft.Meta(unix.NFT_META_L4PROTO, 0), nft.Cmp(nft.Equal, 0, []byte{byte(p)}),
		nft.Header(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2, 0), nft.Cmp(op, 0, binary.BigEndian.AppendUint16(nil, uint16(n))),
	}
}
