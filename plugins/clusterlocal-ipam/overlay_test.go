package clusterlocal_test

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// overlaid is the call of an overlay network.
func overlaid(bed *nltest.Bed, id, ipam string) nltest.Call {
	c := call(bed, id, ipam)
	c.Conf = strings.Replace(c.Conf, `"ipam"`, `"bridge":"br0","vxlan":{"id":7,"dev":"up0"},"ipam"`, 1)
	return c
}

// On an overlay network an attachment has the addresses of both families at one place.
func TestPairs(t *testing.T) {
	bed := nltest.New(t)
	p, err := clusterlocal.ReadPool([]byte(strings.ReplaceAll(overlaid(bed, "", ranges).Conf, "DATADIR", bed.Dir)))
	if err != nil {
		t.Fatal(err)
	}
	if p.Overlay == nil || p.Overlay.ID != 7 || p.Bridge != "br0" {
		t.Errorf("%+v", p)
	}
	f := &fake{answer: func(clusterlocal.Request) string { return "nothing is free" }}
	f.serve(t, socket(bed))
	own(t, bed, p, slot.Part{Slot: 0, Bits: 2}, slot.Part{Slot: 1, Bits: 2})
	want(t, addrs(bed, overlaid(bed, "a", ranges)), "10.1.2.2/24 fd00::2/64") // .1 is the gateway
	want(t, addrs(bed, overlaid(bed, "b", ranges)), "10.1.2.3/24 fd00::3/64")
	want(t, addrs(bed, overlaid(bed, "c", ranges)), "10.1.2.16/24 fd00::10/64")
	wish := overlaid(bed, "d", ranges)
	wish.Args = "IP=fd00::13"
	want(t, addrs(bed, wish), "10.1.2.19/24 fd00::13/64")
	want(t, addrs(bed, overlaid(bed, "e", ranges)), "10.1.2.17/24 fd00::11/64") // .18 is excluded
	bed.Fails(plugin.Add, overlaid(bed, "f", ranges), 11)
	bed.Must(plugin.Del, overlaid(bed, "b", ranges))
	want(t, addrs(bed, overlaid(bed, "f", ranges)), "10.1.2.3/24 fd00::3/64")
	wish.ContainerID, wish.Conf = "g", strings.Replace(wish.Conf, `"ipam"`, `"args":{"cni":{"ips":["10.1.2.16","fd00::11"]}},"ipam"`, 1)
	if msg := bed.Fails(plugin.Add, wish, 7); !strings.Contains(msg, "belongs to") {
		t.Error(msg)
	}
	if n := held(t, bed); n != 10 {
		t.Errorf("%d leases are held, want 10", n)
	}
}

// Other hosts reach one address of each family.
func TestOneSetOfEachFamily(t *testing.T) {
	bed := nltest.New(t)
	c := overlaid(bed, "a", `"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"10.1.3.0/24"}]]`)
	if msg := bed.Fails(plugin.Add, c, 7); !strings.Contains(msg, "one range set of each family") {
		t.Error(msg)
	}
	bed.Must(plugin.Del, c)
}

// An uplink that is not up is programmed before the addresses are handed out, and
// nothing is handed out if it is not.
func TestNewUplink(t *testing.T) {
	bed := nltest.New(t)
	bed.IP("link", "add", "vxlan7", "type", "vxlan", "id", "7", "dstport", "4789")
	p := pool(t, bed, ranges)
	own(t, bed, p, slot.Part{Slot: 1, Bits: 2})
	c := overlaid(bed, "a", ranges)
	if msg := bed.Fails(plugin.Add, c, 11); !strings.Contains(msg, "its uplink is new, and `netcleat cluster daemon` does not answer") {
		t.Error(msg)
	}
	refuse := "etcd does not answer"
	f := &fake{answer: func(clusterlocal.Request) string { return refuse }}
	f.serve(t, socket(bed))
	want(t, bed.Fails(plugin.Add, c, 11), "network net: etcd does not answer")
	refuse = ""
	want(t, addrs(bed, c), "10.1.2.16/24 fd00::10/64")
	bed.IP("link", "set", "vxlan7", "up")
	c.ContainerID = "b"
	want(t, addrs(bed, c), "10.1.2.17/24 fd00::11/64")
	if len(f.asked) != 2 || !f.asked[0].Uplink || !f.asked[1].Uplink {
		t.Errorf("asked %+v", f.asked)
	}
}
