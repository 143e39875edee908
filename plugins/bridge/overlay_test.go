package bridge

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

const overlay = `"isDefaultGateway":true,"vxlan":{"id":100,"dev":"up0","control":"evpn"}`

// underlay is a host with an underlay and another host on it.
func underlay(t *testing.T) (*nltest.Bed, *netns.NS) {
	t.Helper()
	bed := nltest.New(t)
	return bed, joinUnderlay(bed)
}

func joinUnderlay(bed *nltest.Bed) *netns.NS {
	other := bed.NewLAN("up0", "192.0.2.9/24", "2001:db8::9/64")
	bed.IPBatch("addr add 192.0.2.1/24 dev up0\naddr add 2001:db8::1/64 dev up0 nodad\n")
	return other
}

// The uplink is a port of the bridge that learns nothing, for which the bridge answers
// ARP and ND, with room for what it puts before each frame.
func TestUplink(t *testing.T) {
	bed, _ := underlay(t)
	res := bed.Must(plugin.Add, call(dualStack(), overlay))
	got := bed.IP("-d", "link", "show", "vxlan100")
	for _, want := range []string{"mtu 1450", "master br0", "UP", "id 100 ", "local 192.0.2.1 ", "dev up0", "dstport 4789 ", "nolearning", "learning off", "neigh_suppress on", "addrgenmode none"} {
		if !strings.Contains(got, want) {
			t.Errorf("not %q:\n%s", want, got)
		}
	}
	if mtu := res.Interfaces[atSandbox].Mtu; mtu != 1450 {
		t.Errorf("the container has an MTU of %d", mtu)
	}
	if got := bed.IP("link", "show", "br0"); !strings.Contains(got, "mtu 1450") {
		t.Errorf("bridge: %s", got)
	}
	if got := bed.IP("-6", "addr", "show", "vxlan100"); got != "" {
		t.Errorf("addresses: %s", got)
	}
	if got := bed.IP("neigh", "show", "dev", "br0"); !strings.Contains(got, "10.1.0.2 lladdr 0a:6e:0a:01:00:02 PERMANENT") || !strings.Contains(got, "fd00:1::2 lladdr 0a:6e:0a:01:00:02 PERMANENT") {
		t.Errorf("neighbours: %s", got)
	}
}

// What the underlay leaves, and what the configuration asks for.
func TestUplinkMTU(t *testing.T) {
	for name, c := range map[string]struct {
		keys   string
		mtu    int
		header string
	}{
		"IPv6":    {`"vxlan":{"id":100,"local":"2001:db8::1","control":"evpn"}`, 1430, "local 2001:db8::1 "},
		"address": {`"vxlan":{"id":100,"local":"192.0.2.1","port":8472,"control":"evpn"}`, 1450, "dstport 8472 "},
		"smaller": {`"mtu":1400,"vxlan":{"id":100,"dev":"up0","control":"evpn"}`, 1400, "local 192.0.2.1 "},
		"lo":      {`"vxlan":{"id":100,"local":"198.51.100.1","control":"evpn"}`, 1450, "local 198.51.100.1 "},
	} {
		t.Run(name, func(t *testing.T) {
			bed, _ := underlay(t)
			bed.IP("addr", "add", "198.51.100.1/32", "dev", "lo")
			res := bed.Must(plugin.Add, call(dualStack(), c.keys))
			if got := bed.IP("-d", "link", "show", "vxlan100"); !strings.Contains(got, c.header) || !strings.Contains(got, fmt.Sprint("mtu ", c.mtu)) {
				t.Errorf("not %q and an MTU of %d:\n%s", c.header, c.mtu, got)
			}
			if got := res.Interfaces[atSandbox].Mtu; got != c.mtu {
				t.Errorf("the container has an MTU of %d, want %d", got, c.mtu)
			}
		})
	}
}

// A container reaches one of another host, whose uplink was made by hand, with packets
// as large as its interface takes, and the gateway has one address on both.
func TestUplinkCarriesPackets(t *testing.T) {
	bed, other := underlay(t)
	_, a := add(bed, "a", overlay, "10.1.0.2/16 10.1.0.1", "fd00:1::2/64 fd00:1::1")
	b := bed.NewSandbox()
	bed.In(other, func() {
		bed.IPBatch(`link add br0 mtu 1450 up type bridge
			addr add 10.1.0.1/16 dev br0
			link add vx0 mtu 1450 master br0 up type vxlan id 100 local 192.0.2.9 dstport 4789 nolearning
			link add vethb mtu 1450 master br0 up type veth peer name eth0 address 0a:6e:0a:01:01:02 mtu 1450 netns ` + bed.PathOf(b))
		bed.Run("bridge", "fdb", "add", "0a:6e:0a:01:00:02", "dev", "vx0", "dst", "192.0.2.1", "self")
		bed.Run("bridge", "fdb", "add", "00:00:00:00:00:00", "dev", "vx0", "dst", "192.0.2.1", "self")
	})
	bed.In(b, func() {
		bed.IPBatch("addr add 10.1.1.2/16 dev eth0\naddr add fd00:1::102/64 dev eth0 nodad\nlink set eth0 up\n")
	})
	bed.Run("bridge", "fdb", "add", "0a:6e:0a:01:01:02", "dev", "vxlan100", "dst", "192.0.2.9", "self")
	bed.Run("bridge", "fdb", "add", "00:00:00:00:00:00", "dev", "vxlan100", "dst", "192.0.2.9", "self")
	bed.Reaches(a, "10.1.1.2", "fd00:1::102", "10.1.0.1")
	bed.Reaches(b, "10.1.0.2", "fd00:1::2", "10.1.0.1")
	bed.In(a, func() {
		bed.Run("ping", "-c1", "-W2", "-M", "do", "-s", fmt.Sprint(1450-28), "10.1.1.2")
		bed.Run("ping", "-c1", "-W2", "-M", "do", "-s", fmt.Sprint(1450-48), "fd00:1::102")
	})
}

// Whatever change the kernel refuses, a failed ADD leaves no neighbour, and nothing else.
func TestUplinkAttachLeavesNoTrace(t *testing.T) {
	c := nltest.Call{Table: table(dualStack()), Plugin: "bridge", Conf: strings.Replace(dual, `"isDefaultGateway":true`, overlay, 1)}
	nltest.NoTrace(t, c, func(b *nltest.Bed) {
		joinUnderlay(b)
		first := c
		first.Table = table(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16 10.1.0.1", "fd00:1::3/64 fd00:1::1"}})
		first.ContainerID, first.Netns = "other", b.PathOf(b.NewSandbox())
		b.Must(plugin.Add, first)
		t.Cleanup(func() {
			if got := b.IP("neigh", "show", "nud", "permanent"); strings.Contains(got, "10.1.0.2 ") && !strings.Contains(b.IP("link"), "veth"+"e7b5d28a") {
				t.Errorf("left behind: %s", got)
			}
		})
	})
}

// An ADD that was killed while it made the uplink is finished by the next.
func TestUplinkByHalf(t *testing.T) {
	for _, at := range []string{"create vxlan vxlan100", "set port vxlan100", "no address for port vxlan100", "bring up port vxlan100"} {
		t.Run(at, func(t *testing.T) {
			bed, _ := underlay(t)
			c := call(dualStack(), overlay)
			killed := c
			killed.Gate = func(what string) error {
				if what == at {
					return unix.EIO
				}
				return nil
			}
			bed.Fails(plugin.Add, killed, cnierr.Internal)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			bed.Must(plugin.Check, with(c, `"prevResult":`+a.Stdout))
			if got := bed.IP("-d", "link", "show", "vxlan100"); !strings.Contains(got, "neigh_suppress on") || !strings.Contains(got, "learning off") || !strings.Contains(got, "addrgenmode none") {
				t.Error(got)
			}
		})
	}
}

// CHECK says what of the uplink is not as ADD made it; DEL leaves it to the network,
// and takes the container's neighbours with it.
func TestUplinkLifecycle(t *testing.T) {
	for command, want := range map[string]string{
		"link del vxlan100":          "uplink vxlan100 is missing",
		"link set vxlan100 nomaster": "uplink vxlan100 is no port of bridge br0",
		"link set vxlan100 down":     "uplink vxlan100 is down",
		"link set vxlan100 mtu 1450": "",
		"link del vxlan100\nlink add vxlan100 master br0 up type vxlan id 101 local 192.0.2.1 dstport 4789": "with id 100 and port 4789",
	} {
		t.Run(command, func(t *testing.T) {
			bed, _ := underlay(t)
			stub := dualStack()
			c := call(stub, overlay)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			checked := with(c, `"prevResult":`+a.Stdout)
			bed.Must(plugin.Check, checked)
			bed.IPBatch(command + "\n")
			if want == "" {
				bed.Must(plugin.Check, checked)
			} else if msg := bed.Fails(plugin.Check, checked, cnierr.CheckFailed); !strings.Contains(msg, want) {
				t.Errorf("CHECK: %s", msg)
			}
			bed.Must(plugin.Del, c)
			bed.Must(plugin.Del, c)
			if got := bed.IP("neigh", "show", "nud", "permanent"); got != "" {
				t.Errorf("left behind: %s", got)
			}
			if stub.Held != 0 {
				t.Errorf("%d addresses held after DEL", stub.Held)
			}
		})
	}
}

// Links that are not this network's uplink are left alone.
func TestUplinkOfAnother(t *testing.T) {
	for command, want := range map[string]string{
		"link add vxlan100 type dummy\n":                                     "is not a VXLAN interface",
		"link add vxlan100 type vxlan id 7 dstport 4789 local 192.0.2.1\n":   "exists with id 7 and port 4789",
		"link add vxlan100 type vxlan id 100 dstport 4789 local 192.0.2.1\n": "not a port of this network's bridge",
		"link add vx type vxlan id 100 dstport 4789 local 192.0.2.1\n":       "id 100 on port 4789 is that of another interface",
	} {
		t.Run(want, func(t *testing.T) {
			bed, _ := underlay(t)
			bed.IPBatch(strings.ReplaceAll(command, "type dummy", "type veth peer name other"))
			before := bed.IP("-d", "link", "show", "type", "vxlan")
			if msg := bed.Fails(plugin.Add, call(dualStack(), overlay), cnierr.InvalidConfig); !strings.Contains(msg, want) {
				t.Error(msg)
			}
			if after := bed.IP("-d", "link", "show", "type", "vxlan"); after != before {
				t.Errorf("changed from:\n%s\nto:\n%s", before, after)
			}
		})
	}
}

// An underlay that is not there yet may come.
func TestUplinkWithoutUnderlay(t *testing.T) {
	for keys, want := range map[string]string{
		`"vxlan":{"id":1,"dev":"up0","control":"evpn"}`:         "no such interface",
		`"vxlan":{"id":1,"dev":"bare0","control":"evpn"}`:       "has no address yet",
		`"vxlan":{"id":1,"local":"192.0.2.1","control":"evpn"}`: "no interface of the host has it",
	} {
		bed := nltest.New(t)
		bed.IP("link", "add", "bare0", "type", "bridge")
		if msg := bed.Fails(plugin.Add, call(dualStack(), keys), cnierr.TryAgain); !strings.Contains(msg, want) {
			t.Error(msg)
		}
		if got := bed.IP("-br", "link"); strings.Contains(got, "br0") {
			t.Errorf("left behind: %s", got)
		}
	}
}

// What can never work is refused before anything is done.
func TestUplinkConfig(t *testing.T) {
	for keys, want := range map[string]string{
		`"vxlan":{}`: "id 0: not from 1 to 16777215",
		`"vxlan":{"id":16777216,"dev":"e","control":"evpn"}`:               "id 16777216",
		`"vxlan":{"id":1,"control":"evpn"}`:                                "either dev",
		`"vxlan":{"id":1,"dev":"e","local":"192.0.2.1","control":"evpn"}`:  "either dev",
		`"vxlan":{"id":1,"dev":"eth%d","control":"evpn"}`:                  "dev \"eth%d\"",
		`"vxlan":{"id":1,"local":"fe80::1","control":"evpn"}`:              "local \"fe80::1\"",
		`"vxlan":{"id":1,"local":"224.0.0.1","control":"evpn"}`:            "local \"224.0.0.1\"",
		`"vxlan":{"id":1,"dev":"e","port":65536,"control":"evpn"}`:         "port 65536",
		`"vxlan":{"id":1,"dev":"e"}`:                                       "must be cluster-local",
		`"vxlan":{"id":1,"dev":"e","control":"other"}`:                     "control \"other\"",
		`"vlan":7,"vxlan":{"id":1,"dev":"e","control":"evpn"}`:             "excludes vlan",
		`"portIsolation":true,"vxlan":{"id":1,"dev":"e","control":"evpn"}`: "excludes portIsolation",
		`"mtu":1451,"vxlan":{"id":1,"dev":"up0","control":"evpn"}`:         "mtu 1451",
	} {
		bed, _ := underlay(t)
		if msg := bed.Fails(plugin.Add, call(dualStack(), keys), cnierr.InvalidConfig); !strings.Contains(msg, want) {
			t.Errorf("%s: %s", keys, msg)
		}
		if got := bed.IP("link"); strings.Contains(got, "br0") || strings.Contains(got, "vxlan") {
			t.Errorf("left behind: %s", got)
		}
	}
}

// Sixteen containers at once on a network that the first of them has to make.
func TestUplinkBurst(t *testing.T) {
	bed, _ := underlay(t)
	var calls []nltest.Call
	for i := range 16 {
		c := call(&nltest.StubIPAM{Addresses: []string{fmt.Sprintf("10.1.0.%d/16 10.1.0.1", i+2)}}, overlay)
		c.ContainerID, c.Netns = fmt.Sprint("c", i), bed.PathOf(bed.NewSandbox())
		calls = append(calls, c)
	}
	burst(t, bed, plugin.Add, calls)
	if got := strings.Count(bed.IP("-o", "link", "show", "type", "vxlan"), "\n"); got != 1 {
		t.Errorf("%d uplinks", got)
	}
	burst(t, bed, plugin.Del, calls)
	if got := bed.IP("neigh", "show", "nud", "permanent"); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

// What the second container of an overlay asks the kernel to change.
func TestChangesOfAnOverlayAttachment(t *testing.T) {
	bed, _ := underlay(t)
	bed.Must(plugin.Add, call(dualStack(), overlay))
	c := call(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16 10.1.0.1", "fd00:1::3/64 fd00:1::1"}}, overlay)
	c.ContainerID, c.Netns = "c2", bed.PathOf(bed.NewSandbox())
	var text strings.Builder
	c.Gate = func(what string) error { text.WriteString(what + "\n"); return nil }
	text.WriteString("ADD\n")
	bed.Must(plugin.Add, c)
	text.WriteString("DEL\n")
	bed.Must(plugin.Del, c)
	golden(t, "changes-overlay", text.String())
}

// programmed is an overlay network that the cluster daemon programs.
func programmed(stub *nltest.StubIPAM, keys string) nltest.Call {
	c := call(stub, `"isDefaultGateway":true,"vxlan":{"id":100,"dev":"up0"}`+keys)
	c.Table["cluster-local"] = stub.Plugin()
	c.Conf = strings.Replace(c.Conf, `"type":"stub"`, `"type":"cluster-local"`, 1)
	return c
}

// Where the cluster daemon programs the uplink, it is not up before the IPAM plugin has
// had that done, and a container gets what is for it, and nothing that is for nobody.
func TestUplinkOfTheClusterDaemon(t *testing.T) {
	bed, _ := underlay(t)
	stub := dualStack()
	stub.Asked = func() {
		if got := bed.IP("-d", "link", "show", "vxlan100"); strings.Contains(got, ",UP") || !strings.Contains(got, "neigh_suppress on") {
			t.Errorf("while addresses are asked for: %s", got)
		}
		bed.IP("neigh", "add", "10.1.0.99", "lladdr", "0a:6e:0a:01:00:63", "dev", "br0", "nud", "permanent")
	}
	res := bed.Must(plugin.Add, programmed(stub, ""))
	host := res.Interfaces[atHost].Name
	if got := bed.IP("-d", "link", "show", host); !strings.Contains(got, "flood off") {
		t.Error(got)
	}
	if got := bed.Run("bridge", "fdb", "show", "dev", host); !strings.Contains(got, "0a:6e:0a:01:00:02 master br0 static") {
		t.Error(got)
	}
	if got := bed.IP("link", "show", "vxlan100"); !strings.Contains(got, ",UP") {
		t.Error(got)
	}
	if got := bed.IP("neigh", "show", "dev", "br0"); !strings.Contains(got, "10.1.0.99 lladdr 0a:6e:0a:01:00:63 PERMANENT") {
		t.Errorf("what the daemon has programmed was lost: %s", got)
	}
	bed.Reaches(bed.Sandbox, "10.1.0.1", "fd00:1::1")
	stub.Asked = nil
	_, other := func() (nltest.Call, *netns.NS) {
		ns := bed.NewSandbox()
		c := programmed(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16 10.1.0.1", "fd00:1::3/64 fd00:1::1"}}, "")
		c.ContainerID, c.Netns = "c2", bed.PathOf(ns)
		bed.Must(plugin.Add, c)
		return c, ns
	}()
	bed.Reaches(other, "10.1.0.2", "fd00:1::2")
	bed.Reaches(bed.Sandbox, "10.1.0.3", "fd00:1::3")
}

// An ADD for which the IPAM plugin has no answer leaves the uplink down, so that the
// next one asks again.
func TestUplinkStaysDown(t *testing.T) {
	bed, _ := underlay(t)
	stub := dualStack()
	stub.Err = cnierr.Newf(cnierr.TryAgain, "no daemon")
	bed.Fails(plugin.Add, programmed(stub, ""), cnierr.TryAgain)
	if got := bed.IP("link", "show", "vxlan100"); strings.Contains(got, ",UP") {
		t.Error(got)
	}
	stub.Err = nil
	bed.Must(plugin.Add, programmed(stub, ""))
	if got := bed.IP("link", "show", "vxlan100"); !strings.Contains(got, ",UP") {
		t.Error(got)
	}
}

// A chosen MAC address is refused where other hosts derive it.
func TestUplinkRefusesChosenMAC(t *testing.T) {
	bed, _ := underlay(t)
	c := programmed(dualStack(), `,"runtimeConfig":{"mac":"02:00:00:00:00:01"}`)
	if msg := bed.Fails(plugin.Add, c, cnierr.InvalidConfig); !strings.Contains(msg, "other hosts derive them from the IP addresses") {
		t.Error(msg)
	}
	bed.Must(plugin.Del, c)
}

// The same, where the cluster daemon programs the uplink.
func TestProgrammedAttachLeavesNoTrace(t *testing.T) {
	c := programmed(dualStack(), "")
	nltest.NoTrace(t, c, func(b *nltest.Bed) {
		joinUnderlay(b)
		first := programmed(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16 10.1.0.1", "fd00:1::3/64 fd00:1::1"}}, "")
		first.ContainerID, first.Netns = "other", b.PathOf(b.NewSandbox())
		b.Must(plugin.Add, first)
	})
}

// VXLAN packets of containers are dropped by rules that CHECK looks for and reconcile
// restores.
func TestUplinkGuard(t *testing.T) {
	bed, _ := underlay(t)
	c := call(dualStack(), overlay)
	a := bed.Do(plugin.Add, c)
	if a.Exit != 0 {
		t.Fatal(a.Stdout)
	}
	checked := with(c, `"prevResult":`+a.Stdout)
	golden(t, "ruleset-vxlan", bed.Run("nft", "list", "table", "inet", "cni_vxlan"))
	for _, damage := range []string{"flush ruleset", "flush chain inet cni_vxlan forward", "flush set inet cni_vxlan devs"} {
		bed.Must(plugin.Check, checked)
		bed.Run("nft", damage)
		if msg := bed.Fails(plugin.Check, checked, cnierr.CheckFailed); !strings.Contains(msg, "netcleat reconcile restores them") {
			t.Error(msg)
		}
		records, err := bed.Journal().Network("net")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if err := Reconcile(t.Context(), nil, bed.Journal(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	bed.Must(plugin.Check, checked)
}
