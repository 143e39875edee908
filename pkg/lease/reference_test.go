package lease

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
)

// The reference's own store and this one see each other's leases, in turns on one
// directory: nothing that one has taken is free to the other.
func TestReferenceStore(t *testing.T) {
	p := place(t)
	take(t, p, "c1", "c2")
	theirs, err := disk.New(filepath.Base(p.Dir), filepath.Dir(p.Dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Close() })
	lock := func(fn func() error) {
		t.Helper()
		if err := theirs.Lock(); err != nil {
			t.Fatal(err)
		}
		err := fn()
		if err := theirs.Unlock(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lock(func() error {
		if ips := theirs.GetByID("c2", "eth0"); len(ips) != 1 || ips[0].String() != "10.1.0.3" {
			t.Errorf("the reference finds %v for c2", ips)
		}
		if ok, err := theirs.Reserve("c3", "eth0", net.ParseIP("10.1.0.3"), "0"); ok || err != nil {
			t.Errorf("the reference takes an address of ours: %v, %v", ok, err)
		}
		if ok, err := theirs.Reserve("c3", "eth0", net.ParseIP("10.1.0.4"), "0"); !ok || err != nil {
			t.Errorf("the reference does not get a free address: %v, %v", ok, err)
		}
		return theirs.ReleaseByID("c1", "eth0")
	})
	in(t, p, func(s *Store) {
		if l, err := s.Of(Owner{"c3", "eth0"}); err != nil || len(l) != 1 || l[0].Addr.String() != "10.1.0.4" {
			t.Errorf("c3 has %v, %v", l, err)
		}
		if l, err := s.Of(Owner{"c1", "eth0"}); err != nil || len(l) > 0 {
			t.Errorf("c1 has %v, %v after the reference gave it back", l, err)
		}
		if l, err := s.Of(Owner{"c2", "eth0"}); err != nil || len(l) != 1 {
			t.Fatalf("c2 has %v, %v", l, err)
		} else if err := s.Give(l[0]); err != nil {
			t.Error(err)
		}
	})
	lock(func() error {
		if ips := theirs.GetByID("c2", "eth0"); len(ips) > 0 {
			t.Errorf("the reference finds %v for c2 after it was given back", ips)
		}
		return nil
	})
}
