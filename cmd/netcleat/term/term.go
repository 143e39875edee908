// Package term writes for people where the other end is a terminal, and plainly
// where it is not: levels in colours, and how far a long operation is.
package term

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Is reports whether w is a terminal.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// colours of levels, as ANSI has them.
var colours = map[string]string{
	"ok": "32", "note": "36", "warning": "33", "error": "31", "problem": "31",
}

// Level returns a level's name, in its colour where w is a terminal and nobody
// has asked for none (NO_COLOR, see no-color.org).
func Level(w io.Writer, name string) string { return paint(w, name, colours[name]) }

// Health returns what is said of an attachment, in red where it is not "ok".
func Health(w io.Writer, text string) string {
	if text == "ok" {
		return text
	}
	return paint(w, text, colours["problem"])
}

func paint(w io.Writer, text, colour string) string {
	if colour == "" || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !Is(w) {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}
