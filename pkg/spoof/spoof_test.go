package spoof_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/spoof"
)

// TestFrames: a port speaks with its own address and with no other.
func TestFrames(t *testing.T) {
	w := nltest.New(t)
	neighbour := w.NewSandbox()
	w.Bridge("br0", "10.1.0.1/16")
	w.Plug(w.Sandbox, "veth0", "br0", "10.1.0.2/16")
	w.Plug(neighbour, "veth1", "br0", "10.1.0.3/16")
	w.Serve(w.Host, "tcp", "10.1.0.1:80")
	before := w.Run("nft", "list", "ruleset")
	var mac net.HardwareAddr
	w.In(w.Sandbox, func() {
		l, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		mac = l.HardwareAddr
	})
	p := spoof.Port{Name: "veth0", ContainerID: "c1", IfName: "eth0"}
	if _, err := spoof.Add(t.Context(), nil, p, mac); err != nil {
		t.Fatal(err)
	}
	if err := spoof.Check(t.Context(), p, mac); err != nil {
		t.Error(err)
	}
	reach := func(from *netns.NS) bool { return w.Ask(from, "tcp", "10.1.0.1:80") != "" }
	if !reach(w.Sandbox) {
		t.Error("its own address is dropped")
	}
	w.In(w.Sandbox, func() { w.IP("link", "set", "eth0", "address", "02:00:00:00:00:99") })
	w.IP("neigh", "flush", "dev", "br0")
	if reach(w.Sandbox) {
		t.Error("another address passes")
	}
	if !reach(neighbour) {
		t.Error("a port that is not checked is dropped")
	}
	if err := spoof.Check(t.Context(), p, net.HardwareAddr{2, 0, 0, 0, 0, 0x99}); err == nil {
		t.Error("CHECK passes for another address")
	}
	for range 2 {
		if err := spoof.Del(t.Context(), nil, p); err != nil {
			t.Fatal(err)
		}
	}
	w.In(w.Sandbox, func() { w.IP("link", "set", "eth0", "address", mac.String()) })
	w.IP("neigh", "flush", "dev", "br0")
	w.In(w.Sandbox, func() { w.IP("neigh", "flush", "dev", "eth0") })
	if !reach(w.Sandbox) {
		t.Error("dropped after Del")
	}
	if diff := cmp.Diff(before, w.Run("nft", "list", "ruleset")); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestConcurrent: 64 ports come and go at once; the two rules stay two.
func TestConcurrent(t *testing.T) {
	w := nltest.New(t)
	each := func(do func(spoof.Port, net.HardwareAddr) error) {
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				w.In(w.Host, func() {
					if err := do(spoof.Port{Name: fmt.Sprintf("veth%08x", i)}, net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}); err != nil {
						t.Error(err)
					}
				})
			})
		}
		wg.Wait()
	}
	each(func(p spoof.Port, mac net.HardwareAddr) error {
		_, err := spoof.Add(t.Context(), nil, p, mac)
		return err
	})
	if out := w.Run("nft", "list", "ruleset"); strings.Count(out, "drop") != 1 {
		t.Errorf("rules:\n%s", out)
	}
	each(func(p spoof.Port, mac net.HardwareAddr) error { return spoof.Check(t.Context(), p, mac) })
	each(func(p spoof.Port, _ net.HardwareAddr) error { return spoof.Del(t.Context(), nil, p) })
	if out := w.Run("nft", "list", "ruleset"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestReconcile restores a check after a flush, by the record alone.
func TestReconcile(t *testing.T) {
	w := nltest.New(t)
	r := journal.Record{Config: []byte(`{"macspoofchk":true}`), Links: []journal.Link{
		{Name: "veth0"}, {Name: "eth0", MAC: "02:00:00:00:00:01", Sandbox: true},
	}}
	r.ContainerID, r.IfName = "c1", "eth0"
	for range 2 {
		if err := spoof.Reconcile(t.Context(), nil, r); err != nil {
			t.Fatal(err)
		}
	}
	p := spoof.Port{Name: "veth0", ContainerID: "c1", IfName: "eth0"}
	if err := spoof.Check(t.Context(), p, net.HardwareAddr{2, 0, 0, 0, 0, 1}); err != nil {
		t.Error(err)
	}
	if err := spoof.Del(t.Context(), nil, p); err != nil {
		t.Fatal(err)
	}
	if out := w.Run("nft", "list", "ruleset"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestReference: Del removes the rules and chains that the reference made.
func TestReference(t *testing.T) {
	bin := nltest.Reference(t)
	w := nltest.New(t)
	cmd := exec.Command(bin + "/bridge")
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS="+w.Path, "CNI_IFNAME=eth0", "CNI_PATH="+bin)
	cmd.Stdin = strings.NewReader(`{"cniVersion":"1.0.0","name":"net1","type":"bridge","bridge":"br0","macspoofchk":true}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("reference: %v\n%s", err, out)
	}
	if err := spoof.Del(t.Context(), nil, spoof.Port{Name: "veth12345678", ContainerID: "c1", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if out := w.Run("nft", "list", "ruleset"); strings.Contains(out, "cni-br-iface") {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestSpoiled: CHECK sees each part that is missing, Reconcile restores it, and a
// ruleset that was saved and loaded is the same to the kernel.
func TestSpoiled(t *testing.T) {
	w := nltest.New(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	p := spoof.Port{Name: "veth0", ContainerID: "c1", IfName: "eth0"}
	record := journal.Record{
		Key: journal.Key{ContainerID: "c1", IfName: "eth0"}, Config: []byte(`{"macspoofchk":true}`),
		Links: []journal.Link{{Name: "veth0"}, {Name: "eth0", MAC: mac.String(), Sandbox: true}},
	}
	if _, err := spoof.Add(t.Context(), nil, p, mac); err != nil {
		t.Fatal(err)
	}
	made := w.Run("nft", "list", "ruleset")
	w.EachSpoil(func(spoil func()) {
		spoil()
		if spoof.Check(t.Context(), p, mac) == nil {
			t.Error("CHECK passed")
		}
		if err := spoof.Reconcile(t.Context(), nil, record); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(made, w.Run("nft", "list", "ruleset")); diff != "" {
			t.Errorf("reconciled (-made +now):\n%s", diff)
		}
	})
	kernel := w.KernelRules()
	w.Reload()
	if diff := cmp.Diff(kernel, w.KernelRules()); diff != "" {
		t.Errorf("to the kernel (-made +loaded):\n%s", diff)
	}
	if err := spoof.Check(t.Context(), p, mac); err != nil {
		t.Error(err)
	}
}
