package show

import (
	"errors"
	"slices"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
)

// Names returns the names of networks, sorted: those that are configured, and
// those that something is attached to. It looks at files alone. What cannot be
// read is joined to the error.
func Names(p Places) (names []string, err error) {
	lists, err := p.lists()
	for _, l := range lists {
		names = append(names, l.Name)
	}
	rows, rerr := remembered(p)
	for _, r := range rows {
		names = append(names, r.Network)
	}
	slices.Sort(names)
	return slices.Compact(names), errors.Join(err, rerr)
}

// Containers returns the IDs, the names and the pods' names of what is attached, as
// Names does.
func Containers(p Places) (names []string, err error) {
	rows, err := remembered(p)
	for _, r := range rows {
		names = append(names, r.Container)
		if r.Name != "" {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// remembered returns what the journal and libcni remember, one row each.
func remembered(p Places) (rows []Row, err error) {
	known, err := attached.All(p.Journal)
	for _, a := range known {
		rows = append(rows, recorded(a))
	}
	cache, cerr := readCache(p.Cache)
	for _, c := range cache {
		r := Row{Network: c.Network, Container: c.ContainerID}
		c.fill(&r)
		rows = append(rows, r)
	}
	nameAll(rows, nerdctlNames(p.Nerdctl))
	return rows, errors.Join(err, cerr)
}
