package doctor

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// kernel looks for the features that the plugins can do without, at a price.
func (e *exam) kernel() {
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		e.add(Fine, "", "kernel %s", unix.ByteSliceToString(u.Release[:]))
	}
	c, err := nft.Dial(nil, nil)
	if err != nil {
		e.add(Problem, "load nf_tables, or install iptables", "netfilter: %v", err)
		return
	}
	defer func() { _ = c.Close() }() // was only read from
	switch tool := (iptables.Tool{}); {
	case c.Available():
		e.add(Fine, "", "kernel has nf_tables")
	case tool.Installed():
		e.add(Warning, "load nf_tables", "the kernel lacks nf_tables: iptables is used, which is slower, and ingressPolicy cannot be")
	default:
		e.add(Problem, "load nf_tables, or install iptables", "neither nf_tables nor iptables: ipMasq, portmap and firewall cannot work")
	}
	e.managers(c)
	conn, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		e.add(Problem, "", "rtnetlink: %v", err)
		return
	}
	if netns.CookieOf(conn.Fd()) == 0 {
		e.add(Note, "", "the kernel has no namespace cookies (Linux 5.14): a namespace that took a dead one's number passes for it")
	}
	_ = conn.Close()
}

// managers names the others that have firewall rules.
func (e *exam) managers(c *nft.Conn) {
	if iptables.LegacyLoaded("nat") || iptables.LegacyLoaded("filter") {
		e.add(Note, "", "the kernel's old iptables tables are loaded: masquerading and published ports go there, too")
	}
	if there, err := c.HasTable(nft.Table{Family: nft.Inet, Name: "firewalld"}); err == nil && there {
		e.add(Note, "docs/reconcile.md has a unit for that", "firewalld is active: its reload removes what is not its own")
	}
	filter := nft.Table{Family: nft.IPv4, Name: "filter"}
	for chain, manager := range map[string]string{"DOCKER-USER": "Docker", "ufw-before-forward": "ufw", "KUBE-FORWARD": "kube-proxy"} {
		if info, err := c.GetChain(nft.Chain{Table: filter, Name: chain}); err == nil && info != nil {
			e.add(Note, "", "%s has rules in ip filter", manager)
		}
	}
}

// host looks at sysctls and tools.
func (e *exam) host() {
	for _, n := range e.networks {
		if n.Driver != "bridge" && n.Driver != "ptp" || !n.Masquerade {
			continue
		}
		if v, err := sysctl.Get(nil, "net/ipv4/ip_forward"); err == nil && v == "0" && len(n.Containers) > 0 {
			e.add(Problem, "sysctl net.ipv4.ip_forward=1", "forwarding is off: the containers of %s reach nobody but the host", n.Name)
		}
	}
	if v, err := sysctl.Get(nil, "net/bridge/bridge-nf-call-iptables"); err == nil && v == "1" {
		e.add(Note, "", "bridge-nf-call-iptables is on: the host's rules also meet what stays within a bridge")
	}
	for _, n := range e.networks {
		for _, raw := range n.Options {
			e.tools(n.Name, raw)
		}
	}
}

// tools looks for iptables where the configuration asks for it.
func (e *exam) tools(network string, raw json.RawMessage) {
	var conf struct {
		Backend string `json:"backend"`
		Masq    string `json:"ipMasqBackend"`
	}
	_ = json.Unmarshal(raw, &conf) // what is of another type says nothing
	if conf.Backend != "iptables" && conf.Masq != "iptables" {
		return
	}
	for _, tool := range iptables.Both(false) {
		if !tool.Installed() {
			e.add(Problem, "install iptables", "network %s wants backend iptables, which is not installed", network)
			return
		}
	}
}

// configuration looks for plugins that are not there.
func (e *exam) configuration() {
	seen := []string{}
	for _, n := range e.networks {
		for _, p := range append(slices.Clone(n.Plugins), n.IPAM.Driver) {
			if p == "" || n.File == "" || slices.Contains(seen, p) {
				continue
			}
			seen = append(seen, p)
			if !installed(e.Path, p) {
				e.add(Problem, "netcleat install DIR", "network %s: no plugin %q in %s", n.Name, p, e.Path)
			}
		}
	}
	e.add(Fine, "", "networks: %d", len(e.networks))
}

func installed(path, plugin string) bool {
	return slices.ContainsFunc(filepath.SplitList(path), func(dir string) bool {
		st, err := os.Stat(filepath.Join(dir, plugin))
		return err == nil && st.Mode().IsRegular()
	})
}

// links looks for ports of the networks' bridges that are no attachment's.
func (e *exam) links() {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		e.broken(err)
		return
	}
	all, err := c.Links()
	if err = errors.Join(err, c.Close()); err != nil {
		e.broken(err)
		return
	}
	names, known := map[int]string{}, map[int]bool{}
	for _, l := range all {
		names[l.Index] = l.Name
	}
	for _, r := range e.rows {
		known[r.HostIndex] = true
	}
	for _, l := range all {
		bridge := names[l.Master]
		ours := slices.ContainsFunc(e.networks, func(n show.Network) bool { return n.Driver == "bridge" && n.Link == bridge })
		if ours && l.Kind == "veth" && !known[l.Index] {
			e.add(Warning, "where nobody needs it: ip link del "+l.Name, "%s is a port of %s, but of no attachment that anybody remembers", l.Name, bridge)
		}
	}
}
