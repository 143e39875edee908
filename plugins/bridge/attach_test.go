package bridge

import (
	"testing"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func table(stub *nltest.StubIPAM) plugin.Table {
	return plugin.Table{"bridge": Plugin, "stub": stub.Plugin()}
}

const dual = `{"cniVersion":"1.1.0","name":"net","type":"bridge","bridge":"br0","isDefaultGateway":true,"hairpinMode":true,"ipam":{"type":"stub"}}`

func dualStack() *nltest.StubIPAM {
	return &nltest.StubIPAM{Addresses: []string{"10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1"}}
}

// Whatever change the kernel refuses, a failed ADD leaves both namespaces, the
// journal and the IPAM plugin's books as they were.
func TestAttachLeavesNoTrace(t *testing.T) {
	stub := dualStack()
	c := nltest.Call{Table: table(stub), Plugin: "bridge", Conf: dual}
	nltest.NoTrace(t, c, func(b *nltest.Bed) {
		// What is shared stays: it is there before.
		first := c
		first.ContainerID, first.Netns = "other", b.PathOf(b.NewSandbox())
		b.Must(plugin.Add, first)
		stub.Held = 0
	})
}

func TestLifecycle(t *testing.T) {
	bed := nltest.New(t)
	c := nltest.Call{Table: table(dualStack()), Plugin: "bridge", Conf: dual}
	res := bed.Must(plugin.Add, c)
	t.Log(res)
	t.Log(bed.SandboxIP("addr"), bed.SandboxIP("route"), bed.SandboxIP("-6", "route"))
	bed.In(bed.Sandbox, func() {
		t.Log(bed.Run("ping", "-c1", "-W1", "10.1.0.1"))
		t.Log(bed.Run("ping", "-c1", "-W1", "fd00:1::1"))
	})
	t.Log(bed.Fails(plugin.Add, c, 100))
	bed.Must(plugin.Del, c)
	bed.Must(plugin.Del, c)
	t.Log(bed.Snapshot())
}
