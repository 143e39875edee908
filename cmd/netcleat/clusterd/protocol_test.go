package clusterd

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/netcleat/netcleat/pkg/slot"
)

// Networks of the simulation: scarce and ample, with small blocks and large.
var simNets = []string{
	`"subnet":"10.0.0.0/26"`,
	`"subnet":"10.0.0.0/24","rangeStart":"10.0.0.32","rangeEnd":"10.0.0.200","blockSize":28`,
	`"subnet":"10.0.0.0/28","blockSize":32`,
	`"ranges":[[{"subnet":"10.0.0.0/25"}],[{"subnet":"fd00::/64"}]],"exclude":["10.0.0.64/28"],"blockSize":29`,
	`"ranges":[[{"subnet":"10.0.0.0/27"}],[{"subnet":"fd00::/48"}]],"blockSize":32`,
}

// TestNoAddressTwice lets six hosts with failing daemons share a network, through a
// store that delays, drops, repeats and reorders requests.
func TestNoAddressTwice(t *testing.T) {
	adds, late := 0, 0
	for seed := range uint64(seeds()) {
		s := newSim(t, seed, 6, simNets[int(seed)%len(simNets)])
		s.chaos(120_000, 9)
		s.settle(60_000)
		for _, d := range s.dups {
			t.Errorf("seed %d: %s", seed, d)
		}
		for _, w := range s.wrong() {
			t.Errorf("seed %d: %s", seed, w)
		}
		s.checkLiveness(t, seed)
		adds, late = adds+s.adds, late+s.late
		if t.Failed() {
			break
		}
	}
	t.Logf("%d ADDs, %d requests took effect after their time", adds, late)
	if adds < 10_000 || late < 1000 {
		t.Error("too little has happened")
	}
}

// checkLiveness fills the network from one host: it must get every address.
func (s *sim) checkLiveness(t *testing.T, seed uint64) {
	t.Helper()
	for _, h := range s.hosts {
		for len(h.leases) > 0 {
			h.del()
		}
	}
	h := s.hosts[seed%6]
	var total uint64
	for _, b := range h.pool.Bounds() {
		for i := b[0]; i <= b[1]; i++ {
			total += h.pool.Capacity(h.pool.Layout.Whole(i))
		}
	}
	before := s.adds
	for i := range total {
		h.add(fmt.Sprint("last/", i), netip.Addr{}, 20)
		s.run(s.now + 5000)
	}
	s.run(s.now + 60_000)
	if got := uint64(s.adds - before); got != total {
		t.Errorf("seed %d: one host got %d of %d addresses", seed, got, total)
	}
}

// TestTheTestHasTeeth leaves out what the protocol rests on.
func TestTheTestHasTeeth(t *testing.T) {
	for name, m := range map[string]mode{"without fence": withoutFence, "with a lease": withLease} {
		t.Run(name, func(t *testing.T) {
			failed := 0
			const seeds = 6
			for seed := range uint64(seeds) {
				s := newSim(t, seed, 6, simNets[0])
				s.mode = m
				for _, h := range s.hosts {
					h.d.fence = m != withoutFence
				}
				s.chaos(3_000_000, 9)
				if len(s.dups) > 0 {
					failed++
				}
			}
			if failed < seeds {
				t.Errorf("the oracle noticed it with %d of %d seeds", failed, seeds)
			}
		})
	}
}

// TestRestored restores the store from a backup while six hosts use it. None hands out
// more than it has, all keep what they have, and after a reset all goes on.
func TestRestored(t *testing.T) {
	for seed := range uint64(seeds() / 2) {
		s := newSim(t, seed, 6, simNets[int(seed)%len(simNets)])
		s.chaos(20_000, 9)
		keys, rev := s.backup()
		s.chaos(int(seed+1)*2000, 9)
		s.settle(60_000)
		had := s.inUse()
		s.restore(keys, rev)
		s.calm, s.keep = false, true
		s.chaos(60_000, 9)
		s.settle(60_000)
		for _, h := range s.hosts {
			if !containAll(had[h.name], h.files[h.pool.Name]) {
				t.Errorf("seed %d: %s uses %v, and had %v", seed, h.name, h.files[h.pool.Name], had[h.name])
			}
		}
		s.reset()
		s.settle(60_000)
		for _, h := range s.hosts {
			if h.d.state != running || h.disk.Adopting {
				t.Errorf("seed %d: %s has not adopted its blocks: %v", seed, h.name, h.d.why)
			}
		}
		s.put(stopKey, "")
		s.calm, s.keep = false, false
		s.chaos(30_000, 9)
		s.settle(60_000)
		for _, x := range append(s.dups, s.wrong()...) {
			t.Errorf("seed %d: %s", seed, x)
		}
		s.checkLiveness(t, seed)
		if t.Failed() {
			return
		}
	}
}

// TestRestoredUnseen starts a daemon that has saved no revision over a store that knows
// no slot: what it uses tells it that something was forgotten.
func TestRestoredUnseen(t *testing.T) {
	s := newSim(t, 1, 1, simNets[0])
	s.calm = true
	s.run(20_000)
	keys, rev := s.backup()
	for key := range keys {
		if of, ok := netKey(key); ok && of.part == slotPart {
			delete(keys, key)
		}
	}
	h := s.hosts[0]
	had := h.files["lan"]
	h.crash()
	s.restore(keys, rev)
	h.disk.Revision, h.disk.Entered = 0, 0
	h.start()
	s.run(s.now + 20_000)
	if h.d.state != refused || !h.d.restored || len(had) == 0 || !slices.Equal(had, h.files["lan"]) {
		t.Errorf("%v; it uses %v, and had %v", h.d.why, h.files["lan"], had)
	}
}

// inUse is what each host may hand out.
func (s *sim) inUse() map[string]slot.Parts {
	all := map[string]slot.Parts{}
	for _, h := range s.hosts {
		all[h.name] = h.files[h.pool.Name]
	}
	return all
}

func containAll(ps, qs slot.Parts) bool { return len(qs.Minus(ps)) == 0 }

// seeds is how many runs there are.
func seeds() int {
	if os.Getenv("FAULTS") == "all" {
		return 1000
	}
	return 12
}
