package attached

import (
	"testing"

	"github.com/netcleat/netcleat/pkg/netns"
)

func TestConnectID(t *testing.T) {
	for _, want := range []netns.ID{{Ino: 4026532281, Cookie: 4097}, {Ino: 4026532281}} {
		id := ConnectID(want)
		if ns, thisBoot, ok := Connected(id); !ok || !thisBoot || ns != want {
			t.Errorf("%s: want %v of this boot, got %v %v %v", id, want, ns, thisBoot, ok)
		}
		digit := map[bool]string{true: "1", false: "0"}[id[len(id)-1] == '0']
		if ns, thisBoot, ok := Connected(id[:len(id)-1] + digit); !ok || thisBoot || ns != want {
			t.Errorf("%s with another boot: got %v %v %v", id, ns, thisBoot, ok)
		}
	}
	for _, id := range []string{"", "net-", "net-x", "net-1-2", "net-1-2-3", "net-0-2-00000000", "net-1-x-00000000", "a-net-1-2-00000000", "net-99999999999999999999999-1-00000000", "abc"} {
		if ns, _, ok := Connected(id); ok {
			t.Errorf("%q: is a runtime's, got %v", id, ns)
		}
	}
}
