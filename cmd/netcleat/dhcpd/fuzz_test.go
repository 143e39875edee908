package dhcpd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/nltest"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
)

// Whatever a lease's file holds: it is refused, or written again it reads the
// same, and has an address.
func FuzzLeaseFile(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"network":"lan","containerID":"c1","ifName":"eth0","netns":"/x","index":7,"mac":"02:00:00:00:00:01","binding":{"address":"10.1.0.2/16","gateway":"10.1.0.1","routes":[{"dst":"0.0.0.0/0","gateway":"10.1.0.1"}],"server":"10.1.0.1","renew":1,"rebind":2,"expire":3,"until":"2026-01-01T00:00:00Z"}}`,
		`{"version":1,"binding":null,"last":"10.1.0.2"}`, `{"version":99}`, `{"binding":{}}`, `{"binding":{"address":"10.0.0.1/24","server":"x"}}`, `{"binding":{"address":"fd00::1/64","server":"fd00::2"}}`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	path := filepath.Join(dir, "lease.json")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := readRecord(path)
		if err != nil {
			return
		}
		if b := r.Binding; b != nil {
			b.result(r.Priority)
			r.clientID()
		}
		leases := dhcp.Leases(filepath.Join(t.TempDir()))
		r.Key = dhcp.Key{Network: "lan", ContainerID: "c1", IfName: "eth0"}
		if err := r.save(leases); err != nil {
			t.Fatalf("%s: %v", content, err)
		}
		again, err := readRecord(leases.Path(r.Key))
		if err != nil {
			t.Fatalf("%s: written: %v", content, err)
		}
		if diff := cmp.Diff(r.Key, again.Key); diff != "" {
			t.Error(diff)
		}
		if (r.Binding == nil) != (again.Binding == nil) || r.Binding != nil && r.Binding.Address != again.Binding.Address {
			t.Errorf("%s: binding %+v reads as %+v", content, r.Binding, again.Binding)
		}
	})
}

// Whatever a plugin asks the daemon for, it is refused or becomes options that
// the messages can hold.
func FuzzRequest(f *testing.F) {
	for _, conf := range nltest.Examples(f, "dhcp") {
		f.Add([]byte(conf), "K8S_POD_NAME=a;IgnoreUnknown=1")
	}
	f.Add([]byte(`{"name":"lan","ipam":{"provide":[{"option":"12","value":"a"},{"option":"host-name","fromArg":"X"}],"request":[{"option":"121"},{"skipDefault":true}]}}`), "X=Y")
	f.Fuzz(func(t *testing.T, conf []byte, args string) {
		n, err := dhcp.ParseNetwork(conf)
		if err != nil || n.IPAM == nil {
			return
		}
		provide, request, err := n.IPAM.Options(args)
		if err != nil {
			return
		}
		attached(&dhcp.CmdArgs{StdinData: conf, IfName: "eth0"})
		if len(request) > 255 {
			t.Errorf("%d options are requested in one byte's worth", len(request))
		}
		for _, o := range provide {
			if len(o.Value) > 255 {
				t.Logf("option %d has %d bytes", o.Code, len(o.Value))
			}
		}
	})
}
