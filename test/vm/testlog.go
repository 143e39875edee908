package main

import (
	"strings"
)

// marker is what the testing package writes before its own lines with -test.v=test2json, so that they can be told from what
// tests print.
const marker = '\x16'

// verdict is how one test ended.
type verdict struct {
	Result string // PASS, FAIL or SKIP
	Test   string
	Log    string // what it printed
}

// testLog reads the output of one test binary.
type testLog struct {
	verdict func(verdict)
	partial string
	current string                      // the test that prints
	logs    map[string]*strings.Builder // by test; "" is what no test printed
	passed  bool                        // the binary said PASS at the end
}

func newTestLog(verdict func(verdict)) *testLog {
	return &testLog{verdict: verdict, logs: map[string]*strings.Builder{}}
}

// write reads a piece of the output, which may end anywhere.
func (l *testLog) write(b []byte) {
	text := l.partial + string(b)
	for {
		line, rest, found := cutLine(text)
		if !found {
			l.partial = text
			return
		}
		l.line(line)
		text = rest
	}
}

// cutLine cuts text after its first newline, or before a marker that follows something else.
func cutLine(text string) (line, rest string, found bool) {
	end := strings.IndexByte(text, '\n') + 1
	if text == "" {
		return "", "", false
	}
	if i := strings.IndexByte(text[1:], marker) + 1; i > 0 && (end == 0 || i < end) {
		end = i
	}
	return text[:end], text[end:], end > 0
}

func (l *testLog) line(line string) {
	if line[0] != marker {
		l.log(l.current).WriteString(line)
		return
	}
	line = strings.TrimSpace(line[1:])
	action, test, _ := strings.Cut(line, " ")
	switch action {
	case "===":
		_, test, _ := strings.Cut(test, " ")
		l.current = strings.TrimSpace(test)
	case "---":
		l.end(test)
	case "PASS":
		l.passed = true
	}
}

// end takes what follows "--- ", as in "SKIP: TestX (0.00s)".
func (l *testLog) end(text string) {
	result, test, _ := strings.Cut(text, ": ")
	test, _, _ = strings.Cut(test, " ")
	l.verdict(verdict{result, test, l.log(test).String()})
	delete(l.logs, test)
	l.current = ""
}

func (l *testLog) log(test string) *strings.Builder {
	if l.logs[test] == nil {
		l.logs[test] = &strings.Builder{}
	}
	return l.logs[test]
}

// close ends the log and returns what is left: the output of tests that did not end, and what no test printed.
func (l *testLog) close() map[string]string {
	if l.partial != "" {
		l.line(l.partial)
	}
	left := map[string]string{}
	for test, log := range l.logs {
		if log.Len() > 0 || test != "" {
			left[test] = log.String()
		}
	}
	return left
}
