package bed

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// state lists links, namespaces, rules, leases and records, a line each. What
// host-local keeps of a network does not count: its index, its lock and the last
// address.
func (h *Host) state() []string {
	h.t.Helper()
	out := h.Sh(`
		ip -o link | awk -F '[ :@]+' '{print "link " $2}'
		ip netns | sed 's/ .*//; s/^/netns /'
		nft list ruleset 2>/dev/null
		ip rule
		find /run/netcleat -type f ! -name '.leases-*' ! -name '.dns.*' 2>/dev/null || true
		find /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip.*'`)
	return strings.Split(strings.TrimSpace(out), "\n")
}

// shared is what the first attachment makes and the last does not take away: it
// costs nothing to keep, and the next would make it again. So are the tables that
// iptables makes when it is asked for anything.
var shared = regexp.MustCompile(`^\s*(` + strings.Join([]string{
	`table ip6? (filter|nat|raw) \{`,
	`chain (PREROUTING|OUTPUT|POSTROUTING) \{`,
	`type nat hook \w+ priority (srcnat|dstnat|-100); policy accept;`,
	`chain (FORWARD|CNI-FORWARD|CNI-ADMIN|CNI-ISOLATION-STAGE-[12]) \{`,
	`type filter hook forward priority filter; policy accept;`,
	`(counter packets \d+ bytes \d+ )?(jump|goto) CNI-(FORWARD|ADMIN|ISOLATION-STAGE-1)`,
	`counter packets \d+ bytes \d+ return`,
	`\}`,
	``,
}, "|") + `)$`)

// Mark has Left compare with what the host has now, not with its beginning.
func (h *Host) Mark() {
	h.t.Helper()
	h.before = h.state()
}

// State is what the host has now, for a test that looks for something in it.
func (h *Host) State() string {
	h.t.Helper()
	return strings.Join(h.state(), "\n")
}

// Left fails the story where the host has what it had not at its beginning, or
// lacks what it had: links, rules, leases, records. Bridges, which stay, are
// named. The kernel has a moment for the links of namespaces that are gone.
func (h *Host) Left(bridges ...string) {
	h.t.Helper()
	var wrong, after []string
	for end := time.Now().Add(3 * time.Second); ; <-time.After(50 * time.Millisecond) {
		after = h.state()
		if wrong = h.differs(after, bridges); len(wrong) == 0 {
			return
		}
		if time.Now().After(end) {
			break
		}
	}
	h.t.Errorf("%s\nthe host has\n%s", strings.Join(wrong, "\n"), strings.Join(after, "\n"))
}

// differs says what is more or less than at the beginning.
func (h *Host) differs(after, bridges []string) (wrong []string) {
	missing := slices.Clone(h.before)
	for _, line := range after {
		if i := slices.Index(missing, line); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
			continue
		}
		name, link := strings.CutPrefix(line, "link ")
		if link && slices.Contains(bridges, name) || shared.MatchString(line) || strings.HasPrefix(line, "# Warning: table") {
			continue
		}
		wrong = append(wrong, "left behind: "+line)
	}
	for _, line := range missing {
		wrong = append(wrong, "gone: "+line)
	}
	return wrong
}
