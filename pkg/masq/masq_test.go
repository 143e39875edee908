package masq_test

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/spoof"
)

func TestSmoke(t *testing.T) {
	bed := nltest.New(t)
	nftb, ipt := "nftables", "iptables"
	for _, b := range []*string{nil, &nftb, &ipt} {
		before := bed.Snapshot()
		a := masq.Attachment{
			Journal: bed.Journal(), Network: "net1", ContainerID: "c1", IfName: "eth0",
			Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.4/16"), netip.MustParsePrefix("fd00::4/64")}, Backend: b,
		}
		e, err := bed.Journal().Open(context.Background(), journal.Key{Network: "net1", ContainerID: "c1", IfName: "eth0", Plugin: "bridge"})
		if err != nil {
			t.Fatal(err)
		}
		e.Config = []byte(`{"ipMasq":true}`)
		_ = e.Begin()
		_, err = masq.Add(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		if err := masq.Check(t.Context(), a); err != nil {
			t.Error(err)
		}
		t.Log(bed.Run("nft", "list", "ruleset"))
		if err := masq.Del(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		e.Remove()
		e.Close()
		t.Log(before == bed.Snapshot(), bed.Run("nft", "list", "ruleset"))
	}
	p := spoof.Port{Name: "veth12345678", ContainerID: "c1", IfName: "eth0"}
	m, _ := net.ParseMAC("02:00:00:00:00:01")
	_, err := spoof.Add(t.Context(), nil, p, m)
	t.Log(err, bed.Run("nft", "list", "ruleset"))
	t.Log(spoof.Check(nil, p, m))
	t.Log(spoof.Del(t.Context(), nil, p))
	t.Log(bed.Run("nft", "list", "ruleset"))
}
