package hostlocal

import (
	"errors"
	"testing"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
)

// TestObserver gives each kind of evidence. What is not proven lives.
func TestObserver(t *testing.T) {
	host, other := netns.ID{Dev: 4, Ino: 10}, netns.ID{Dev: 4, Ino: 11}
	gone, held := netns.ID{Dev: 4, Ino: 20}, netns.ID{Dev: 4, Ino: 21}
	end := []journal.Link{{Name: "veth1", Index: 5}}
	blind := func() (map[uint64]bool, error) { return nil, netns.ErrBlind }
	sees := func() (map[uint64]bool, error) { return map[uint64]bool{10: true, 21: true}, nil }
	key := func(plugin string) journal.Key { return journal.Key{Plugin: plugin} }
	for _, c := range []struct {
		what   string
		record journal.Record
		exists bool // the host's end
		atPath netns.ID
		held   func() (map[uint64]bool, error)
		dead   bool
	}{
		{"veth, end gone", journal.Record{Key: key("bridge"), NetnsID: held, HostID: host, Links: end}, false, other, blind, true},
		{"veth, end there", journal.Record{Key: key("bridge"), NetnsID: gone, HostID: host, Links: end}, true, other, sees, false},
		{"veth, another host", journal.Record{Key: key("bridge"), NetnsID: gone, HostID: other, Links: end}, false, other, sees, false},
		{"veth, host unknown", journal.Record{Key: key("bridge"), NetnsID: gone, Links: end}, false, other, sees, false},
		{"veth, sandbox at its path", journal.Record{Key: key("ptp"), NetnsID: gone, HostID: host, Links: end}, false, gone, sees, false},
		{"veth not made yet, namespace gone", journal.Record{Key: key("bridge"), NetnsID: gone, HostID: host}, false, other, sees, true},
		{"macvlan, namespace gone", journal.Record{Key: key("macvlan"), NetnsID: gone, HostID: host, Links: end}, false, other, sees, true},
		{"macvlan, namespace held", journal.Record{Key: key("macvlan"), NetnsID: held, HostID: host}, false, other, sees, false},
		{"macvlan, cannot see", journal.Record{Key: key("macvlan"), NetnsID: gone, HostID: host}, false, other, blind, false},
		{"no namespace known", journal.Record{Key: key("macvlan"), HostID: host}, false, other, sees, false},
	} {
		o := &observer{
			host: host, held: c.held, exist: func(journal.Link) bool { return c.exists },
			at: func(string) (netns.ID, bool) { return c.atPath, true },
		}
		if got := o.isDead(&c.record); got != c.dead {
			t.Errorf("%s: dead %t, want %t", c.what, got, c.dead)
		}
		if blinded := errors.Is(o.blind, netns.ErrBlind); blinded != (c.what == "macvlan, cannot see") {
			t.Errorf("%s: said that it cannot see: %t", c.what, blinded)
		}
	}
}
