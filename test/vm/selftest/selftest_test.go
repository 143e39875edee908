// Package selftest proves that the VM is what its tests rely on: that each feature exists in its kernel, and that its root
// behaves like a host's. Outside the VM it skips.
package selftest

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// proof is what shows that a feature exists: commands that must succeed in a new network namespace, and what they must
// print.
type proof struct {
	commands []string
	want     string
}

// parent makes the link that others are stacked on.
const parent = "ip link add up0 type veth peer name up0p"

var proofs = map[string][]proof{
	"root":  {{[]string{"id -u"}, "0"}},
	"veth":  {{[]string{parent, "ip -d link show up0"}, "veth"}},
	"dummy": {{[]string{"ip link add d0 type dummy", "ip -d link show d0"}, "dummy"}},
	"ifb":   {{[]string{"ip link add i0 type ifb", "ip -d link show i0"}, "ifb"}},
	"tap":   {{[]string{"ip tuntap add t0 mode tap multi_queue", "ip -d link show t0"}, "tun type tap"}},
	"vlan": {
		{[]string{parent, "ip link add v0 link up0 type vlan id 100", "ip -d link show v0"}, "vlan protocol 802.1Q id 100"},
		{[]string{parent, "ip link add v0 link up0 type vlan proto 802.1ad id 7", "ip -d link show v0"}, "vlan protocol 802.1ad id 7"},
	},
	"vrf":     {{[]string{parent, "ip link add vrf0 type vrf table 10", "ip link set up0 master vrf0", "ip -d link show up0"}, "vrf_slave table 10"}},
	"vxlan":   {{[]string{"ip link add x0 type vxlan id 42 dstport 4789 local 192.0.2.1", "ip -d link show x0"}, "vxlan id 42"}},
	"bonding": {{[]string{"ip link add b0 type bond mode active-backup", parent, "ip link set up0 master b0", "ip -d link show up0"}, "bond_slave"}},
	"macvlan": {
		{[]string{parent, "ip link add m0 link up0 type macvlan mode bridge", "ip -d link show m0"}, "macvlan mode bridge"},
		{[]string{parent, "ip link add m0 link up0 type macvlan mode private", "ip -d link show m0"}, "macvlan mode private"},
		{[]string{parent, "ip link add m0 link up0 type macvlan mode vepa", "ip -d link show m0"}, "macvlan mode vepa"},
		{[]string{parent, "ip link add m0 link up0 type macvlan mode passthru", "ip -d link show m0"}, "macvlan mode passthru"},
	},
	"ipvlan": ipvlanProofs(),
	"bridge": {{[]string{"ip link add br0 type bridge", parent, "ip link set up0 master br0", "ip -d link show up0"}, "bridge_slave"}},
	"vlan_filtering": {{[]string{
		"ip link add br0 type bridge vlan_filtering 1", parent, "ip link set up0 master br0",
		"bridge vlan add dev up0 vid 100-110", "bridge vlan show dev up0",
	}, "110"}},
	"br_netfilter": {{[]string{"sysctl net.bridge.bridge-nf-call-iptables"}, "= 1"}},
	"tbf":          {{[]string{parent, "tc qdisc add dev up0 root tbf rate 1mbit burst 32k latency 25ms", "tc qdisc show dev up0"}, "tbf"}},
	"netem":        {{[]string{parent, "tc qdisc add dev up0 root netem delay 10ms loss 1%", "tc qdisc show dev up0"}, "netem"}},
	"fq_codel":     {{[]string{parent, "tc qdisc add dev up0 root fq_codel", "tc qdisc show dev up0"}, "fq_codel"}},
	"htb": {{[]string{
		parent, "tc qdisc add dev up0 root handle 1: htb default 30", "tc class add dev up0 parent 1: classid 1:30 htb rate 1mbit",
		"tc filter add dev up0 parent 1: protocol ip u32 match ip dst 192.0.2.1/32 flowid 1:30", "tc filter show dev up0 parent 1:",
	}, "flowid 1:30"}},
	"ingress": {{[]string{
		parent, "ip link add i0 type ifb", "ip link set i0 up", "tc qdisc add dev up0 ingress",
		"tc filter add dev up0 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev i0",
		"tc filter show dev up0 parent ffff:",
	}, "Redirect to device i0"}},
	"nft": {{[]string{
		"nft add table inet t", "nft add chain inet t c '{ type nat hook postrouting priority 100 ; }'",
		"nft add rule inet t c ip saddr 192.0.2.0/24 masquerade", "nft list table inet t",
	}, "masquerade"}},
	"pci-nic": {
		{[]string{"cat /sys/bus/pci/devices/*/class"}, "0x020000"},
		{[]string{"modprobe virtio_net", "cat /sys/bus/pci/devices/*/virtio*/net/*/address || true", "modprobe -r virtio_net"}, ""},
	},
	"iptables-nft":    iptablesProofs("iptables-nft", "ip6tables-nft"),
	"iptables-legacy": iptablesProofs("iptables-legacy", "ip6tables-legacy"),
}

func ipvlanProofs() []proof {
	var list []proof
	for _, mode := range []string{"l2", "l3", "l3s"} {
		for _, flag := range []string{"bridge", "private", "vepa"} {
			add := "ip link add v0 link up0 type ipvlan mode " + mode + " " + flag
			list = append(list, proof{[]string{parent, add, "ip -d link show v0"}, "ipvlan  mode " + mode + " " + flag})
		}
	}
	return list
}

func iptablesProofs(v4, v6 string) []proof {
	return []proof{
		{[]string{v4 + " -t nat -A POSTROUTING -s 192.0.2.0/24 -m comment --comment x -j MASQUERADE", v4 + " -t nat -S"}, "MASQUERADE"},
		{[]string{v6 + " -t nat -A POSTROUTING -s 2001:db8::/64 -j MASQUERADE", v6 + " -t nat -S"}, "MASQUERADE"},
		{[]string{v4 + " -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 192.0.2.2:8080", v4 + " -t nat -S"}, "192.0.2.2:8080"},
		{[]string{v4 + " -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", v4 + " -S"}, "RELATED,ESTABLISHED"},
	}
}

func TestFeatures(t *testing.T) {
	for _, feature := range job.Features {
		t.Run(feature, func(t *testing.T) {
			needVM(t)
			for _, p := range proofs[feature] {
				p.check(t)
			}
		})
	}
}

func TestEveryFeatureHasAProof(t *testing.T) {
	if got := slices.Sorted(maps.Keys(proofs)); !slices.Equal(job.Features, got) {
		t.Errorf("want proofs of %q, got %q", job.Features, got)
	}
}

func TestRootIsLikeAHost(t *testing.T) {
	needVM(t)
	for name, command := range map[string]string{
		"no link but lo":           `test "$(ls /sys/class/net | grep -v bonding_masters)" = lo`,
		"lo is up":                 `ip -4 addr show dev lo | grep -q 127.0.0.1`,
		"memory on /run":           `findmnt -n -o FSTYPE /run | grep -qx tmpfs`,
		"memory on /tmp":           `findmnt -n -o FSTYPE /tmp | grep -qx tmpfs`,
		"nothing in /var/lib/cni":  `test -z "$(ls -A /var/lib/cni)"`,
		"cgroup v2":                `test -e /sys/fs/cgroup/cgroup.controllers`,
		"host's files can change":  `echo x >> /etc/hostname && grep -q x /etc/hostname && mv /etc/hostname /etc/h && rm /etc/h`,
		"repository can change":    `echo x > x && rm x`,
		"modules load on demand":   `ip link add w0 type wireguard && ip link del w0`,
		"orphans do not stay":      `p=$(sh -c 'true & echo $!'); while kill -0 $p; do :; done 2>/dev/null`,
		"namespaces have names":    `ip netns add named && ip netns exec named true && ip netns del named`,
		"user namespaces":          `unshare -rnm true`,
		"no table of old iptables": `ip netns add bare && test -z "$(ip netns exec bare cat /proc/net/ip_tables_names)" && ip netns del bare`,
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		})
	}
}

// The working directory is the package's, where its testdata is.
func TestTestdata(t *testing.T) {
	got, err := os.ReadFile(filepath.Join("testdata", "hello.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "hello\n"; want != string(got) {
		t.Errorf("want %q, got %q", want, got)
	}
}

// needVM skips outside the VM. Inside it nothing may skip, so that this cannot hide a feature that is missing.
func needVM(t *testing.T) {
	t.Helper()
	if os.Getenv(job.EnvRequire) == "" {
		t.Skip("outside the VM: go run ./test/vm ./test/vm/selftest")
	}
}

// check runs the commands in a network namespace of their own.
func (p proof) check(t *testing.T) {
	t.Helper()
	script := strings.Join(p.commands, "\n")
	out, err := exec.Command("unshare", "--net", "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	if !strings.Contains(string(out), p.want) {
		t.Errorf("%s: want %q, got\n%s", script, p.want, out)
	}
}
