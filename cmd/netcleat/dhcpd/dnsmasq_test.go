package dhcpd

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/bridge"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
	"github.com/netcleat/netcleat/plugins/dummy"
	hostdevice "github.com/netcleat/netcleat/plugins/host-device"
	"github.com/netcleat/netcleat/plugins/macvlan"
	"github.com/netcleat/netcleat/plugins/ptp"
	"github.com/netcleat/netcleat/plugins/tap"
)

// short makes dnsmasq's leases renew after 2 s and rebind after 4 s.
var short = []string{"--dhcp-option-force=58,2", "--dhcp-option-force=59,4"}

func TestLeaseLifecycle(t *testing.T) {
	l := newLAN(t)
	server := l.dnsmasq("--dhcp-option=6,10.77.0.53")
	l.daemon()
	c := l.call(`"priority":77,"provide":[{"option":"host-name","fromArg":"K8S_POD_NAME"},{"option":"60","value":"cleat"}],"request":[{"option":"6"}]`)
	c.Args = "K8S_POD_NAME=web-0"

	res := l.Must(plugin.Add, c)
	if len(res.IPs) != 1 || !strings.HasPrefix(res.IPs[0].Address.String(), "10.77.") || res.IPs[0].Gateway.String() != "10.77.0.1" {
		t.Fatalf("result: %+v", res.IPs)
	}
	if r := res.Routes; len(r) != 1 || r[0].Dst.String() != "0.0.0.0/0" || r[0].GW.String() != "10.77.0.1" || r[0].Priority != 77 {
		t.Errorf("routes: %+v", r)
	}
	if diff := cmp.Diff([]string{"10.77.0.53"}, res.DNS.Nameservers); diff != "" {
		t.Errorf("DNS that was asked for (-want +got):\n%s", diff)
	}
	for _, said := range []string{"client provides name: web-0", "vendor class: cleat"} {
		server.waitFor(said, 0, time.Second)
	}
	if again := l.Must(plugin.Add, c); !cmp.Equal(res.IPs, again.IPs) {
		t.Errorf("the second ADD got %v, the first %v", again.IPs, res.IPs)
	}
	l.Must(plugin.Check, c)
	l.Must(plugin.Status, c)

	l.Must(plugin.Del, c)
	server.waitFor("DHCPRELEASE(br0) "+res.IPs[0].Address.IP.String(), 0, time.Second)
	if n := l.leaseFiles(); n != 0 {
		t.Errorf("%d lease files left", n)
	}
	l.Must(plugin.Del, c)
	c.Netns = nltest.NoNetns
	l.Must(plugin.Del, c)
	c.Netns = ""
	l.Fails(plugin.Check, c, cnierr.CheckFailed)
}

func TestRenewal(t *testing.T) {
	l := newLAN(t)
	server := l.dnsmasq(short...)
	l.daemon("-timeout", "500ms")
	res := l.Must(plugin.Add, l.call(`"provide":[{"option":"host-name","value":"web"}]`))
	l.addTo(res)
	ip := res.IPs[0].Address.IP.String()
	server.waitFor("DHCPACK", 0, time.Second)
	// What tuning does in a list after this plugin: the lease is the container's.
	l.SandboxIP("link", "set", "eth0", "address", "02:11:22:33:44:55")
	from := len(server.output())
	server.waitFor("DHCPREQUEST(br0) "+ip, from, 4*time.Second)
	server.waitFor("client provides name: web", from, time.Second)
	server.waitFor("DHCPACK(br0) "+ip+" 02:11:22:33:44:55", from, time.Second)

	// The server goes: renewing fails, rebinding finds it when it is back.
	server.kill(syscall.SIGTERM)
	time.Sleep(3 * time.Second)
	l.Must(plugin.Check, l.call(""))
	back := l.dnsmasq(short...)
	back.waitFor("DHCPACK(br0) "+ip, 0, 10*time.Second)
	if diff := cmp.Diff([]string{ip}, l.addresses()); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestDaemonKilled(t *testing.T) {
	l := newLAN(t)
	server := l.dnsmasq(short...)
	d := l.daemon()
	res := l.Must(plugin.Add, l.call(""))
	l.addTo(res)
	ip := res.IPs[0].Address.IP.String()
	d.kill(syscall.SIGKILL)
	l.Fails(plugin.Status, l.call(""), cnierr.NotAvailable)
	l.Fails(plugin.Check, l.call(""), cnierr.TryAgain)

	l.daemon() // past the stale socket
	from := len(server.output())
	l.Must(plugin.Check, l.call(""))
	server.waitFor("DHCPREQUEST(br0) "+ip, from, 8*time.Second)
	server.waitFor("DHCPACK(br0) "+ip, from, time.Second)
	if strings.Contains(server.output()[from:], "DISCOVER") {
		t.Error("the daemon looked for a new lease")
	}
	if diff := cmp.Diff([]string{ip}, l.addresses()); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	l.Must(plugin.Del, l.call(""))
	server.waitFor("DHCPRELEASE(br0) "+ip, from, time.Second)
}

func TestDelWhileDaemonDown(t *testing.T) {
	l := newLAN(t)
	server := l.dnsmasq()
	d := l.daemon()
	ip := l.Must(plugin.Add, l.call("")).IPs[0].Address.IP.String()
	d.kill(syscall.SIGTERM)
	l.Must(plugin.Del, l.call(""))
	l.Must(plugin.Del, l.call(""))
	l.SandboxIP("link", "del", "eth0")
	if strings.Contains(server.output(), "RELEASE") {
		t.Fatal("released already")
	}
	l.daemon()
	server.waitFor("DHCPRELEASE(br0) "+ip, 0, 5*time.Second)
	l.eventually(time.Second, "lease file gone", func() bool { return l.leaseFiles() == 0 })
}

func TestDeadSandboxIsReleased(t *testing.T) {
	l := newLAN(t)
	server := l.dnsmasq()
	d := l.daemon()
	ip := l.Must(plugin.Add, l.call("")).IPs[0].Address.IP.String()
	d.kill(syscall.SIGKILL)
	drop(t, l.Sandbox)
	l.daemon() // looks at once; later it looks every half minute
	server.waitFor("DHCPRELEASE(br0) "+ip, 0, 5*time.Second)
	l.Fails(plugin.Check, l.call(""), cnierr.CheckFailed)
}

func TestGC(t *testing.T) {
	l := newLAN(t)
	server := l.dnsmasq()
	d := l.daemon()
	c := l.call("")
	keep := c
	keep.ContainerID = "keep"
	other := c
	other.ContainerID, other.Conf = "other", strings.Replace(c.Conf, `"lan"`, `"wan"`, 1)
	stray := l.Must(plugin.Add, c).IPs[0].Address.IP.String()
	l.Must(plugin.Add, keep)
	l.Must(plugin.Add, other)

	gc := c
	gc.Conf = strings.Replace(c.Conf, `"name"`, `"cni.dev/valid-attachments":[{"containerID":"keep","ifname":"eth0"}],"name"`, 1)
	l.Must(plugin.GC, gc)
	server.waitFor("DHCPRELEASE(br0) "+stray, 0, time.Second)
	l.Must(plugin.Check, keep)
	l.Must(plugin.Check, other)
	l.Fails(plugin.Check, c, cnierr.CheckFailed)

	// Without a daemon the leases are marked.
	d.kill(syscall.SIGKILL)
	gc.Conf = strings.Replace(c.Conf, `"name"`, `"cni.dev/valid-attachments":null,"name"`, 1)
	l.Must(plugin.GC, gc)
	l.daemon()
	l.eventually(5*time.Second, "only the other network's lease is left", func() bool { return l.leaseFiles() == 1 })
	l.Must(plugin.Check, other)
}

// The plugins over whose interfaces a server can be reached attach with a lease, and
// the container keeps the hardware address that the lease was given to.
func TestMainPlugins(t *testing.T) {
	for name, keys := range map[string]string{
		"bridge":      `"bridge":"br0"`,
		"macvlan":     `"master":"dev0"`,
		"host-device": `"device":"dev0"`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t)
			l.IPBatch("link del veth0\nlink add p0 up master br0 type veth peer name dev0\nlink set dev0 up")
			server := l.dnsmasq()
			l.daemon()
			c := l.call("")
			c.Plugin = name
			c.Table = plugin.Table{"dhcp": dhcp.Plugin, "bridge": bridge.Plugin, "macvlan": macvlan.Plugin, "host-device": hostdevice.Plugin}
			c.Conf = strings.Replace(c.Conf, `"type":"bridge"`, `"type":"`+name+`",`+keys, 1)
			a := l.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			var res current.Result
			if err := json.Unmarshal([]byte(a.Stdout), &res); err != nil {
				t.Fatal(err)
			}
			ip, mac := res.IPs[0].Address.IP.String(), res.Interfaces[len(res.Interfaces)-1].Mac
			server.waitFor("DHCPACK(br0) "+ip+" "+mac, 0, time.Second)
			if got := l.SandboxIP("link", "show", "eth0"); !strings.Contains(got, mac) {
				t.Errorf("the lease is for %s, the container has %s", mac, got)
			}
			l.Reaches(l.Sandbox, "10.77.0.1")
			l.Must(plugin.Check, c.With(`"prevResult":`+a.Stdout))
			l.Must(plugin.Del, c)
			server.waitFor("DHCPRELEASE(br0) "+ip, 0, time.Second)
		})
	}
}

// Where no server can be at the other end, ADD says so at once, with no daemon
// asked.
func TestRefused(t *testing.T) {
	l := newLAN(t)
	table := plugin.Table{"dhcp": dhcp.Plugin, "ptp": ptp.Plugin, "dummy": dummy.Plugin, "tap": tap.Plugin}
	for _, name := range []string{"ptp", "dummy", "tap"} {
		c := l.call("")
		c.Plugin, c.Table, c.IfName = name, table, "net1"
		c.Conf = strings.Replace(c.Conf, `"type":"bridge"`, `"type":"`+name+`"`, 1)
		l.Fails(plugin.Add, c, cnierr.InvalidConfig)
		l.Must(plugin.Del, c)
	}
}

// The daemon brings the link up: IPv6, which a lease has no address of, is off
// before, unless the configuration leaves it to the kernel.
func TestIPv6OffBeforeLease(t *testing.T) {
	for name, keys := range map[string]string{
		"bridge":      `"bridge":"br0"`,
		"macvlan":     `"master":"dev0"`,
		"host-device": `"device":"dev0"`,
	} {
		for acceptRA, want := range map[string]string{"false": "1", "true": "0"} {
			t.Run(name+", acceptRA "+acceptRA, func(t *testing.T) {
				l := newLAN(t)
				l.IPBatch("link del veth0\nlink add p0 up master br0 type veth peer name dev0\nlink set dev0 up")
				stub := nltest.StubIPAM{Addresses: []string{"10.77.0.2/16"}}
				got := ""
				stub.Asked = func() {
					l.In(l.Sandbox, func() { got = strings.TrimSpace(l.Run("cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6")) })
				}
				c := l.call("")
				c.Plugin = name
				c.Table = plugin.Table{"dhcp": stub.Plugin(), "bridge": bridge.Plugin, "macvlan": macvlan.Plugin, "host-device": hostdevice.Plugin}
				c.Conf = strings.Replace(c.Conf, `"type":"bridge"`, `"type":"`+name+`","acceptRA":`+acceptRA+`,`+keys, 1)
				l.Must(plugin.Add, c)
				if got != want {
					t.Errorf("disable_ipv6 is %q when the lease is asked for, want %s", got, want)
				}
			})
		}
	}
}
