package operator

import (
	"fmt"
	"strings"
	"testing"
)

// calls counts what netcleat ls asks the kernel for: messages to netlink, and sockets.
func (s story) calls() (sent, opened int) {
	s.t.Helper()
	s.Sh("strace -f -qq -e trace=sendto,sendmsg,socket -o /run/trace " + s.Netcleat() + " ls >/dev/null")
	for l := range strings.Lines(s.Sh("cat /run/trace")) {
		switch {
		case strings.Contains(l, "AF_NETLINK") && strings.Contains(l, "socket("):
			opened++
		case strings.Contains(l, " sendto(") || strings.Contains(l, " sendmsg("):
			sent++
		}
	}
	return sent, opened
}

// attachMany attaches more containers, each with a published port.
func (s story) attachMany(from, to int) {
	s.t.Helper()
	l := s.List(list)
	for i := from; i < to; i++ {
		c := s.Container(fmt.Sprintf("c%d", i))
		c.CapabilityArgs["portMappings"] = []map[string]any{{"hostPort": 20000 + i, "containerPort": 80, "protocol": "tcp"}}
		s.Add(l, c)
	}
}

// One more attachment costs netcleat ls the same with few and with many: what belongs to the
// host is asked for once.
func TestLsAsksTheHostOnce(t *testing.T) {
	s, _ := newStory(t)
	if _, err := s.Try("strace", "-V"); err != nil {
		t.Fatalf("strace is missing: make install-deps")
	}
	const few, step = 4, 8
	s.attachMany(0, few)
	sent0, opened0 := s.calls()
	s.attachMany(few, few+step)
	sent1, opened1 := s.calls()
	s.attachMany(few+step, few+2*step)
	sent2, opened2 := s.calls()
	t.Logf("messages: %d, %d, %d; sockets: %d, %d, %d", sent0, sent1, sent2, opened0, opened1, opened2)
	if sent2-sent1 != sent1-sent0 || opened2-opened1 != opened1-opened0 {
		t.Errorf("one more attachment costs more with many: messages %d, %d, %d; sockets %d, %d, %d", sent0, sent1, sent2, opened0, opened1, opened2)
	}
}
