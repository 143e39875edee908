package explain

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/link"
	"github.com/netcleat/netcleat/pkg/vxlan"
)

// conf is the configuration of one plugin of the list, as far as it is looked at.
type conf struct {
	Type             string      `json:"type"`
	Bridge           string      `json:"bridge"`
	IsGateway        bool        `json:"isGateway"`
	IsDefaultGateway bool        `json:"isDefaultGateway"`
	IPMasq           bool        `json:"ipMasq"`
	MTU              int         `json:"mtu"`
	VLAN             int         `json:"vlan"`
	HairpinMode      bool        `json:"hairpinMode"`
	PortIsolation    bool        `json:"portIsolation"`
	Disabled         bool        `json:"disableContainerInterface"`
	VXLAN            *vxlan.Conf `json:"vxlan"`
	IPAM             struct {
		Type    string `json:"type"`
		DataDir string `json:"dataDir"`
		pool
		Ranges [][]pool       `json:"ranges"`
		Routes []*types.Route `json:"routes"`
	} `json:"ipam"`
	raw json.RawMessage
}

type pool struct {
	Subnet  string `json:"subnet"`
	Gateway string `json:"gateway"`
}

// plan is what was to be: the list of plugins and its result.
type plan struct {
	confs   []conf // at least one
	result  *current.Result
	version string
	known   bool // libcni remembers the result; else it is guessed from the records
	// unchecked says that the list asks for no CHECK.
	unchecked bool
}

func (p *plan) main() string { return p.confs[0].Type }

// planOf reads what libcni remembers of the attachment, or else what the records
// say.
func planOf(row show.Row) (p plan, err error) {
	if row.CacheFile != "" {
		p, err = remembered(row.CacheFile)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	if len(p.confs) > 0 {
		return p, nil
	}
	p = plan{version: "1.0.0"}
	for _, r := range row.Attachment().Records {
		c := confOf(r.Config)
		c.Type = r.Plugin
		p.confs = append(p.confs, c)
	}
	if len(p.confs) == 0 {
		return p, fmt.Errorf("%s: says neither plugins nor a result", row.CacheFile)
	}
	p.result = p.guess(row.Attachment().Records)
	return p, nil
}

func confOf(raw []byte) conf {
	c := conf{raw: raw}
	_ = json.Unmarshal(raw, &c) // what is of another type says nothing
	c.IsGateway = c.IsGateway || c.IsDefaultGateway
	if c.Bridge == "" {
		c.Bridge = "cni0"
	}
	return c
}

// remembered reads an entry of libcni's cache.
func remembered(path string) (p plan, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return p, err
	}
	var entry struct {
		Config []byte          `json:"config"`
		Result json.RawMessage `json:"result"`
	}
	var list struct {
		CNIVersion   string            `json:"cniVersion"`
		Type         string            `json:"type"`
		Plugins      []json.RawMessage `json:"plugins"`
		DisableCheck any               `json:"disableCheck"` // libcni takes the word, too
	}
	if err := json.Unmarshal(b, &entry); err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	if err := json.Unmarshal(entry.Config, &list); err != nil {
		return p, fmt.Errorf("%s: config: %w", path, err)
	}
	if list.Type != "" {
		list.Plugins = []json.RawMessage{entry.Config}
	}
	for _, raw := range list.Plugins {
		p.confs = append(p.confs, confOf(raw))
	}
	p.version, p.known = list.CNIVersion, true
	p.unchecked = fmt.Sprint(list.DisableCheck) == "true"
	r, err := create.CreateFromBytes(entry.Result)
	if err == nil {
		p.result, err = current.GetResult(r)
	}
	if err != nil {
		return p, fmt.Errorf("%s: result: %w", path, err)
	}
	return p, nil
}

// guess is the result as the records and the configuration let expect it.
func (p *plan) guess(records []journal.Record) *current.Result {
	res := &current.Result{}
	c := p.confs[0]
	for _, r := range records {
		for _, ip := range r.IPs {
			i := &current.IPConfig{Address: net.IPNet{IP: ip.Addr().AsSlice(), Mask: net.CIDRMask(ip.Bits(), ip.Addr().BitLen())}}
			if c.IsGateway || c.Type == "ptp" {
				i.Gateway = c.gateway(ip).AsSlice()
			}
			if !slices.ContainsFunc(res.IPs, func(o *current.IPConfig) bool { return o.Address.String() == i.Address.String() }) {
				res.IPs = append(res.IPs, i)
			}
		}
	}
	res.Routes = append(res.Routes, c.IPAM.Routes...)
	if !c.IsDefaultGateway {
		return res
	}
	for _, ip := range res.IPs {
		all := net.IPNet{IP: make(net.IP, len(ip.Address.Mask)), Mask: make(net.IPMask, len(ip.Address.Mask))}
		res.Routes = append(res.Routes, &types.Route{Dst: all, GW: ip.Gateway})
	}
	return res
}

// gateway is what host-local says: the range's, or the first address.
func (c conf) gateway(ip netip.Prefix) netip.Addr {
	pools := []pool{c.IPAM.pool}
	for _, set := range c.IPAM.Ranges {
		pools = append(pools, set...)
	}
	for _, p := range pools {
		subnet, err := netip.ParsePrefix(p.Subnet)
		gw, gerr := netip.ParseAddr(p.Gateway)
		if err == nil && gerr == nil && subnet.Contains(ip.Addr()) {
			return gw
		}
	}
	return ip.Masked().Addr().Next()
}

// hop is one address of the interface, and its gateway where it has one.
type hop struct {
	addr    netip.Prefix
	gateway netip.Addr
}

// hops are the interface's addresses.
func (x *exam) hops() (list []hop) {
	_, at := link.Find(x.result, x.row.Interface, x.row.Netns)
	for _, ip := range link.Owned(x.result.IPs, at) {
		if a, err := link.PrefixOf(ip.Address); err == nil {
			list = append(list, hop{a, link.GatewayOf(ip.Gateway)})
		}
	}
	return list
}

// has reports whether a plugin is in the list.
func (p *plan) has(plugin string) bool {
	return slices.ContainsFunc(p.confs, func(c conf) bool { return c.Type == plugin })
}

// routed reports whether the host forwards for the container.
func (p *plan) routed() bool {
	return p.main() == "ptp" || p.main() == "bridge" && p.confs[0].IsGateway
}

// gatewayLink is the host's interface that has the gateways.
func (x *exam) gatewayLink() string {
	c := x.confs[0]
	switch {
	case c.Type == "ptp" && x.end != nil:
		return x.end.Name
	case c.VLAN != 0:
		return fmt.Sprintf("%s.%d", c.Bridge, c.VLAN)
	}
	return c.Bridge
}
