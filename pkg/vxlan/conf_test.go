package vxlan

import "testing"

// What is absent has a default; a name fits an interface.
func TestDefaults(t *testing.T) {
	c := Conf{ID: maxID, Dev: "eth0"}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	if c.Port != DefaultPort || c.Control != Etcd {
		t.Errorf("port %d and control %s", c.Port, c.Control)
	}
	if n := c.Name(); n != "vxlan16777215" {
		t.Errorf("name %s", n)
	}
}
