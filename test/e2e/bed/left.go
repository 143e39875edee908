package bed

import (
	"regexp"
	"slices"
	"strings"
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
		find /run/netcleat -type f ! -name '.leases-*' 2>/dev/null || true
		find /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip.*'`)
	return strings.Split(strings.TrimSpace(out), "\n")
}

// shared is what the first attachment makes and the last does not take away: it
// costs nothing to keep, and the next would make it again.
var shared = regexp.MustCompile(`^\s*(` + strings.Join([]string{
	`table ip6? filter \{`,
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

// Left fails the story where the host has what it had not at its beginning, or
// lacks what it had: links, rules, leases, records. Bridges, which stay, are
// named.
func (h *Host) Left(bridges ...string) {
	h.t.Helper()
	missing, after := slices.Clone(h.before), h.state()
	for _, line := range after {
		if i := slices.Index(missing, line); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
			continue
		}
		name, link := strings.CutPrefix(line, "link ")
		if link && slices.Contains(bridges, name) || shared.MatchString(line) || strings.HasPrefix(line, "# Warning: table") {
			continue
		}
		h.t.Errorf("left behind: %s", line)
	}
	for _, line := range missing {
		h.t.Errorf("gone: %s", line)
	}
	if h.t.Failed() {
		h.t.Logf("the host has\n%s", strings.Join(after, "\n"))
	}
}
