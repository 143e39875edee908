// Package compat calls our plugins and the reference's with the same
// configurations, and finds every difference that a runtime can see. Those that
// are meant are in differences.txt; any other fails.
package compat

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// Both suites show the same, but for what differences.txt lists, and what it
// lists is there.
func TestNoOtherDifferences(t *testing.T) {
	ours, theirs := bed.New(t), bed.New(t)
	theirs.InstallReference()
	list := readDifferences(t)
	for i, s := range stories() {
		id := fmt.Sprint("net", i)
		a, b := s.run(ours, id), s.run(theirs, id)
		for j, step := range s.steps {
			if strings.HasPrefix(a[j], noAnswer) || step.works && !strings.HasPrefix(a[j], "ok") {
				t.Errorf("%s, %s: %s", s.name, step.name, a[j])
			}
			ours, theirs := codes(a[j], b[j])
			if ours == theirs {
				continue
			}
			seen := fmt.Sprintf("%s, %s: %s | %s", s.name, step.name, ours, theirs)
			if !list.has(seen) {
				t.Errorf("not in differences.txt (ours | theirs):\nseen: %s", seen)
			}
		}
	}
	for _, seen := range list.unseen() {
		t.Errorf("in differences.txt, but there is no such difference:\nseen: %s", seen)
	}
}

// codes leaves the codes alone of two failures with the same text.
func codes(ours, theirs string) (string, string) {
	code, text, _ := strings.Cut(ours, ": ")
	other, same, _ := strings.Cut(theirs, ": ")
	if text != same || !strings.HasPrefix(code, "exit ") {
		return ours, theirs
	}
	return code, other
}

// story is a sequence of steps on a host, with a network and a container.
type story struct {
	name  string
	steps []step
}

// step is a call of a plugin, or a look at the host with a script.
type step struct {
	name   string
	verb   string
	plugin string
	conf   string // without cniVersion and name; PREV is the last result
	env    []string
	script string
	// version is the configuration's, 1.1.0 by default.
	version string
	// works says that ours succeeds: two failures are no evidence.
	works bool
	// text compares the error's message, too: callers match it.
	text bool
}

// run returns what each step showed. Network and container are called id. What
// the story left is removed: it has been seen.
func (s story) run(h *bed.Host, id string) []string {
	var seen []string
	h.Run("ip", "netns", "add", id)
	prev := "{}"
	for _, step := range s.steps {
		var said string
		if step.script != "" {
			said = stable(h.Sh("NET=" + id + "\n" + step.script))
		} else {
			var out string
			out, said = step.call(h, id, prev)
			if step.verb == "ADD" && out != "" {
				prev = out
			}
		}
		seen = append(seen, strings.ReplaceAll(said, id, "NET"))
	}
	h.Sh("NET=" + id + "\n" + clean)
	return seen
}

// clean removes the network, with what the kernel removes only later.
const clean = `
	ip netns del $NET
	rm -rf /run/netns/missing /var/lib/cni/networks/$NET
	for l in $(ip -o link | awk -F '[ :@]+' '{print $2}' | grep -E '^(br-|veth)'); do ip link del $l 2>/dev/null || true; done`

// noAnswer is a plugin that did not start, or ended without a document.
const noAnswer = "no answer: "

// call calls the plugin. It returns a result as it was printed, and what a
// runtime sees: the result, or the exit code and the error's code. Most texts of
// errors are the suite's own.
func (s step) call(h *bed.Host, id, prev string) (result, seen string) {
	env := append(bed.Env(s.verb, id, "/run/netns/"+id, "eth0"), "CNI_PATH="+h.Plugins, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd := h.Cmd(h.Plugins + "/" + s.plugin)
	cmd.Env = append(env, s.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(s.document(id, prev)), &stdout, &stderr
	err := cmd.Run()
	if err == nil && s.verb == "" {
		return "", stable(stdout.String() + stderr.String())
	}
	if err == nil {
		return stdout.String(), strings.TrimSpace("ok " + stable(compact(stdout.Bytes())))
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return "", noAnswer + err.Error()
	}
	var said struct {
		Code *int   `json:"code"`
		Msg  string `json:"msg"`
	}
	if json.Unmarshal(stdout.Bytes(), &said) != nil || said.Code == nil {
		return "", noAnswer + fmt.Sprint("exit ", exit.ExitCode())
	}
	seen = fmt.Sprintf("exit %d code %d", exit.ExitCode(), *said.Code)
	if s.text {
		seen += ": " + stable(said.Msg)
	}
	return "", seen
}

// document is the configuration with what every one has.
func (s step) document(id, prev string) string {
	if strings.HasPrefix(s.conf, "!") { // as it stands
		return s.conf[1:]
	}
	head := fmt.Sprintf(`{"cniVersion": %q, "name": %q, "type": %q`, cmp.Or(s.version, "1.1.0"), id, s.plugin)
	if s.conf != "" {
		head += ", "
	}
	return strings.ReplaceAll(head+s.conf+"}", "PREV", prev)
}

// compact takes the white space out of JSON, and leaves the keys in order.
func compact(b []byte) string {
	var c bytes.Buffer
	if json.Compact(&c, b) != nil {
		return string(b)
	}
	return c.String()
}

var (
	hardware = regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`)
	hostEnd  = regexp.MustCompile(`\bveth[0-9a-f]{8}\b`)
	version  = regexp.MustCompile(`\bv[0-9]+\.[0-9]+\.[0-9]+\S*`)
	blanks   = regexp.MustCompile(`\s+`)
)

// stable takes out what differs from run to run, and puts all into one line.
func stable(s string) string {
	s = hardware.ReplaceAllString(s, "MAC")
	s = hostEnd.ReplaceAllString(s, "VETH")
	s = version.ReplaceAllString(s, "vX")
	return strings.TrimSpace(blanks.ReplaceAllString(s, " "))
}
