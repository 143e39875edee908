package clusterd

import (
	"hash/fnv"
	"maps"
	"slices"

	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// network is what the daemon knows of a network.
type network struct {
	name      string
	layout    *slot.Layout // as the cluster has it; nil: not yet, or unreadable
	layoutRev int64
	slots     map[uint64]*slotState
	needs     map[string]kv // of hosts
	denials   map[string]kv
	uplink    uplink
	naming    naming

	// What this host does with it.
	conf     *clusterlocal.Pool // nil: this host does not use the network
	using    slot.Parts
	waiting  []*request
	eager    bool // other hosts' blocks matter at once, not with the next tick
	claiming bool
	tries    int
	pausedTo int  // the tick before which nothing is claimed
	needing  bool // what the host says that it is short of is being changed
	needTo   int  // the tick before which it is not
	denying  bool
	looked   int               // the tick in which the spare was last looked at
	weighed  int               // and the surplus
	idle     map[slot.Part]int // since which tick a part was surplus
}

// slotState is a slot as it was at the revision seen, and what this daemon asked for
// since.
type slotState struct {
	seen   int64
	rev    int64 // of its key; 0: it has none
	owners slot.Owners
	bad    error // it cannot be read and is left alone

	busy     bool
	claim    bool       // by a claim
	retiring slot.Parts // not in use any more, and not yet known to be given away
	// lost is the revision that a request with unknown outcome compares with. While
	// the slot is still at it, the request may yet take effect.
	lost     int64
	isLost   bool
	pausedTo int
	unread   *kv // its key, as long as the layout is not known
}

// settled reports whether no request of this daemon can change the slot any more,
// but for the one under way. Requests of an earlier daemon cannot: they compare with
// its session.
func (s *slotState) settled() bool { return !s.isLost || s.rev != s.lost }

// learn takes a newer state.
func (s *slotState) learn(seen int64, k kv, bits uint8, n uint64) {
	if seen < s.seen {
		return
	}
	s.seen, s.rev = seen, k.rev
	s.owners, s.bad = nil, nil
	if k.rev != 0 {
		s.owners, s.bad = slot.ParseOwners(n, bits, k.value)
	}
}

func (n *network) slot(i uint64) *slotState {
	s := n.slots[i]
	if s == nil {
		s = &slotState{}
		n.slots[i] = s
	}
	return s
}

// mine returns the host's parts as the cluster has them.
func (n *network) mine(host string) (all slot.Parts) {
	for _, s := range n.slots {
		all = append(all, s.owners[host]...)
	}
	slices.SortFunc(all, slot.Part.Compare)
	return all
}

// usable returns what the host may hand out of.
func (n *network) usable(host string, fence bool) (all slot.Parts) {
	for i, s := range n.slots {
		mine := s.owners[host]
		switch {
		case len(mine) == 0:
		case s.settled() || !fence:
			all = append(all, mine.Minus(s.retiring)...)
		default: // what is in use stays, nothing is added
			for _, p := range n.using {
				if p.Slot == i && mine.Contain(p) {
					all = append(all, p)
				}
			}
		}
	}
	slices.SortFunc(all, slot.Part.Compare)
	return all
}

// someFree bounds the free parts among which a host chooses, which may be one of many
// that choose at the same time.
func (d *daemon) someFree() int { return 8 + 2*len(d.hosts) }

// maxScan bounds the slots that are looked at for free ones.
const maxScan = 1 << 20

// free returns parts without an owner, whole slots first and then the largest. A slot
// of which something is asked for already is left out.
func (n *network) free(most int) (all []slot.Part) {
	var parts []slot.Part
	scanned := 0
	for _, r := range n.conf.Bounds() {
		for i := r[0]; i <= r[1] && len(all) < most && scanned < maxScan; i, scanned = i+1, scanned+1 {
			if n.unowned(i) {
				all = append(all, n.withRoom(n.layout.Whole(i))...)
				continue
			}
			if s := n.slots[i]; !s.busy && s.bad == nil {
				parts = append(parts, n.withRoom(s.owners.Free(n.layout.Whole(i))...)...)
			}
		}
	}
	slices.SortStableFunc(parts, func(a, b slot.Part) int { return int(b.Bits) - int(a.Bits) })
	return append(all, parts...)[:min(most, len(all)+len(parts))]
}

// unowned reports whether nothing is known of a slot, and nothing is asked for.
func (n *network) unowned(slot uint64) bool {
	s := n.slots[slot]
	return s == nil || s.rev == 0 && !s.busy
}

// withRoom returns the parts that have addresses for containers.
func (n *network) withRoom(parts ...slot.Part) []slot.Part {
	return slices.DeleteFunc(parts, func(p slot.Part) bool { return n.conf.Capacity(p) == 0 })
}

// pick chooses a free part: hosts that choose at the same time choose different ones.
func (n *network) pick(host string, most int) (p slot.Part, ok bool) {
	some := n.free(most)
	if len(some) == 0 {
		return p, false
	}
	same := 1 // the number of free parts of the largest size
	for same < len(some) && some[same].Bits == some[0].Bits {
		same++
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(host)) // never fails
	return some[(int(h.Sum32()>>1)+n.tries)%same], true
}

// others are the hosts that are short, in order, without this one.
func (n *network) others(host string) (hosts []string) {
	for _, h := range slices.Sorted(maps.Keys(n.needs)) {
		if h != host {
			hosts = append(hosts, h)
		}
	}
	return hosts
}
