package show

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/pkg/netns"
)

// nerdctlRoot is where nerdctl keeps its containers' names.
const nerdctlRoot = "/var/lib/nerdctl"

// Called returns what people call the container: its name or its pod, or else its
// ID, of which a long number is cut to 12 characters.
func (r Row) Called() string { return cmp.Or(r.Name, attached.Short(r.Container)) }

// ID is the container's ID as its runtime shows it.
func (r Row) ID() string { return attached.RuntimeID(r.Container) }

// nerdctlNames returns the names of nerdctl's containers by what it calls them
// towards plugins: NAMESPACE-ID. Each name is a file that has the ID:
// ROOT/ADDRESS/names/NAMESPACE/NAME.
func nerdctlNames(root string) map[string]string {
	files, err := filepath.Glob(filepath.Join(root, "*", "names", "*", "*"))
	if err != nil {
		return nil // the pattern is right
	}
	names := make(map[string]string, len(files))
	for _, f := range files {
		if id, err := os.ReadFile(f); err == nil { // else it was removed meanwhile
			names[filepath.Base(filepath.Dir(f))+"-"+strings.TrimSpace(string(id))] = filepath.Base(f)
		}
	}
	return names
}

// nameAll gives the rows the names that people know.
func nameAll(rows []Row, nerdctl map[string]string) {
	bySandbox := map[netns.ID]string{}
	connected := false
	for i := range rows {
		r := &rows[i]
		_, _, c := attached.Connected(r.Container)
		connected = connected || c
		r.Name = cmp.Or(r.Pod, nerdctl[r.Container], attached.NameOf(r.Container, r.Netns))
	}
	if !connected {
		return
	}
	// A container that netcleat network connect knows by its namespace alone has
	// the name by which its runtime attached it.
	for _, r := range rows {
		if _, _, c := attached.Connected(r.Container); !c {
			if id, err := netns.Identify(r.Netns); err == nil {
				bySandbox[id] = r.Called()
			}
		}
	}
	for i := range rows {
		if _, _, c := attached.Connected(rows[i].Container); !c {
			continue
		}
		if id, err := netns.Identify(rows[i].Netns); err == nil {
			rows[i].Name = bySandbox[id]
		}
	}
}
