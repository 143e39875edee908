package link

import (
	"testing"

	"github.com/netcleat/netcleat/pkg/journal"
)

// Two machines give the containers of networks of one name other addresses; where
// there is no machine-id they are what they were before it counted.
func TestDerivedMACOfMachines(t *testing.T) {
	k := journal.Key{Network: "lan", ContainerID: "web", IfName: "eth0"}
	seen := map[string]string{}
	for _, text := range []string{"", "00000000000000000000000000000001\n", "00000000000000000000000000000002\n"} {
		mac := derivedMAC(k, idIn([]byte(text))).String()
		if other, ok := seen[mac]; ok {
			t.Errorf("machine %q has %s, as %q", text, mac, other)
		}
		seen[mac] = text
	}
	if text, ok := seen["c2:ef:19:f0:02:e8"]; !ok || text != "" {
		t.Errorf("without a machine-id: %v", seen)
	}
	for _, text := range []string{"uninitialized\n", "\n"} {
		if id := idIn([]byte(text)); id != "" {
			t.Errorf("%q is the ID %q", text, id)
		}
	}
}
