package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/explain"
	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/lint"
	"github.com/netcleat/netcleat/cmd/netcleat/runtimes"
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
		e.add(finding.Fine, nothing, "kernel %s", unix.ByteSliceToString(u.Release[:]))
	}
	if !MayAdmin() {
		e.add(finding.Note, finding.Do("run it as root on the host"), "netfilter: not known without CAP_NET_ADMIN")
		return
	}
	c, err := nft.Dial(nil, nil)
	if err != nil {
		e.add(finding.Problem, finding.Do("load nf_tables, or install iptables"), "netfilter: %v", err)
		return
	}
	defer func() { _ = c.Close() }() // was only read from
	switch tool := (iptables.Tool{}); {
	case c.Available():
		e.add(finding.Fine, nothing, "kernel has nf_tables")
	case tool.Installed():
		e.add(finding.Warning, finding.Do("load nf_tables"), "the kernel lacks nf_tables: iptables is used, which is slower, and ingressPolicy cannot be")
	default:
		e.add(finding.Problem, finding.Do("load nf_tables, or install iptables"), "neither nf_tables nor iptables: ipMasq, portmap and firewall cannot work")
	}
	e.managers(c)
	conn, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		e.add(finding.Problem, nothing, "rtnetlink: %v", err)
		return
	}
	if netns.CookieOf(conn.Fd()) == 0 {
		e.add(finding.Note, nothing, "the kernel has no namespace cookies (Linux 5.14): a namespace that took a dead one's number passes for it")
	}
	_ = conn.Close()
}

// MayAdmin reports whether this process may ask netfilter.
func MayAdmin() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return unix.Capget(&head, &caps[0]) == nil && caps[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

// managers names the others that have firewall rules.
func (e *exam) managers(c *nft.Conn) {
	if iptables.LegacyLoaded("nat") || iptables.LegacyLoaded("filter") {
		e.add(finding.Note, nothing, "the kernel's old iptables tables are loaded: masquerading and published ports go there, too")
	}
	if there, err := c.HasTable(nft.Table{Family: nft.Inet, Name: "firewalld"}); err == nil && there {
		e.add(finding.Note, finding.Do("docs/reconcile.md has a unit for that"), "firewalld is active: its reload removes what is not its own")
	}
	filter := nft.Table{Family: nft.IPv4, Name: "filter"}
	for chain, manager := range map[string]string{"DOCKER-USER": "Docker", "ufw-before-forward": "ufw", "KUBE-FORWARD": "kube-proxy"} {
		if info, err := c.GetChain(nft.Chain{Table: filter, Name: chain}); err == nil && info != nil {
			e.add(finding.Note, nothing, "%s has rules in ip filter", manager)
		}
	}
}

// host looks at sysctls and tools.
func (e *exam) host() {
	e.forwarding()
	if v, err := sysctl.Get(nil, "net/bridge/bridge-nf-call-iptables"); err == nil && v == "1" {
		e.add(finding.Note, nothing, "bridge-nf-call-iptables is on: the host's rules also meet what stays within a bridge")
	}
	for _, n := range e.networks {
		for _, raw := range n.Options {
			e.tools(n.Name, raw)
		}
	}
}

// forwarding looks whether the host forwards for the networks that need it.
func (e *exam) forwarding() {
	for _, f := range []struct {
		key, command, what, mark string
		about                    explain.Subject
	}{
		{"net/ipv4/ip_forward", "sysctl -w net.ipv4.ip_forward=1", "forwarding", ".", explain.Forwarding("IPv4")},
		{"net/ipv6/conf/all/forwarding", "sysctl -w net.ipv6.conf.all.forwarding=1", "forwarding of IPv6", ":", explain.Forwarding("IPv6")},
	} {
		v, err := sysctl.Get(nil, f.key)
		if err != nil || v != "0" {
			continue
		}
		for _, n := range e.networks {
			needs := slices.ContainsFunc(n.Containers, func(r show.Row) bool { return strings.Contains(strings.Join(r.Addresses, " "), f.mark) })
			if n.Masquerade && needs && (n.Driver == "bridge" || n.Driver == "ptp") {
				e.add(finding.Problem, finding.Run(f.command), "%s is off: the containers of %s reach nobody but the host", f.what, n.Name)
				e.said[subject{what: f.about}] = true
			}
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
			e.add(finding.Problem, finding.Do("install iptables"), "network %s wants backend iptables, which is not installed", network)
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
				e.add(finding.Problem, finding.Mend{Command: "netcleat install " + finding.Quote(filepath.SplitList(e.Path + ":")[0]), When: "where it is one of this suite's"}, "network %s: no plugin %q in %s", n.Name, p, e.Path)
			}
		}
	}
	e.add(finding.Fine, nothing, "networks: %d", len(e.networks))
}

func installed(path, plugin string) bool {
	return slices.ContainsFunc(filepath.SplitList(path), func(dir string) bool {
		st, err := os.Stat(filepath.Join(dir, plugin))
		return err == nil && st.Mode().IsRegular()
	})
}

// lint looks at the configurations, each alone and all together.
func (e *exam) lint(ctx context.Context) {
	dirs := slices.DeleteFunc(e.Dirs(), unused)
	if len(dirs) == 0 {
		return
	}
	wrong := 0
	for _, f := range lint.CheckFor(runtimes.Installed(ctx), dirs...) {
		if slices.ContainsFunc(e.found, func(o Finding) bool { return strings.HasPrefix(o.What, f.File+": ") }) {
			continue // it cannot even be read
		}
		level := map[lint.Level]finding.Level{lint.Error: finding.Problem, lint.Warning: finding.Warning, lint.Note: finding.Note}[f.Level]
		mend := finding.Mend{Command: "netcleat lint " + finding.Quote(f.File), When: "until it finds nothing"}
		e.add(level, mend, "%s: %s", f.Where(), f.Message)
		wrong++
	}
	if wrong == 0 {
		e.add(finding.Fine, nothing, "configurations in order")
	}
}

// unused reports whether a directory of configurations does not exist or has no file, but for
// locks: no network has been configured there yet, which is not wrong.
func unused(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !e.IsDir() && !strings.HasPrefix(e.Name(), ".") })
}

// ports looks for ends of veth pairs that are no attachment's: ports of the
// networks' bridges, and what has this suite's alias.
func (e *exam) ports() {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		e.broken(err)
		return
	}
	e.links, err = c.Links()
	if err = errors.Join(err, c.Close()); err != nil {
		e.broken(err)
		return
	}
	names, known := map[int]string{}, map[int]bool{}
	for _, l := range e.links {
		names[l.Index] = l.Name
	}
	for _, r := range e.rows {
		known[r.HostIndex] = true
	}
	for _, l := range e.links {
		if l.Kind != "veth" || known[l.Index] {
			continue
		}
		bridge := names[l.Master]
		switch {
		case slices.ContainsFunc(e.networks, func(n show.Network) bool { return n.Driver == "bridge" && n.Link == bridge }):
			e.add(finding.Warning, ownerOf(l), "%s is a port of %s, but belongs to no known attachment", l.Name, bridge)
		case strings.HasPrefix(l.Alias, "netcleat "):
			e.add(finding.Warning, ownerOf(l), "%s was made for %q, which is no known attachment", l.Name, strings.TrimPrefix(l.Alias, "netcleat "))
		}
	}
}

// ownerOf is how to find out about the owner of a link, which its alias may name.
func ownerOf(l *nl.Link) finding.Mend {
	if words := strings.Fields(l.Alias); len(words) == 4 && words[0] == "netcleat" {
		return unsure(words[1], words[2])
	}
	return otherEnd(l.Name)
}
