package bed

import (
	"errors"
	"regexp"
	"strings"
)

// remarks are notes of netcleat doctor that a healthy host may have: what else is on the host,
// and that containers have stopped.
var remarks = regexp.MustCompile(`^note +(` + strings.Join([]string{
	`bridge-nf-call-iptables is on`,
	`the kernel's old iptables tables are loaded`,
	`(Docker|ufw|kube-proxy) has rules in `,
	`firewalld is active`,
	`the dns daemon is not started by systemd`,
	`.*: libcni remembers it, but there is no namespace at .*containers that have stopped can be so`,
	`network \S+: without hairpinMode `,
}, "|") + `)`)

var errFinding = errors.New("it finds something")

// Healthy fails the story where netcleat doctor finds anything, or netcleat ls calls anything
// other than ok: for a host on which everything works.
func (h *Host) Healthy(flags ...string) {
	h.t.Helper()
	out, err := h.Try(append([]string{h.Netcleat(), "doctor", "--cni-path", h.Plugins}, flags...)...)
	for line := range strings.Lines(out) {
		level, _, _ := strings.Cut(line, " ")
		if level != "ok" && level != "" && !remarks.MatchString(line) {
			err = errFinding
		}
	}
	if err != nil {
		h.t.Errorf("netcleat doctor on a healthy host: %v\n%s", err, out)
	}
	out, err = h.Try(h.Netcleat(), "ls", "--format", "{{.Health}} {{.Network}} {{.Container}}")
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "ok ") && !strings.HasPrefix(line, "sandbox not found ") { // of one that has stopped
			err = errFinding
		}
	}
	if err != nil {
		h.t.Errorf("netcleat ls on a healthy host: %v\n%s", err, out)
	}
}
