package ruleset

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/netcleat/netcleat/pkg/iptables"
)

// Mark is a rule or an element with a comment that says whose it is.
type Mark struct {
	Place   string `json:"place"` // "inet cni_plugins_masquerade net_1a2b…", a chain or a map
	Text    string `json:"text"`  // as nft(8) or iptables-save writes it
	Comment string `json:"comment,omitempty"`
	Element bool   `json:"-"` // it is in a set or map
}

// ours are the tables of this suite, and of the reference's nftables backends.
var ours = []string{
	"ip cni_hostport", "ip6 cni_hostport", "inet cni_plugins_masquerade", "inet cni_firewall", "bridge cni_spoofcheck",
}

// Marks returns all rules that have a comment, all of the suite's own tables,
// and the elements of those tables.
func (r *Ruleset) Marks() (list []Mark, err error) {
	for _, c := range r.chains {
		for _, rule := range c.rules {
			if rule.comment != "" || slices.Contains(ours, c.table) {
				list = append(list, Mark{Place: c.String(), Text: rule.text, Comment: rule.comment})
			}
		}
	}
	c, err := nftables.New()
	if err != nil {
		return list, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return list, err
	}
	for _, t := range tables {
		if !slices.Contains(ours, tableName(t)) {
			continue
		}
		sets, serr := c.GetSets(t)
		err = cmp.Or(err, serr)
		for _, s := range sets {
			elems, serr := c.GetSetElements(s)
			err = cmp.Or(err, serr)
			list = append(list, marks(s, elems)...)
		}
	}
	return list, err
}

func marks(s *nftables.Set, elems []nftables.SetElement) (list []Mark) {
	slices.SortStableFunc(elems, func(a, b nftables.SetElement) int { return slices.Compare(a.Key, b.Key) })
	for i, e := range elems {
		if e.IntervalEnd {
			continue
		}
		key := fields(s.KeyType.Name, e.Key)
		if s.Interval && i+1 < len(elems) && elems[i+1].IntervalEnd && len(e.Key) == 2 {
			key += fmt.Sprintf("-%d", binary.BigEndian.Uint16(elems[i+1].Key)-1)
		}
		text := key
		if s.IsMap {
			text += " : " + fields(s.DataType.Name, e.Val)
		}
		list = append(list, Mark{Place: tableName(s.Table) + " " + s.Name, Text: text, Comment: e.Comment, Element: true})
	}
	return list
}

// fields writes a key or data as nft(8) does, by the names of its types.
func fields(types string, b []byte) string {
	var words []string
	for _, t := range strings.Split(types, " . ") {
		size := map[string]int{"ipv6_addr": 16, "ifname": 16, "ether_addr": 6}[t]
		if t == "inet_proto" {
			size = 1
		}
		if t == "inet_service" {
			size = 2
		}
		size = cmp.Or(size, 4)
		if len(b) < size {
			break
		}
		words = append(words, field(t, b[:size]))
		b = b[min((size+3)&^3, len(b)):]
	}
	return strings.Join(words, " . ")
}

func field(typ string, b []byte) string {
	switch typ {
	case "ipv4_addr", "ipv6_addr":
		a, _ := netip.AddrFromSlice(b)
		return a.String()
	case "ifname":
		return fmt.Sprintf("%q", strings.TrimRight(string(b), "\x00"))
	case "ether_addr":
		return net.HardwareAddr(b).String()
	case "inet_proto":
		names := map[byte]string{6: "tcp", 17: "udp", 132: "sctp"}
		return cmp.Or(names[b[0]], fmt.Sprint(b[0]))
	case "inet_service":
		return fmt.Sprint(binary.BigEndian.Uint16(b))
	}
	return fmt.Sprintf("0x%x", b)
}

// Of returns those of the marks that are a network's, or one of its containers'.
func Of(marks []Mark, network string, containers []string) (list []Mark) {
	chain := "net_" + iptables.Hash(16, network) // of masquerading, and of published ports
	for _, m := range marks {
		if n, id := m.Owner(); n == network || n == "" && id != "" && slices.Contains(containers, id) || strings.HasSuffix(m.Place, chain) {
			list = append(list, m)
		}
	}
	return list
}

// Owner returns the network and the container that a mark is for, as far as its
// comment says: both, one of the two, or neither.
func (m Mark) Owner() (network, container string) {
	_, table, _ := strings.Cut(m.Place, " ")
	table, _, _ = strings.Cut(table, " ")
	if quoted := strings.SplitN(m.Comment, `"`, 5); len(quoted) == 5 && strings.HasSuffix(quoted[0], "name: ") {
		return quoted[1], strings.Trim(quoted[3], `"`) // iptables' chains of a container
	}
	if _, n, ok := strings.Cut(m.Comment, "net: "); ok {
		n, _, _ = strings.Cut(n, ",")
		return n, ""
	}
	words := strings.Fields(m.Comment)
	switch {
	case !m.Element:
	case table == "cni_hostport" && len(words) == 3:
		return words[2], words[0]
	case table == "cni_spoofcheck" && len(words) == 2:
		return "", words[1]
	case table == "cni_plugins_masquerade" && len(words) == 1:
		return "", words[0]
	}
	return "", ""
}
