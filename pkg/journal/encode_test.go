package journal

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/netns"
)

// A record is read as it was written, by this package and by encoding/json. Every
// field is set, so that one that encode forgets is seen.
func TestEncode(t *testing.T) {
	r := Record{
		Version: 1, Key: Key{"net", "c\"1", "eth0", "bridge"}, Netns: "/run/netns/x", NetnsID: netns.ID{Dev: 4, Ino: 1 << 40, Cookie: 1<<64 - 1}, HostID: netns.ID{Dev: 4, Ino: 7}, Boot: 1<<64 - 1,
		Created: time.Now().UTC(), Args: "K=V", Config: json.RawMessage(`{"a":[1]}`), Links: []Link{{"veth0", 3, "02:00:00:00:00:01", true, "veth", 7}, {Name: "x"}},
		IPs: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/16"), netip.MustParsePrefix("fd00::2/64")}, State: json.RawMessage(`{"b":null}`),
	}
	for i := range reflect.TypeFor[Record]().NumField() {
		if reflect.ValueOf(r).Field(i).IsZero() {
			t.Errorf("the test does not set %s", reflect.TypeFor[Record]().Field(i).Name)
		}
	}
	b, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	var std Record
	if err := json.Unmarshal(b, &std); err != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(r, got, same) + cmp.Diff(r, std, same); diff != "" {
		t.Error(diff)
	}
}
