package link

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

func TestHasRoute(t *testing.T) {
	dst, gw := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParseAddr("192.168.0.1")
	want := nl.Route{Dst: dst, Gateway: gw, Index: 5}
	for _, tc := range []struct {
		name  string
		table uint32
		have  nl.Route
		ok    bool
	}{
		{"as configured", 0, nl.Route{Dst: dst, Gateway: gw, Index: 5, Table: unix.RT_TABLE_MAIN}, true},
		{"moved by a chained plugin", 0, nl.Route{Dst: dst, Gateway: gw, Index: 5, Table: 100}, true},
		{"another link's", 0, nl.Route{Dst: dst, Gateway: gw, Index: 6, Table: unix.RT_TABLE_MAIN}, false},
		{"another gateway", 0, nl.Route{Dst: dst, Index: 5, Table: unix.RT_TABLE_MAIN}, false},
		{"the table that is asked for", 7, nl.Route{Dst: dst, Gateway: gw, Index: 5, Table: 7}, true},
		{"not the table that is asked for", 7, nl.Route{Dst: dst, Gateway: gw, Index: 5, Table: unix.RT_TABLE_MAIN}, false},
	} {
		w := want
		w.Table = tc.table
		if got := hasRoute([]nl.Route{tc.have}, w); got != tc.ok {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.ok)
		}
	}
}
