package show

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/ranges"
	"github.com/netcleat/netcleat/pkg/vxlan"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// Network is a network as people see it.
type Network struct {
	Name       string            `json:"name"`
	File       string            `json:"file,omitempty"` // the conflist; "" where only attachments tell of it
	CNIVersion string            `json:"cniVersion,omitempty"`
	Labels     Labels            `json:"labels,omitempty"`
	Driver     string            `json:"driver"` // the main plugin
	Plugins    []string          `json:"plugins"`
	Link       string            `json:"link,omitempty"` // the bridge, or the parent
	IPAM       IPAM              `json:"ipam"`
	Masquerade bool              `json:"masquerade"`
	Hairpin    bool              `json:"hairpin,omitempty"` // of a bridge: what came by a port may leave by it
	Names      bool              `json:"names"`             // containers have names, by dnsname
	Domain     string            `json:"domain,omitempty"`  // of the names
	Containers []Row             `json:"containers"`
	Rules      []ruleset.Mark    `json:"rules,omitempty"`   // of the firewall; only Inspect looks
	Options    []json.RawMessage `json:"options,omitempty"` // the plugins' configurations
}

// IPAM is where a network's addresses come from.
type IPAM struct {
	Driver  string `json:"driver,omitempty"`
	DataDir string `json:"dataDir,omitempty"` // of host-local's leases
	Pools   []Pool `json:"pools,omitempty"`
}

// Pool is a range set of host-local.
type Pool struct {
	Ranges   string   `json:"ranges"`
	Subnets  []string `json:"subnets"`
	Gateways []string `json:"gateways,omitempty"`
	Held     uint64   `json:"held"`
	Size     uint64   `json:"size"`
	Use      string   `json:"use"` // "12 of 65,533"
}

// conflist is what a list of plugins, or one plugin's configuration, says.
type conflist struct {
	CNIVersion string            `json:"cniVersion"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Plugins    []json.RawMessage `json:"plugins"`
	// Labels are what netcleat network create writes, Nerdctl what nerdctl does.
	Labels  Labels `json:"netcleat.dev/labels"`
	Nerdctl Labels `json:"nerdctlLabels"`
	file    string
}

// labels are whichever the list has.
func (l conflist) labels() Labels {
	if len(l.Labels) > 0 {
		return l.Labels
	}
	return l.Nerdctl
}

// mainConf is what is read of a main plugin's configuration.
type mainConf struct {
	Type    string `json:"type"`
	Domain  string `json:"domainName"`
	Bridge  string `json:"bridge"`
	Master  string `json:"master"`
	IPMasq  bool   `json:"ipMasq"`
	Hairpin bool   `json:"hairpinMode"`
	Promisc bool   `json:"promiscMode"`
	IPAM    struct {
		plugin.IPAMConf
		subnet
		Ranges [][]subnet `json:"ranges"`
	} `json:"ipam"`
}

type subnet struct {
	Subnet  string `json:"subnet"`
	Gateway string `json:"gateway"`
}

// VXLAN is what the network's configuration says of its uplink to other hosts; nil is
// nothing, or what cannot work.
func (n Network) VXLAN() *vxlan.Conf {
	if n.Driver != "bridge" || len(n.Options) == 0 {
		return nil
	}
	return vxlan.Of(n.Options[0])
}

// lists reads the configuration files of all directories.
func (p Places) lists() (all []conflist, err error) {
	for _, dir := range p.Dirs() {
		lists, derr := readConf(dir)
		all, err = append(all, lists...), errors.Join(err, derr)
	}
	return all, err
}

// readConf reads the configuration files as libcni does. What is broken is
// joined to the error.
func readConf(dir string) (lists []conflist, err error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	errs := []error{err}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		if !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(path)) {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l := conflist{file: path}
		if err := json.Unmarshal(b, &l); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		if l.Name == "" || l.Type == "" && len(l.Plugins) == 0 {
			errs = append(errs, fmt.Errorf("%s: name or plugins is missing", path))
			continue
		}
		if l.Type != "" {
			l.Plugins = []json.RawMessage{b}
		}
		lists = append(lists, l)
	}
	return lists, errors.Join(errs...)
}

// Networks returns the networks that are configured, and those that something is
// attached to. What cannot be read is joined to the error.
func Networks(ctx context.Context, p Places) (all []Network, err error) {
	lists, err := p.lists()
	rows, rerr := Rows(p)
	err = errors.Join(err, rerr)
	for _, l := range lists {
		if !slices.ContainsFunc(all, func(n Network) bool { return n.Name == l.Name }) {
			all = append(all, l.network(ctx, p, Of(rows, l.Name)))
		}
	}
	for _, r := range rows {
		if !slices.ContainsFunc(all, func(n Network) bool { return n.Name == r.Network }) {
			l := conflist{Name: r.Network}
			for _, rec := range r.attached.Records {
				if len(rec.Config) > 0 {
					l.Plugins = append(l.Plugins, rec.Config)
				}
			}
			n := l.network(ctx, p, Of(rows, r.Network))
			n.Plugins = r.Plugins
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b Network) int { return cmp.Compare(a.Name, b.Name) })
	return all, err
}

// network describes the network of a list with its attachments.
func (l conflist) network(ctx context.Context, p Places, rows []Row) Network {
	n := Network{Name: l.Name, File: l.file, CNIVersion: l.CNIVersion, Labels: l.labels(), Containers: rows, Options: l.Plugins}
	for i, raw := range l.Plugins {
		var m mainConf
		_ = json.Unmarshal(raw, &m) // what is of another type says nothing
		n.Plugins = append(n.Plugins, m.Type)
		if m.Type == dnsname.Name {
			n.Names, n.Domain = true, m.Domain
		}
		if i == 0 {
			n.Hairpin = m.Hairpin || m.Promisc
			n.Driver, n.Link, n.Masquerade, n.IPAM.Driver = m.Type, cmp.Or(m.Bridge, m.Master), m.IPMasq, m.IPAM.Type
			if lease.KeptBy(m.IPAM.Type) {
				n.IPAM.DataDir = cmp.Or(m.IPAM.DataDir, lease.DefaultDir)
				n.IPAM.Pools = m.pools(ctx, p, l, raw)
			}
		}
	}
	if n.Driver == "bridge" && n.Link == "" {
		n.Link = "cni0"
	}
	return n
}

// pools asks host-local how much of its ranges is held.
func (m mainConf) pools(ctx context.Context, p Places, l conflist, raw json.RawMessage) []Pool {
	c := &plugin.Call{
		Verb: plugin.Status, Stdin: raw, Journal: p.Journal,
		Conf: plugin.Conf{CNIVersion: cmp.Or(l.CNIVersion, "1.0.0"), Name: l.Name, Type: m.Type, IPAM: m.IPAM.IPAMConf},
	}
	sets, err := ranges.Pools(ctx, c)
	if err != nil {
		return []Pool{{Use: err.Error()}}
	}
	written := m.IPAM.Ranges
	if m.IPAM.Subnet != "" {
		written = append([][]subnet{{m.IPAM.subnet}}, written...)
	}
	var pools []Pool
	for i, s := range sets {
		pool := Pool{Ranges: s.Ranges, Held: s.Held, Size: s.Size, Use: s.String()}
		if i < len(written) {
			for _, w := range written[i] {
				pool.Subnets = append(pool.Subnets, w.Subnet)
				if w.Gateway != "" {
					pool.Gateways = append(pool.Gateways, w.Gateway)
				}
			}
		}
		pools = append(pools, pool)
	}
	return pools
}

// PrintNetworks prints networks in the format.
func PrintNetworks(w io.Writer, all []Network, f Format) error {
	if done, err := printOther(w, f, "{{.Name}}", all); done {
		return err
	}
	t := newTable(w)
	head := "NETWORK\tDRIVER\tLINK\tSUBNETS\tHELD\tCONTAINERS"
	if f.Output == wide {
		head += "\tNAMES\tPLUGINS\tFILE"
	}
	t.line(head)
	for _, n := range all {
		var subnets, held []string
		for _, p := range n.IPAM.Pools {
			subnets, held = append(subnets, p.Subnets...), append(held, p.Use)
		}
		line := []string{n.Name, n.Driver, n.Link, strings.Join(subnets, " "), strings.Join(held, "; "), fmt.Sprint(len(n.Containers))}
		if f.Output == wide {
			line = append(line, n.names(), strings.Join(n.Plugins, ","), n.File)
		}
		t.line(strings.Join(line, "\t"))
	}
	return t.flush()
}

// names is the domain of the network's names, or says whether it has any.
func (n Network) names() string {
	if n.Names {
		return cmp.Or(n.Domain, "yes")
	}
	return "no"
}

// FindNetwork returns the network of that name.
func FindNetwork(all []Network, name string) (Network, error) {
	var names []string
	for _, n := range all {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return Network{}, fmt.Errorf("network %q: neither configured nor attached to (there is no network)", name)
	}
	return Network{}, fmt.Errorf("network %q: neither configured nor attached to (there are: %s)", name, strings.Join(names, ", "))
}

// ID is the network's name, which is all that identifies it.
func (n Network) ID() string { return n.Name }

// Scope is Docker's word for the hosts that a network is on: this one.
func (n Network) Scope() string { return "local" }

// Inspect returns the networks of these names with their firewall rules. What is not
// found is joined to the error.
func Inspect(ctx context.Context, all []Network, names ...string) ([]Network, error) {
	var errs []error
	found := []Network{}
	rules, err := ruleset.Read(ctx)
	var marks []ruleset.Mark
	if err == nil {
		marks, err = rules.Marks()
	}
	errs = append(errs, err)
	for _, name := range names {
		n, err := FindNetwork(all, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var ids []string
		for _, r := range n.Containers {
			ids = append(ids, r.Container)
		}
		n.Rules = ruleset.Of(marks, n.Name, ids)
		found = append(found, n)
	}
	return found, errors.Join(errs...)
}
