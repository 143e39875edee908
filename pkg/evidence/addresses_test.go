package evidence_test

import (
	"net/netip"
	"testing"

	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
)

// What is for addresses is dead where no namespace has one of them, and only where
// all could be looked at.
func TestAddresses(t *testing.T) {
	b := nltest.New(t)
	b.In(b.Sandbox, func() {
		b.IP("link", "add", "d0", "type", "veth", "peer", "name", "d1")
		b.IP("addr", "add", "10.199.7.5/24", "dev", "d0")
	})
	own := b.Sandbox.ID.Ino
	const host = 10
	judge := func(held map[uint64]string, err error) *evidence.Judge {
		return evidence.Seeing(host, func() (map[uint64]string, error) { return held, err })
	}
	sees := map[uint64]string{host: "/none", own: b.Path}
	for name, c := range map[string]struct {
		j    *evidence.Judge
		of   string
		want evidence.State
	}{
		"in use":                {judge(sees, nil), "10.199.7.0/24", evidence.Alive},
		"its neighbour's":       {judge(sees, nil), "10.199.8.0/24", evidence.Dead},
		"one cannot be opened":  {judge(map[uint64]string{own: b.Path, 5: "/none"}, nil), "10.199.8.0/24", evidence.Unknown},
		"contrary evidence":     {judge(map[uint64]string{own: b.Path, 5: "/none"}, nil), "10.199.7.5/32", evidence.Alive},
		"cannot be looked for":  {judge(nil, netns.ErrBlind), "10.199.8.0/24", evidence.Unknown},
		"no addresses are said": {judge(sees, nil), "", evidence.Unknown},
	} {
		var of []netip.Prefix
		if c.of != "" {
			of = append(of, netip.MustParsePrefix(c.of))
		}
		if got := c.j.Addresses(of); got.State != c.want {
			t.Errorf("%s: %s (%s), want %s", name, got.State, got.Why, c.want)
		}
	}
}
