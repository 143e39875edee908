package ranges

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/bits"
	"strconv"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Pool is a range set and how many of its addresses are held.
type Pool struct {
	Ranges     string // "10.1.2.1-10.1.2.254"
	Size, Held uint64 // Size is the largest number where there are more
}

// String is what people read: "12 of 65,533"; above 2^32 addresses, as in
// an IPv6 subnet, "12 of 2^64".
func (p Pool) String() string {
	if p.Size == math.MaxUint64 {
		return grouped(p.Held) + " of more than 2^64"
	}
	if p.Size > math.MaxUint32 {
		return grouped(p.Held) + " of 2^" + strconv.Itoa(bits.Len64(p.Size-1))
	}
	return grouped(p.Held) + " of " + grouped(p.Size)
}

// Pools returns the range sets of the configuration in c.Stdin, the name and
// dataDir of which are also in c.Conf. It changes nothing.
func Pools(ctx context.Context, c *plugin.Call) (pools []Pool, err error) {
	var n Document
	if err := c.Decode(&n); err != nil {
		return nil, err
	}
	conf, err := n.Config(c)
	if err != nil {
		return nil, err
	}
	for _, set := range conf.sets {
		pools = append(pools, Pool{Ranges: set.String(), Size: set.size()})
	}
	err = with(ctx, lease.View, place(c, conf), func(s *lease.Store) error {
		for i, set := range conf.sets {
			pools[i].Held = set.held(s)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // nothing is held yet
	}
	return pools, err
}

// held counts the addresses that are held, of those that are handed out.
func (s Set) held(leases Counter) (n uint64) {
	for i := range s {
		n += leases.CountHeld(s[i].Start.Addr, s[i].End.Addr)
		if gw := s[i].Gateway.Addr; s[i].contains(gw) && leases.IsHeld(gw) {
			n--
		}
	}
	return n
}

// exhausted says what fills the set and where to look further.
func (a *allocation) exhausted(set Set) error {
	p := Pool{Size: set.size(), Held: set.held(a.store)}
	known := min(a.known(set), p.Held)
	return cnierr.With(cnierr.Exhausted, fmt.Errorf("no IP addresses available in range set: %s: %s addresses are held, %s by attachments that live or may live, %s by owners that the journal does not know; `netcleat doctor` lists them",
		set, p, grouped(known), grouped(p.Held-known)))
}

// known counts the leases of attachments that the journal has a record of.
func (a *allocation) known(set Set) (n uint64) {
	if a.call.Journal == "" {
		return 0
	}
	// What cannot be read is not known.
	records, _ := a.call.Journal.Network(a.call.Conf.Name)
	for o := range byAttachment(records) {
		leases, _ := a.store.Of(o)
		for _, l := range leases {
			if l.Owner == o && set.find(l.Addr) != nil {
				n++
			}
		}
	}
	return n
}

// grouped writes a number with a comma between thousands.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
