package forward_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/forward"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

func get(t *testing.T, key string) string {
	t.Helper()
	v, err := sysctl.Get(nil, key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What the host has by router advertisements stays when it becomes a router;
// links that have nothing of that kind are left as they are.
func TestEnable6(t *testing.T) {
	bed := nltest.New(t)
	for i := range 5 {
		bed.IP("link", "add", fmt.Sprint("u", i), "up", "type", "veth", "peer", "name", fmt.Sprint("p", i))
		bed.IP("link", "set", fmt.Sprint("p", i), "up")
	}
	bed.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "u0", "proto", "ra", "expires", "600")
	bed.IP("-6", "addr", "add", "2001:db8::2/64", "dev", "u1", "nodad", "valid_lft", "600", "preferred_lft", "600")
	bed.IP("-6", "addr", "add", "2001:db8:1::2/64", "dev", "u2", "nodad")
	bed.IP("-6", "route", "add", "2001:db8:9::/64", "via", "fe80::1", "dev", "u3", "proto", "ra", "table", "77")
	bed.Run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/u4/accept_ra")
	bed.IP("-6", "route", "add", "2001:db8:8::/64", "via", "fe80::1", "dev", "u4", "proto", "ra")

	host, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	changes := 0
	count := func(string) error { changes++; return nil }
	for range 2 {
		if err := forward.Enable6(host, count); err != nil {
			t.Fatal(err)
		}
	}
	if changes != 4 {
		t.Errorf("%d changes, want 4", changes)
	}
	for link, want := range map[string]string{"u0": "2", "u1": "2", "u2": "1", "u3": "2", "u4": "0"} {
		if got := get(t, "net/ipv6/conf/"+link+"/accept_ra"); got != want {
			t.Errorf("%s has accept_ra=%s, want %s", link, got, want)
		}
	}
	if got := get(t, "net/ipv6/conf/all/forwarding"); got != "1" {
		t.Errorf("forwarding=%s", got)
	}
	if got := bed.IP("-6", "route"); !strings.Contains(got, "default via fe80::1 dev u0 proto ra") {
		t.Errorf("the host lost its default route:\n%s", got)
	}
}

func TestEnable4(t *testing.T) {
	nltest.New(t)
	if err := forward.Enable4((&nltest.Faults{At: 1}).Gate); err == nil || !strings.Contains(err.Error(), "net/ipv4/ip_forward") {
		t.Errorf("refused: %v", err)
	}
	for range 2 {
		if err := forward.Enable4(nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := get(t, "net/ipv4/ip_forward"); got != "1" {
		t.Errorf("ip_forward=%s", got)
	}
}
