// Package attached says which attachments the journal knows of, and which of
// them live.
package attached

import (
	"cmp"
	"errors"
	"slices"

	"github.com/netcleat/netcleat/pkg/journal"
)

// Attachment is an interface of a container on a network.
type Attachment struct {
	Network     string
	ContainerID string
	IfName      string
	Records     []journal.Record // what its plugins remember, the first plugin's first
}

// All returns the attachments of all networks, the oldest first. What cannot be
// read is joined to the error; the rest is returned all the same.
func All(dir journal.Dir) ([]Attachment, error) {
	networks, err := dir.Networks()
	errs := []error{err}
	var all []Attachment
	for _, n := range networks {
		records, err := dir.Network(n)
		errs = append(errs, err)
		all = append(all, group(records)...)
	}
	slices.SortStableFunc(all, func(a, b Attachment) int {
		return cmp.Or(a.Records[0].Created.Compare(b.Records[0].Created), cmp.Compare(a.ContainerID, b.ContainerID))
	})
	return all, errors.Join(errs...)
}

// group puts the records of each attachment together.
func group(records []journal.Record) (all []Attachment) {
	slices.SortFunc(records, func(a, b journal.Record) int { return a.Created.Compare(b.Created) })
	at := map[journal.Key]int{}
	for _, r := range records {
		k := r.Key
		k.Plugin = ""
		i, known := at[k]
		if !known {
			i = len(all)
			at[k] = i
			all = append(all, Attachment{Network: r.Network, ContainerID: r.ContainerID, IfName: r.IfName})
		}
		all[i].Records = append(all[i].Records, r)
	}
	return all
}
