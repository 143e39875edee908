package plugin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
)

// trace keeps the changes that a call makes, with the time of each since the
// start. They go to the log and to standard error where debugging is on, not into
// the error: a kubelet puts that into the pod's events, with its details.
type trace struct {
	start time.Time
	steps []string
	live  io.Writer // CNI_DEBUG: prints each as it is made; nil does not
}

// through is inner with every change noted before it is let through.
func (t *trace) through(inner gate.Gate) gate.Gate {
	return func(what string) error {
		err := inner.Pass(what)
		step := fmt.Sprintf("%8.3f ms  %s", float64(time.Since(t.start).Microseconds())/1000, what)
		if err != nil {
			step += ": " + err.Error()
		}
		t.steps = append(t.steps, step)
		if t.live != nil {
			fmt.Fprintln(t.live, "netcleat: "+step)
		}
		return err
	}
}

// maxLog is the size in bytes at which the log is put aside, once.
const maxLog = 1 << 20

// log appends the call to debug.log in the journal's directory, where the
// configuration has "debug": true or a file called debug is there: runtimes
// cannot set an environment for one call, and drop what fails to say.
func (t *trace) log(c *Call, name string, outcome error) error {
	dir := string(c.Journal)
	// A directory of the name holds the records of a network called debug.
	if st, err := os.Stat(filepath.Join(dir, "debug")); (err != nil || !st.Mode().IsRegular()) && c.Conf.Debug != true {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s network=%s container=%s ifname=%s netns=%s\n", t.start.Format(time.RFC3339Nano), name, c.Verb, c.Conf.Name, c.ContainerID, c.IfName, c.Netns)
	for _, s := range t.steps {
		b.WriteString(s + "\n")
	}
	fmt.Fprintf(&b, "%8.3f ms  done: %v\n", float64(time.Since(t.start).Microseconds())/1000, outcome)
	return appendLog(c.Journal, b.String())
}

func appendLog(dir journal.Dir, text string) error {
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return err
	}
	path := filepath.Join(string(dir), "debug.log")
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
