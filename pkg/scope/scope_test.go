package scope_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"

	"github.com/netcleat/netcleat/pkg/scope"
)

func TestBlock(t *testing.T) {
	const subnet = `{"subnet":"10.1.0.0/24"}`
	ranged := func(rest string) string {
		return `{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24",` + rest + `}]]}`
	}
	for _, c := range []struct{ ipam, addr, want string }{
		{`{"type":"host-local","ranges":[[` + subnet + `]]}`, "10.1.0.5/24", "10.1.0.0/24"},
		{`{"type":"host-local","subnet":"10.1.0.0/24"}`, "10.1.0.5/24", "10.1.0.0/24"},
		{`{"type":"host-local","subnet":"10.1.0.0/24","rangeStart":"10.1.0.16"}`, "10.1.0.17/24", "10.1.0.16/28"},
		{ranged(`"rangeStart":"10.1.0.10","rangeEnd":"10.1.0.99"`), "10.1.0.10/24", "10.1.0.10/31"},
		{ranged(`"rangeStart":"10.1.0.10","rangeEnd":"10.1.0.99"`), "10.1.0.12/24", "10.1.0.12/30"},
		{ranged(`"rangeStart":"10.1.0.10","rangeEnd":"10.1.0.99"`), "10.1.0.99/24", "10.1.0.96/30"},
		{ranged(`"rangeStart":"10.1.0.10","rangeEnd":"10.1.0.99"`), "10.1.0.100/24", "10.1.0.100/32"},
		{ranged(`"rangeStart":"10.1.0.128","rangeEnd":"10.1.0.254"`), "10.1.0.200/24", "10.1.0.128/25"},
		{ranged(`"rangeStart":"10.1.0.2","rangeEnd":"10.1.0.254"`), "10.1.0.2/24", "10.1.0.0/24"},
		{ranged(`"rangeStart":"10.1.0.1","rangeEnd":"10.1.0.253","gateway":"10.1.0.254"`), "10.1.0.2/24", "10.1.0.0/24"},
		{ranged(`"rangeStart":"10.1.0.3"`), "10.1.0.3/24", "10.1.0.3/32"},
		{`{"type":"host-local","ranges":[[{"subnet":"fd01::/64"}]]}`, "fd01::2/64", "fd01::/64"},
		{`{"type":"host-local","ranges":[[{"subnet":"fd01::/64","rangeStart":"fd01::10"}]]}`, "fd01::ff/64", "fd01::80/121"},
		{`{"type":"host-local","ranges":[[{"subnet":"fd01::/64","rangeEnd":"fd01::fffe"}]]}`, "fd01::fffe/64", "fd01::fffe/128"},
		{`{"type":"host-local","ranges":[[{"subnet":"10.9.0.0/24"}],[` + subnet + `]]}`, "10.1.0.5/24", "10.1.0.0/24"},
		{`{"type":"host-local","ranges":[[{"subnet":"10.9.0.0/24"}]]}`, "10.1.0.5/24", "10.1.0.5/32"},
		{`{"type":"host-local","ranges":[[{"subnet":"::/0"}]]}`, "10.1.0.5/24", "10.1.0.5/32"},
		{`{"type":"static","addresses":[{"address":"10.1.0.5/24"}]}`, "10.1.0.5/24", "10.1.0.5/32"},
		{`{"type":"dhcp"}`, "10.1.0.5/24", "10.1.0.5/32"},
		{`{"type":"whereabouts","range":"10.1.0.0/24"}`, "10.1.0.5/24", "10.1.0.5/32"},
		{`{"type":"host-local","ranges":[[{"subnet":"nonsense"}]]}`, "10.1.0.5/24", "10.1.0.5/32"},
	} {
		conf := json.RawMessage(fmt.Sprintf(`{"name":"n","ipam":%s}`, c.ipam))
		if got := scope.Of(conf).Block(netip.MustParsePrefix(c.addr)).String(); got != c.want {
			t.Errorf("%s in %s: %s, want %s", c.addr, c.ipam, got, c.want)
		}
	}
}

// Ranges that the runtime gives count like the configuration's.
func TestRuntimeRanges(t *testing.T) {
	conf := json.RawMessage(`{"ipam":{"type":"host-local"},"runtimeConfig":{"ipRanges":[[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.64","rangeEnd":"10.1.0.127"}]]}}`)
	if got := scope.Of(conf).Block(netip.MustParsePrefix("10.1.0.70/24")).String(); got != "10.1.0.64/26" {
		t.Error(got)
	}
}
