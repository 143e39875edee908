// Package finding is what looking at a host comes to: how bad a thing is, and
// the command that mends it.
package finding

import "github.com/netcleat/netcleat/pkg/shell"

// Level says how bad a finding is.
type Level string

// The levels. Only a Problem is something that does not work, or a leak that is
// proven.
const (
	Fine    Level = "ok"
	Note    Level = "note"
	Warning Level = "warning"
	Problem Level = "problem"
)

// Mend is what to do about a finding: a command for a shell, and when to run it.
// Where no command can do it, only When is set.
type Mend struct {
	Command string `json:"command,omitempty"`
	When    string `json:"when,omitempty"`
}

// Run is a command that mends, whenever it is run.
func Run(command string) Mend { return Mend{Command: command} }

// Do is something that no command does.
func Do(words string) Mend { return Mend{When: words} }

// String returns a line to paste into a shell: When is a comment.
func (m Mend) String() string {
	switch {
	case m.When == "":
		return m.Command
	case m.Command == "":
		return "# " + m.When
	}
	return m.Command + "  # " + m.When
}

// Quote quotes a word for a shell where that needs it.
func Quote(s string) string { return shell.Quote(s) }
