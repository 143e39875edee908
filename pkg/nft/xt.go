package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// Match is a match of iptables, which iptables-nft has the kernel run as it is.
func Match(name string, rev uint32, info []byte) Expr {
	return Expr{"match", func(m *nl.Message) {
		m.String(unix.NFTA_MATCH_NAME, name).Attr(unix.NFTA_MATCH_REV, be32(rev)).Attr(unix.NFTA_MATCH_INFO, info)
	}}
}

// Comment is a comment as iptables writes it: a match of all packets.
func Comment(text string) Expr {
	const size = 256 // XT_MAX_COMMENT_LEN
	info := make([]byte, size)
	copy(info[:size-1], text)
	return Match("comment", 0, info)
}

// MaxMultiport is how many ports iptables' multiport compares with.
const MaxMultiport = 15

// Multiport compares the destination port with up to MaxMultiport ports, as
// iptables does with --dports. Its rule needs a Proto.
func Multiport(ports []uint16) Expr {
	const destination = 1                    // XT_MULTIPORT_DESTINATION
	info := make([]byte, 2+3*MaxMultiport+1) // struct xt_multiport_v1: flags, count, ports, which begin a range, invert
	info[0], info[1] = destination, byte(len(ports))
	for i, p := range ports {
		binary.NativeEndian.PutUint16(info[2+2*i:], p)
	}
	return Match("multiport", 1, info)
}

// multiports returns the ports that a multiport compares with.
func multiports(info []byte) (ports []uint16) {
	if len(info) < 2+2*MaxMultiport {
		return nil
	}
	for i := range min(int(info[1]), MaxMultiport) {
		ports = append(ports, nl.Uint16(info[2+2*i:]))
	}
	return ports
}

// match reads what is known of iptables' matches.
func (r *RuleInfo) match(data []byte) {
	name, info := "", []byte(nil)
	nl.Attrs(data, func(typ uint16, d []byte) {
		switch typ {
		case unix.NFTA_MATCH_NAME:
			name = text(d)
		case unix.NFTA_MATCH_INFO:
			info = d
		}
	})
	switch name {
	case "comment":
		r.Comment = text(info)
	case "multiport":
		r.Ports = multiports(info)
	}
}

// xtComment returns the comment that a match of iptables' is, or "".
func xtComment(match []byte) string {
	r := RuleInfo{}
	r.match(match)
	return r.Comment
}

func xtTarget(target []byte) (name string) {
	nl.Attrs(target, func(typ uint16, d []byte) {
		if typ == unix.NFTA_TARGET_NAME {
			name = text(d)
		}
	})
	return name
}
