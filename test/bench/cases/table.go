package cases

import "github.com/netcleat/netcleat/test/bench/bed"

var (
	life     = []string{"ADD", "CHECK", "DEL"}
	addDel   = []string{"ADD", "DEL"}
	backends = []string{"iptables", "nftables"}
	chained  = []string{"portmap", "firewall"}
	levels   = []int{1, 4, 16, 64}

	reach       = bed.Proof{Link: true}
	masqueraded = bed.Proof{Link: true, Ping: []string{"198.51.100.2"}}
	dualMasq    = bed.Proof{Link: true, Ping: []string{"198.51.100.2", "2001:db8::2"}}
	lease       = bed.Proof{Lease: true}

	bridge4 = []string{"10.22.0.0/16"}
	bridge6 = []string{"10.22.0.0/16", "fd22::/64"}
)

// wholePool is one less than what a /16 holds without its network, gateway and broadcast addresses.
const wholePool = 1<<16 - 3 - 1

// Table is every case, in the order of the report.
var Table = []Case{
	{Name: "version", List: bridge, Verbs: []string{"VERSION"}},
	{Name: "status", List: bridge, Verbs: []string{"STATUS"}},
	{Name: "bridge", List: bridge, Verbs: life, Kind: "bridge", Nets: bridge4, Proof: reach},
	{Name: "bridge-masq", List: bridgeMasq, Verbs: life, Backends: backends, Kind: "bridge", Nets: bridge4, Proof: masqueraded},
	{Name: "nerdctl-0-ports", List: nerdctl, Verbs: life, Kind: "bridge", Nets: bridge4, Proof: masqueraded},
	{Name: "nerdctl-1-port", List: nerdctl, Verbs: life, Kind: "bridge", Nets: bridge4, Ports: 1, Proof: masqueraded},
	{Name: "nerdctl-10-ports", List: nerdctl, Verbs: life, Kind: "bridge", Nets: bridge4, Ports: 10, Proof: masqueraded},
	{
		Name: "nerdctl-1-port-second", List: nerdctl, Verbs: life, Kind: "bridge", Nets: bridge4, Ports: 1, Others: 1, Proof: masqueraded,
	},
	{Name: "podman", List: podman, Verbs: life, Kind: "bridge", Nets: bridge4, Proof: masqueraded},
	{Name: "containerd-dual", List: containerd, Verbs: life, Kind: "bridge", Nets: bridge6, Proof: dualMasq},
	{Name: "ptp", List: ptp, Verbs: life, Kind: "ptp", Nets: []string{"10.23.0.0/16"}, Proof: reach},
	{Name: "ptp-dual", List: ptpDual, Verbs: life, Kind: "ptp", Nets: []string{"10.23.0.0/16", "fd23::/64"}, Proof: reach},
	{Name: "macvlan", List: macvlan, Verbs: life, Kind: "macvlan", Nets: []string{"10.24.0.0/16"}, Proof: reach},
	{Name: "macvlan-dual", List: macvlanDual, Verbs: life, Kind: "macvlan", Nets: []string{"10.24.0.0/16", "fd24::/64"}, Proof: reach},
	{Name: "loopback", List: loopback, Verbs: life, IfName: "lo", Proof: reach},
	{Name: "portmap-nothing", List: portmapNothing, Verbs: life},
	{Name: "host-local-0", List: hostLocal, Verbs: life, Nets: bridge4, Proof: lease},
	{Name: "host-local-1k", List: hostLocal, Verbs: life, Nets: bridge4, Leases: 1000, Proof: lease},
	{Name: "host-local-10k", List: hostLocal, Verbs: life, Nets: bridge4, Leases: 10_000, Proof: lease},
	{Name: "host-local-60k", List: hostLocal, Verbs: life, Nets: bridge4, Leases: 60_000, Proof: lease},
	{Name: "host-local-one-free", List: hostLocal, Verbs: life, Nets: bridge4, Leases: wholePool, Proof: lease},
	{Name: "bridge-attached", List: bridge, Verbs: life, Kind: "bridge", Nets: bridge4, Attached: true, Proof: reach},
	{
		Name: "bridge-masq-attached", List: bridgeMasq, Verbs: life, Backends: backends, Kind: "bridge", Nets: bridge4,
		Attached: true, Proof: masqueraded,
	},
	{
		Name: "portmap-firewall", List: nerdctl, Timed: chained, Verbs: addDel, Nets: bridge4, Ports: 1, Others: 1, Proof: masqueraded,
	},
	{
		Name: "portmap-firewall-attached", List: nerdctl, Timed: chained, Verbs: addDel, Nets: bridge4, Ports: 1, Attached: true,
		Proof: masqueraded,
	},
	{Name: "bridge-burst", List: bridge, Verbs: addDel, Kind: "bridge", Nets: bridge4, Levels: levels, Proof: reach},
	{
		Name: "bridge-masq-burst", List: bridgeMasq, Verbs: addDel, Backends: backends, Kind: "bridge", Nets: bridge4,
		Levels: levels, Proof: masqueraded,
	},
	{
		Name: "connections", List: publish, Verbs: []string{"connect"}, Backends: backends, Nets: bridge4,
		Ports: PortsEach, Connect: true, Proof: reach,
	},
}
