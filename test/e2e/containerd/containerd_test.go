// Package containerd has the stories of pods that containerd runs, called as
// Kubernetes calls it, and of the containers of ctr.
package containerd

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

// list is the network that containerd's own set-up script writes, and bandwidth.
const list = `{
  "cniVersion": "1.0.0",
  "name": "containerd-net",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "promiscMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}}
  ]
}`

// node is a host where containerd runs.
type node struct {
	*bed.Host
	*bed.Containerd
	t testing.TB
}

func newNode(t testing.TB) node {
	t.Helper()
	h := bed.New(t, "containerd", "ctr", "runc", "busybox", "nft", "iptables")
	h.OwnEtc()
	h.Write("/etc/cni/net.d/10-containerd-net.conflist", list)
	tried.Versions(h.Version("containerd", "--version") + ", " + h.Version("runc", "--version"))
	n := node{h, h.Containerd(), t}
	n.Import()
	return n
}

// wants fails the story where a text has not what it must have.
func (n node) wants(text, part string) {
	n.t.Helper()
	if !strings.Contains(text, part) {
		n.t.Errorf("%q is not in: %s", part, text)
	}
}
