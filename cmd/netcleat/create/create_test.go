package create

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/journal"
)

// somewhere is a host with a LAN, a VPN and networks of others.
func somewhere() host {
	return host{
		Links: map[string]string{"lo": "", "eth0": "", "eth0.7": "vlan", "tun0": "tun", "br-mine": "bridge", "cni0": "bridge", "veth1": "veth"},
		Alts:  map[string]string{"enp3s0": "eth0"},
		Addrs: []held{
			{netip.MustParsePrefix("192.0.2.0/24"), "address 192.0.2.9/24 of eth0", "eth0"},
			{netip.MustParsePrefix("2001:db8::/64"), "address 2001:db8::9/64 of eth0", "eth0"},
			{netip.MustParsePrefix("10.7.0.0/24"), "address 10.7.0.2/24 of eth0.7", "eth0.7"},
			{netip.MustParsePrefix("10.176.0.0/16"), "route 10.176.0.0/16 by tun0", "tun0"},
		},
		Local: []local{
			{netip.MustParseAddr("192.0.2.9"), "eth0"}, {netip.MustParseAddr("2001:db8::9"), "eth0"}, {netip.MustParseAddr("10.7.0.2"), "eth0.7"},
		},
		Networks: []network{
			{Name: "bridge", Bridge: "nerdctl0", Where: "/etc/cni/net.d/nerdctl-bridge.conflist", Subnets: []netip.Prefix{netip.MustParsePrefix("10.4.0.0/24")}},
			{Name: "podman", Bridge: "cni-podman0", Where: "/etc/cni/net.d/87-podman.conflist", Subnets: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")}},
			{Name: "first", Bridge: "br-first", Where: "f", Subnets: []netip.Prefix{netip.MustParsePrefix("10.177.0.0/24")}},
		},
		Global: [5]byte{1, 2, 3, 4, 5},
	}
}

// flags reads a command line as cobra does.
func flags(t *testing.T, line string) Flags {
	t.Helper()
	f := Flags{Driver: "bridge", IPv4: true, IPAM: hostLocal}
	words := strings.Fields(line)
	f.Name = words[0]
	texts := map[string]*string{"--driver": &f.Driver, "--parent": &f.Parent, "--ipam-driver": &f.IPAM}
	lists := map[string]*[]string{"--subnet": &f.Subnets, "--ip-range": &f.Ranges, "--gateway": &f.Gateways, "--aux-address": &f.Aux, "-o": &f.Options}
	for i := 1; i < len(words); i++ {
		switch w := words[i]; {
		case w == "--internal":
			f.Internal = true
		case w == "--dns":
			f.Names = With
		case w == "--no-dns":
			f.Names = Without
		case w == "--ipv6":
			f.IPv6 = true
		case w == "--ipv4=false":
			f.IPv4 = false
		case texts[w] != nil:
			i++
			*texts[w] = words[i]
		case lists[w] != nil:
			i++
			*lists[w] = append(*lists[w], words[i])
		default:
			t.Fatalf("%s: no such flag: %s", line, w)
		}
	}
	return f
}

// draw returns the list that the line asks for.
func draw(t *testing.T, line string, h host) (string, error) {
	t.Helper()
	r, err := flags(t, line).parse()
	if err != nil {
		return "", err
	}
	l, err := plan(r, h)
	if err != nil {
		return "", err
	}
	b, err := l.text()
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

// lines are commands that succeed. testdata/lists.txt has what each writes.
var lines = []string{
	"web",
	"dual --ipv6",
	"six --ipv4=false --ipv6",
	"named --subnet 10.5.0.0/24 --gateway 10.5.0.254",
	"ranged --subnet 10.5.0.0/16 --ip-range 10.5.4.0/24",
	"ranges --subnet 10.5.0.0/24 --subnet fd00:5::/64 --ip-range fd00:5::1:0/112 --gateway fd00:5::1 --ip-range 10.5.0.0/25",
	"aux --subnet 10.5.0.0/28 --aux-address router=10.5.0.5 --aux-address 10.5.0.14",
	"internal --internal",
	"nameless --no-dns",
	"nameless-internal --internal --no-dns",
	"Named.Net -o dnsname.domainName=Example.Org -o dnsname.nameservers=192.0.2.53,[2001:db8::53]:5353",
	"no..domain",
	"named-routed --driver ptp --dns",
	"no-gateway --no-dns -o isGateway=false",
	"reachable --internal -o isGateway=true",
	"apart -o com.docker.network.bridge.enable_icc=false",
	"internal-apart --internal -o com.docker.network.bridge.enable_icc=false",
	"open -o com.docker.network.bridge.enable_icc=true -o com.docker.network.bridge.enable_ip_masquerade=false",
	"a-name-that-no-bridge-can-have",
	"bridged -o com.docker.network.bridge.name=docker7 -o com.docker.network.driver.mtu=1400",
	"bound -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
	"unbound -o com.docker.network.bridge.host_binding_ipv4=0.0.0.0",
	"keys -o hairpinMode=false -o promiscMode=1 -o vlan=7 -o portmap.snat=false -o firewall.ingressPolicy=open -o ipMasqBackend=nftables",
	"layer2 --ipam-driver none",
	"routed --driver ptp --ipv6",
	"quiet --driver ptp -o com.docker.network.bridge.enable_icc=false",
	"lan --driver macvlan --parent eth0 --subnet 192.0.2.0/24 --gateway 192.0.2.1 --ip-range 192.0.2.64/26 --ipam-driver cluster-local",
	"lan --driver macvlan --parent eth0 --subnet 192.0.2.0/24 --gateway 192.0.2.1",
	"lan6 --driver macvlan --parent eth0 --subnet 192.0.2.0/24 --subnet 2001:db8::/64 -o macvlan_mode=private",
	"part --driver macvlan -o parent=eth0 --subnet 192.0.2.0/24 --ip-range 192.0.2.128/25",
	"tagged --driver macvlan --parent eth0.7 --subnet 10.7.0.0/24",
	"alternative --driver macvlan --parent enp3s0 --subnet 192.0.2.0/24",
	"served --driver macvlan --parent eth0 --ipam-driver dhcp",
	"shared --driver ipvlan --parent eth0 --subnet 192.0.2.0/24 -o ipvlan_flag=vepa -o mtu=1400",
	"layer3 --driver ipvlan --parent eth0 -o ipvlan_mode=l3 --ipv6",
	"vlan --driver vlan --parent eth0 -o vlanId=5",
	"seven --driver vlan --parent eth0 -o vlanId=7 --subnet 10.7.0.0/24 --internal",
	"nowhere --driver dummy --subnet 10.5.0.0/24 --aux-address 10.5.0.2",
}

func TestLists(t *testing.T) {
	var got strings.Builder
	for _, line := range lines {
		text, err := draw(t, line, somewhere())
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		fmt.Fprintf(&got, "# %s\n%s\n", line, text)
	}
	file := filepath.Join("testdata", "lists.txt")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("-want +got (UPDATE=1 rewrites it)\n%s", diff)
	}
}

// Runtimes that know cniVersions speak 1.1.0, with its GC and STATUS; the others
// read 1.0.0 (podman 4, nerdctl 1, containerd 1.6).
func TestVersions(t *testing.T) {
	text, err := draw(t, "web", somewhere())
	if err != nil {
		t.Fatal(err)
	}
	l, err := libcni.NetworkConfFromBytes([]byte(text))
	if err != nil || l.CNIVersion != "1.1.0" {
		t.Errorf("libcni reads version %q %v, want 1.1.0", l.CNIVersion, err)
	}
	var old struct{ CNIVersion string }
	if err := json.Unmarshal([]byte(text), &old); err != nil || old.CNIVersion != "1.0.0" {
		t.Errorf("cniVersion %q %v, want 1.0.0", old.CNIVersion, err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"-web", `network "-web": a name begins with a letter or digit`},
		{"we/b", `network "we/b": a name begins`},
		{strings.Repeat("x", 201), "longer than 200 bytes"},
		{"host", `network "host": runtimes take that for a mode`},
		{"web --driver overlay", `driver "overlay": want one of bridge, macvlan, ipvlan, ptp, vlan, dummy`},
		{"podman", `network "podman": exists already: /etc/cni/net.d/87-podman.conflist`},
		{"web --subnet 10.5.0.0", `subnet "10.5.0.0": want an address and a prefix length`},
		{"web --subnet 10.5.0.1/24", "subnet 10.5.0.1/24: has host bits set: it would be 10.5.0.0/24"},
		{"web --subnet 10.5.0.0/31", "subnet 10.5.0.0/31: too small"},
		{"web --subnet fd00::/127", "subnet fd00::/127: too small"},
		{"web --subnet 127.5.0.0/24", "has addresses of 127.0.0.0/8"},
		{"web --subnet 64.0.0.0/2", "has addresses of 127.0.0.0/8"},
		{"web --subnet 0.0.0.0/0", "has addresses of 0.0.0.0/8"},
		{"web --subnet 239.0.0.0/24", "has addresses of 224.0.0.0/4"},
		{"web --subnet fe80::/64", "has addresses of fe80::/10"},
		{"web --subnet ::ffff:10.5.0.0/120", "has addresses of ::/16"},
		{"web --subnet 10.5.0.0/24 --subnet 10.5.0.128/25", "subnet 10.5.0.128/25: overlaps with subnet 10.5.0.0/24"},
		{"web --subnet 10.88.7.0/24", "subnet 10.88.7.0/24: overlaps with subnet 10.88.0.0/16 of network podman (/etc/cni/net.d/87-podman.conflist)"},
		{"web --subnet 10.0.0.0/8", "overlaps with subnet 10.4.0.0/24 of network bridge"},
		{"web --subnet 192.0.2.0/25", "overlaps with address 192.0.2.9/24 of eth0"},
		{"web --subnet 10.176.3.0/24", "overlaps with route 10.176.0.0/16 by tun0"},
		{"web --subnet 2001:db8::/80", "overlaps with address 2001:db8::9/64 of eth0"},
		{"web --subnet 10.5.0.0/24 --ipv4=false", "subnet 10.5.0.0/24: IPv4 is turned off"},
		{"web --ipv4=false", "neither IPv4 nor IPv6"},
		{"web --ip-range 10.5.0.0/25", "ip-range 10.5.0.0/25: not within a --subnet"},
		{"web --subnet 10.5.0.0/24 --ip-range 10.5.0.0/23", "ip-range 10.5.0.0/23: not within a --subnet"},
		{"web --subnet 10.5.0.0/24 --ip-range 10.5.0.9/25", "ip-range 10.5.0.9/25: has host bits set"},
		{"web --subnet 10.5.0.0/24 --ip-range 10.5.0.0/25 --ip-range 10.5.0.128/25", "subnet 10.5.0.0/24 has 10.5.0.0/25 already"},
		{"web --subnet 10.5.0.0/24 --ip-range some", `ip-range "some": want`},
		{"web --subnet 10.5.0.0/24 --gateway 10.6.0.1", "gateway 10.6.0.1: in no --subnet"},
		{"web --gateway 10.176.0.1", "gateway 10.176.0.1: in no --subnet"},
		{"web --subnet 10.5.0.0/24 --gateway 10.5.0.0", "gateway 10.5.0.0: the address of subnet 10.5.0.0/24 itself"},
		{"web --subnet 10.5.0.0/24 --gateway 10.5.0.255", "gateway 10.5.0.255: the broadcast address"},
		{"web --subnet 10.5.0.0/24 --gateway 10.5.0.1 --gateway 10.5.0.2", "subnet 10.5.0.0/24 has 10.5.0.1 already"},
		{"web --subnet 10.5.0.0/24 --gateway ten", `gateway "ten": want an IP address`},
		{"web --subnet 10.5.0.0/24 --aux-address a=10.6.0.1", "aux-address 10.6.0.1: in no --subnet"},
		{"web --subnet 10.5.0.0/24 --aux-address a=b", `aux-address "a=b"`},
		{"web --subnet 10.5.0.0/30 --aux-address 10.5.0.2", "subnet 10.5.0.0/30: no address is left for containers"},
		{"web --subnet 10.5.0.0/24 --ip-range 10.5.0.1/32", "no address is left for containers"},
		{"web --ipam-driver whereabouts", `ipam-driver "whereabouts": want host-local, cluster-local, dhcp or none`},
		{"web --ipam-driver dhcp", "ipam-driver dhcp: driver bridge works without it: want macvlan, vlan"},
		{"web --driver ptp --ipam-driver none", "ipam-driver none: driver ptp works without it"},
		{"web --driver macvlan --parent eth0 --ipam-driver cluster-local", "ipam-driver cluster-local: give each --subnet: it must be the same on all hosts"},
		{"web --driver ptp --ipam-driver cluster-local", "ipam-driver cluster-local: driver ptp works without it"},
		{"web --driver macvlan --parent eth0 --ipam-driver dhcp --subnet 10.5.0.0/24", "ipam-driver dhcp: takes no --subnet"},
		{"web --driver macvlan --parent eth0 --ipam-driver dhcp --internal", "internal: the DHCP server says"},
		{"web --driver macvlan --parent eth0 --dns", "dns: the host has no address on a network of driver macvlan at which names could be answered: use bridge or ptp"},
		{"web --driver dummy --dns", "dns: the host has no address on a network of driver dummy"},
		{"web --ipam-driver none --dns", "dns: containers without addresses of the network have no names"},
		{"web -o isGateway=false", "names are not answered: add --no-dns"},
		{"web --no-dns -o dnsname.domainName=x", "option dnsname.domainName: a network of driver bridge has no plugin dnsname with --no-dns"},
		{"web --driver ptp -o dnsname.domainName=x", "has no plugin dnsname: add --dns"},
		{"web --driver ptp --internal -o com.docker.network.bridge.enable_icc=false", "internal: driver ptp reaches even its own network"},
		{"web --driver ptp --internal", "internal: driver ptp reaches even its own network"},
		{"web --internal -o ipMasq=true", "internal: contradicts ipMasq"},
		{"web --internal -o portmap.snat=false", "option portmap.snat: a network of driver bridge has no plugin portmap when --internal"},
		{"web --internal -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "publishes no ports when --internal"},
		{"mine", `bridge "br-mine": the host has an interface of that name already: -o com.docker.network.bridge.name=NAME names another`},
		{"web -o bridge=enp3s0", `bridge "enp3s0": the host has an interface of that name already`},
		{"web -o bridge=eth0", `bridge "eth0": the host has an interface of that name already`},
		{"web -o com.docker.network.bridge.name=nerdctl0", `bridge "nerdctl0": is that of network bridge (/etc/cni/net.d/nerdctl-bridge.conflist)`},
		{"web --parent eth0", `parent "eth0": driver bridge has none`},
		{"web --driver macvlan", "parent is missing: driver macvlan needs one: --parent IF (there are: br-mine, cni0, eth0, eth0.7, tun0)"},
		{"web --driver ipvlan --parent eth9", `parent "eth9": no such interface`},
		{"web --driver macvlan --parent eth0.50", "(ip link add link eth0 name eth0.50 type vlan id 50 makes it)"},
		{"web --driver macvlan --parent eth0 -o parent=tun0", "option parent=tun0: --parent says eth0"},
		{"web --driver macvlan --parent eth0 --subnet 10.88.0.0/24", "overlaps with subnet 10.88.0.0/16 of network podman"},
		{"web --driver macvlan --parent eth0 --subnet 192.0.2.0/24 --gateway 192.0.2.9", "gateway 192.0.2.9: is the host's own on eth0"},
		{"web --driver vlan --parent eth0", "driver vlan: -o vlanId=NUMBER is missing"},
		{"web --driver ipvlan --parent eth0 -o ipvlan_mode=l3 --subnet 10.5.0.0/24 --gateway 10.5.0.1", "gateway: ipvlan of layer 3 has none"},
		{"web --driver dummy --subnet 10.5.0.0/24 --gateway 10.5.0.1", "gateway: driver dummy leads nowhere"},
		{"web -o mtu", `option "mtu": want KEY=VALUE`},
		{"web -o mtu=big", `option mtu: "big": want a number`},
		{"web -o hairpinMode=perhaps", `option hairpinMode: "perhaps": want true or false`},
		{"web -o speed=9", "option speed: driver bridge has: acceptRA, bridge, com.docker.network.bridge.enable_icc, "},
		{"web -o macvlan_mode=vepa", "option macvlan_mode: driver bridge has: "},
		{"web --driver macvlan --parent eth0 -o ipvlan_flag=vepa", "option ipvlan_flag: driver macvlan has: acceptRA, bcqueuelen, com.docker.network.driver.mtu, enabledad, macvlan_mode, mode, mtu, parent"},
		{"web -o com.docker.network.bridge.enable_icc=no", `"no": want true or false`},
		{"web --driver dummy -o com.docker.network.bridge.enable_icc=false", "only drivers bridge and ptp"},
		{"web -o com.docker.network.bridge.host_binding_ipv4=::1", `"::1": want an IPv4 address`},
		{"web -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1 -o portmap.backend=iptables", "is a condition of portmap's nftables backend"},
		{"web --driver macvlan --parent eth0 -o firewall.backend=nftables", "has no plugin firewall"},
	} {
		_, err := draw(t, c.line, somewhere())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\nwant an error with %q\ngot %v", c.line, c.want, err)
		}
	}
}

func TestNoSubnetIsFree(t *testing.T) {
	h := somewhere()
	h.Addrs = append(h.Addrs, held{netip.MustParsePrefix("10.0.0.0/8"), "route 10.0.0.0/8 by tun0", "tun0"})
	text, err := draw(t, "web", h)
	if err != nil || !strings.Contains(text, `"172.24.0.0/24"`) {
		t.Errorf("want 172.24.0.0/24, got %v %s", err, text)
	}
	h.Addrs = append(h.Addrs, held{Prefix: netip.MustParsePrefix("128.0.0.0/1"), By: "route 128.0.0.0/1 by tun0"})
	if _, err = draw(t, "web", h); err == nil || !strings.Contains(err.Error(), "no free subnet") {
		t.Errorf("want no free subnet, got %v", err)
	}
}

// What stands for everything is no overlap: no VPN keeps networks from being made.
func TestDefaultRoutesHoldNothing(t *testing.T) {
	var h host
	for _, p := range []string{"0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1", "fe80::/64", "127.0.0.0/8", "ff00::/8", "10.1.0.0/16"} {
		h.hold(netip.MustParsePrefix(p), "tun0", p)
	}
	if len(h.Addrs) != 1 || h.Addrs[0].By != "10.1.0.0/16" {
		t.Errorf("want 10.1.0.0/16 alone, got %v", h.Addrs)
	}
}

func TestSubnetsOf(t *testing.T) {
	for conf, want := range map[string]string{
		`{"ipam":{"type":"host-local","subnet":"10.1.0.0/16"}}`:                                               "[10.1.0.0/16]",
		`{"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/16"}],[{"subnet":"fd00::/64"}]]}}`:       "[10.1.0.0/16 fd00::/64]",
		`{"ipam":{"type":"static","addresses":[{"address":"10.1.2.3/24","gateway":"10.1.2.1"}]}}`:             "[10.1.2.0/24]",
		`{"ipam":{"type":"whereabouts","range":"10.1.2.5-10.1.2.9/24","ipRanges":[{"range":"fd00:1::/64"}]}}`: "[10.1.2.0/24 fd00:1::/64]",
		`{"ipam":{"type":"x","subnet":5,"ranges":"none","range":{}}}`:                                         "[]",
		`{"ipam":{"type":"dhcp"}}`: "[]",
		`{"type":"portmap"}`:       "[]",
		`5`:                        "[]",
	} {
		if got := fmt.Sprint(Subnets([]byte(conf))); got != want {
			t.Errorf("%s: want %s, got %s", conf, want, got)
		}
	}
}

// Whatever the flags are: the list is one that the plugins read, or it is refused.
func TestEveryListIsRead(t *testing.T) {
	for _, line := range lines {
		readable(t, line)
	}
	r := rand.New(rand.NewPCG(1, 2))
	made := 0
	for range 200 {
		if readable(t, randomLine(r)) {
			made++
		}
	}
	if made < 50 {
		t.Errorf("of 200 only %d were made", made)
	}
}

// readable draws the list, and fails where the plugins refuse it.
func readable(t *testing.T, line string) bool {
	t.Helper()
	text, err := draw(t, line, somewhere())
	if err != nil {
		return false
	}
	if err := check(strings.Fields(line)[0], []byte(text)); err != nil {
		t.Errorf("%s: %v\n%s", line, err, text)
	}
	return true
}

func randomLine(r *rand.Rand) string {
	line := []string{"random"}
	pick := func(words ...string) { line = append(line, words[r.IntN(len(words))]) }
	driver := Drivers[r.IntN(len(Drivers))]
	line = append(line, "--driver", driver)
	if slices.Contains([]string{"macvlan", "ipvlan", "vlan"}, driver) {
		pick("--parent eth0", "--parent eth0.7", "-o parent=eth0")
	}
	n := r.IntN(200)
	pick("", "", fmt.Sprintf("--subnet 10.6.%d.0/24", n), fmt.Sprintf("--subnet 10.6.%d.0/24 --ip-range 10.6.%d.%d/28", n, n, 16*r.IntN(16)),
		fmt.Sprintf("--subnet 10.6.0.0/16 --gateway 10.6.%d.%d", n, 1+r.IntN(200)), "--ipam-driver none", "--ipam-driver dhcp",
		fmt.Sprintf("--subnet 10.6.%d.0/%d --aux-address a=10.6.%d.%d", n, 24+r.IntN(7), n, 1+r.IntN(3)), "--subnet 192.0.2.0/24 --gateway 192.0.2.1")
	pick("", "--ipv6", fmt.Sprintf("--subnet fd00:%x::/%d", n, 64+r.IntN(62)))
	pick("", "", "", "--internal")
	pick("", "", "--dns", "--no-dns")
	options := map[string][]string{
		"bridge": {
			"-o mtu=1400", "-o vlan=9", "-o macspoofchk=true", "-o com.docker.network.bridge.enable_icc=false", "-o ipMasq=false",
			"-o portmap.backend=iptables", "-o com.docker.network.bridge.host_binding_ipv4=192.0.2.9", "-o firewall.backend=firewalld",
		},
		"macvlan": {"-o macvlan_mode=passthru", "-o bcqueuelen=1000", "-o mtu=1300"},
		"ipvlan":  {"-o ipvlan_mode=l3s", "-o ipvlan_mode=l2", "-o ipvlan_flag=private"},
		"vlan":    {"-o vlanId=0", "-o vlanId=4094"},
		"ptp":     {"-o ipMasqBackend=iptables", "-o enabledad=true", "-o com.docker.network.bridge.enable_icc=false"},
		"dummy":   {""},
	}[driver]
	pick(append(options, "")...)
	pick(options...)
	return strings.Join(line, " ")
}

// here are options for a host without records.
func here(t *testing.T) (Options, *[]string) {
	t.Helper()
	dir, warned := t.TempDir(), new([]string)
	return Options{
		Places:  show.Places{Journal: journal.Dir(filepath.Join(dir, "run")), Cache: filepath.Join(dir, "cache"), NetConf: filepath.Join(dir, "net.d")},
		Command: "/usr/bin/netcleat",
		Warn:    func(format string, args ...any) { *warned = append(*warned, fmt.Sprintf(format, args...)) },
	}, warned
}

// On disk: what others have is seen, nothing is overwritten, and a refusal leaves
// nothing.
func TestFiles(t *testing.T) {
	o, warned := here(t)
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(o.NetConf+"/zz.conflist", `{"cniVersion":"1.0.0","name":"zz","plugins":[{"type":"bridge","bridge":"br-a","ipam":{"type":"host-local","ranges":[[{"subnet":"198.51.100.0/24"}]]}}]}`)
	write(o.NetConf+"/ns/nerdctl-b.conflist", `{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"bridge","bridge":"br-b","ipam":{"type":"host-local","ranges":[[{"subnet":"203.0.113.0/24"}]]}}]}`)
	write(o.NetConf+"/broken.conflist", `{`)

	path, err := Run(t.Context(), o, flags(t, "web"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("want mode 644, got %v %v", st.Mode(), err)
	}
	if made, err := Made(path); err != nil || !made {
		t.Errorf("Made: want true, got %v %v", made, err)
	}
	if made, err := Made(o.NetConf + "/zz.conflist"); err != nil || made {
		t.Errorf("Made of another's: want false, got %v %v", made, err)
	}
	if all := strings.Join(*warned, "\n"); !strings.Contains(all, "broken.conflist") {
		t.Errorf("want a warning of broken.conflist, got %s", all)
	}
	before := listing(t, o.NetConf)
	for line, want := range map[string]string{
		"web":                         `network "web": exists already: ` + path,
		"b":                           `network "b": exists already: ` + o.NetConf + "/ns/nerdctl-b.conflist",
		"x --subnet 203.0.113.128/25": "overlaps with subnet 203.0.113.0/24 of network b",
		"x --subnet 198.51.100.0/24":  "overlaps with subnet 198.51.100.0/24 of network zz",
		"a":                           `bridge "br-a": is that of network zz`,
		"x -o mtu=-1":                 "bridge: mtu -1: negative",
		"x -o dnsname.nameservers=ns.example.org":       "dnsname: nameservers: ",
		"x -o promiscMode=true":                         "bridge: cannot set hairpin mode and promiscuous mode",
		"x -o com.docker.network.bridge.name=has:colon": "the plugins refuse it",
	} {
		if _, err := Run(t.Context(), o, flags(t, line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want an error with %q, got %v", line, want, err)
		}
	}
	if diff := cmp.Diff(before, listing(t, o.NetConf)); diff != "" {
		t.Errorf("refusals left something: -want +got\n%s", diff)
	}
}

func listing(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func TestFirstFileIsTold(t *testing.T) {
	o, warned := here(t)
	if err := os.MkdirAll(o.NetConf, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.NetConf+"/pods.conflist", []byte(`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"br-pods"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), o, flags(t, "web")); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), o, flags(t, "another")); err != nil {
		t.Fatal(err)
	}
	want := []string{"netcleat-web.conflist comes before pods.conflist: containerd gives the first file's network to its pods"}
	if diff := cmp.Diff(want, *warned); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// Of several that are made at the same time each gets a subnet of its own.
func TestManyAtOnce(t *testing.T) {
	o, _ := here(t)
	const n = 8
	errs := make(chan error, n)
	for i := range n {
		go func() {
			_, err := Run(context.WithoutCancel(t.Context()), o, Flags{Name: fmt.Sprintf("net%d", i), Driver: "bridge", IPv4: true, IPAM: hostLocal})
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	all, err := show.Networks(t.Context(), o.Places)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, net := range all {
		seen[net.IPAM.Pools[0].Subnets[0]] = true
	}
	if len(seen) != n {
		t.Errorf("want %d subnets, got %v", n, seen)
	}
}
