package show

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/term"
)

// PrintRows prints attachments in the format.
func PrintRows(w io.Writer, rows []Row, f Format) error {
	if done, err := printOther(w, f, "{{.Container}}", rows); done {
		return err
	}
	t := newTable(w)
	head := "NETWORK\tCONTAINER\tINTERFACE\tHOST END\tADDRESSES\tMAC\tPORTS\tAGE\tHEALTH"
	if f.Output == wide {
		head += "\tNAMES\tNETNS\tPLUGINS"
	}
	t.line(head)
	for _, r := range rows {
		host := r.HostEnd
		if r.Master != "" {
			host += " (" + r.Master + ")"
		}
		line := []string{
			r.Network, name(r, f), r.Interface, host, strings.Join(r.Addresses, " "), r.MAC, strings.Join(r.Ports, " "), age(r.Created), health(w, r, f),
		}
		if f.Output == wide {
			line = append(line, strings.Join(r.Names, ","), r.Netns, strings.Join(r.Plugins, ","))
		}
		t.line(strings.Join(line, "\t"))
	}
	return t.flush()
}

// health is in colour where nothing stands behind it that must be aligned.
func health(w io.Writer, r Row, f Format) string {
	if f.Output == wide {
		return r.Health
	}
	return term.Health(w, r.Health)
}

// name is what people call the container; wide has its whole ID, too.
func name(r Row, f Format) string {
	switch {
	case f.Output == wide && r.Name != "":
		return r.Container + " " + r.Name
	case f.Output == wide || f.NoTrunc && r.Name == "":
		return r.Container
	case f.NoTrunc:
		return r.Name
	}
	return r.Called()
}

// age writes a time as people compare it: 5s, 12m, 3h, 4d.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	switch d := time.Since(t); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// table aligns columns.
type table struct {
	w   *tabwriter.Writer
	err error
}

func newTable(w io.Writer) *table { return &table{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)} }

func (t *table) line(s string) {
	if _, err := fmt.Fprintln(t.w, s); t.err == nil {
		t.err = err
	}
}

func (t *table) flush() error {
	if t.err != nil {
		return t.err
	}
	return t.w.Flush()
}
