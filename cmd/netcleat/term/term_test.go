package term

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal returns both ends of a terminal: what is written to the program's is
// read from the person's.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// read returns what the person has seen, when the program has closed its end.
func read(t *testing.T, person, program *os.File) string {
	t.Helper()
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(person)
	if err != nil && !errors.Is(err, syscall.EIO) { // how the end of a terminal reads
		t.Fatal(err)
	}
	return string(b)
}

func TestLevelsHaveColoursOnATerminalOnly(t *testing.T) {
	_, terminal := terminal(t)
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to            io.Writer
		noColor, term string
		level, want   string
		wantBad       string
	}{
		{to: terminal, term: "xterm", level: "error", want: "\x1b[31merror\x1b[0m", wantBad: "\x1b[31mgone\x1b[0m"},
		{to: terminal, term: "xterm", level: "warning", want: "\x1b[33mwarning\x1b[0m", wantBad: "\x1b[31mgone\x1b[0m"},
		{to: terminal, term: "xterm", level: "strange", want: "strange", wantBad: "\x1b[31mgone\x1b[0m"},
		{to: terminal, term: "xterm", noColor: "1", level: "error", want: "error", wantBad: "gone"},
		{to: terminal, term: "dumb", level: "error", want: "error", wantBad: "gone"},
		{to: file, term: "xterm", level: "error", want: "error", wantBad: "gone"},
		{to: &bytes.Buffer{}, term: "xterm", level: "error", want: "error", wantBad: "gone"},
	} {
		t.Setenv("TERM", c.term)
		t.Setenv("NO_COLOR", c.noColor)
		if got := Level(c.to, c.level); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
		if got := Health(c.to, "ok"); got != "ok" {
			t.Errorf("%+v: %q", c, got)
		}
		if got := Health(c.to, "gone"); got != c.wantBad {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// The line is there while it lasts, makes way for others, and goes.
func TestProgress(t *testing.T) {
	person, program := terminal(t)
	p := Start(program, "attachments", 3)
	now := make(chan time.Time, 1)
	now <- time.Time{}
	p.Step()
	p.ended.Go(func() { p.run(now) })
	for shown := false; !shown; { // the deadline is the test's
		p.mu.Lock()
		shown = p.shown
		p.mu.Unlock()
	}
	if _, err := io.WriteString(p.Over(program), "removed c1\n"); err != nil {
		t.Fatal(err)
	}
	p.Step()
	p.show()
	p.Done()
	got := read(t, person, program)
	for _, want := range []string{"\r\x1b[K1 of 3 attachments", "\r\x1b[Kremoved c1\r\n", "\r\x1b[K2 of 3 attachments"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q: no %q", got, want)
		}
	}
	if !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("%q: its line stays", got)
	}
}

// Elsewhere there is none, and nothing minds.
func TestNoProgress(t *testing.T) {
	var out bytes.Buffer
	for _, w := range []io.Writer{nil, &out} {
		p := Start(w, "attachments", 3)
		if p != nil {
			t.Fatal("there is progress")
		}
		p.Step()
		if got := p.Over(&out); got != &out {
			t.Errorf("writes over %v", got)
		}
		p.Done()
	}
	if out.Len() > 0 {
		t.Errorf("%q", &out)
	}
}
