package ipvlan

import (
	"encoding/json"
	"slices"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// agrees refuses a mode or flag that another network's containers on the same
// master do not have: the kernel would change theirs, too, without a word.
//
// The containers of one network have one configuration, so of each network one
// record that names a master is looked at.
func (c *config) agrees(call *plugin.Call, master *nl.Link) error {
	if c.LinkInContainer {
		return nil // the master is this sandbox's own
	}
	networks, err := call.Journal.Networks()
	if err != nil {
		return cnierr.With(cnierr.IOFailure, err)
	}
	for _, n := range networks {
		if n == journal.NetworkName(call.Conf.Name) {
			continue
		}
		r, err := first(call.Journal, n, call.Entry.Record)
		if err != nil {
			return cnierr.With(cnierr.IOFailure, err)
		}
		if theirs, on := recordedTraits(r); on == master.Index && theirs != c.traits {
			return cnierr.Config("master %q: network %q has containers with %s on it, and the kernel keeps one of each for a master: choose the same, or another master (a VLAN sub-interface)", master.Name, r.Network, theirs)
		}
	}
	return nil
}

// first returns one record of an ipvlan attachment of the network that has got as
// far as its master, or the zero Record. It is of the host and the boot that own is
// of: elsewhere the master's index is another link's.
func first(dir journal.Dir, network string, own journal.Record) (one journal.Record, err error) {
	match := func(r journal.Record) bool {
		if r.Plugin != kind || len(r.Links) == 0 || !r.HostID.Same(own.HostID) || r.Boot != own.Boot {
			return false
		}
		one = r
		return true
	}
	found, err := dir.Any(network, func(name string) bool { return name == kind }, match)
	if found && one.Plugin == "" { // one that cannot be read counts as a match, and says nothing
		var rest []journal.Record
		rest, err = dir.Readable(network)
		if i := slices.IndexFunc(rest, match); i >= 0 {
			one = rest[i]
		}
	}
	return one, err
}

// recordedTraits returns mode and flag of an attachment and its master's index;
// 0 where that is not known, or not on the host.
func recordedTraits(r journal.Record) (t traits, master int) {
	var conf config
	if json.Unmarshal(r.Config, &conf) != nil || conf.LinkInContainer || len(r.Links) == 0 {
		return t, 0
	}
	t, err := traitsNamed(conf.Mode, conf.Flag)
	if err != nil {
		return t, 0
	}
	return t, r.Links[0].Parent
}
