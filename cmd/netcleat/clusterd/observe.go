package clusterd

import (
	"maps"
	"slices"

	"github.com/netcleat/netcleat/pkg/slot"
)

// Observer is told what the cluster says. It is called in the daemon's loop and must
// not block.
type Observer interface {
	// Blocks is called with the parts of a network that hosts own, when that has changed
	// or may have.
	Blocks(net string, layout slot.Layout, owners map[string]slot.Parts)
	// Key is called for keys below the prefix that the daemon itself does not know, with
	// "" for one that was deleted while the watch was up.
	Key(key, value string)
}

// tell tells the observers.
func (d *daemon) tell() {
	for _, name := range slices.Sorted(maps.Keys(d.moved)) {
		n := d.nets[name]
		if n.layout == nil || !d.moved[name] {
			continue
		}
		owners := map[string]slot.Parts{}
		for _, s := range n.slots {
			for h, ps := range s.owners {
				owners[h] = append(owners[h], ps...)
			}
		}
		for _, ps := range owners {
			slices.SortFunc(ps, slot.Part.Compare)
		}
		for _, o := range d.observers {
			o.Blocks(name, *n.layout, owners)
		}
	}
	clear(d.moved)
}
