package plugin

import (
	"encoding/json"
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/fields"
	"github.com/netcleat/netcleat/pkg/semver"
)

// plainResult is a result of version 0.3.0 or later, its addresses still text.
type plainResult struct {
	CNIVersion string               `json:"cniVersion"`
	Interfaces []*current.Interface `json:"interfaces"`
	IPs        []*plainIP           `json:"ips"`
	Routes     []*plainRoute        `json:"routes"`
	DNS        types.DNS            `json:"dns"`
}

type plainIP struct {
	Version   json.RawMessage `json:"version"` // a string before 1.0.0, which has none
	Interface *int            `json:"interface"`
	Address   string          `json:"address"`
	Gateway   string          `json:"gateway"`
}

type plainRoute struct {
	Dst      string `json:"dst"`
	GW       string `json:"gw"`
	MTU      int    `json:"mtu"`
	AdvMSS   int    `json:"advmss"`
	Priority int    `json:"priority"`
	Table    *int   `json:"table"`
	Scope    *int   `json:"scope"`
}

// decodePlain reads a result of version 0.3.0 or later as the types package does.
// ok is false where that takes more than this: an entry that is null, an address
// that is none, whatever is wrong with it.
func decodePlain(b []byte, version string) (res *current.Result, ok bool) {
	var p plainResult
	o, err := fields.Parse(b)
	if err == nil {
		err = o.Into(&p)
	}
	if err != nil || p.CNIVersion != version || !semver.AtLeast(version, "0.3.0") || !slices.Contains(specVersions, version) ||
		slices.Contains(p.Interfaces, nil) || slices.Contains(p.IPs, nil) || slices.Contains(p.Routes, nil) {
		return nil, false
	}
	if !semver.AtLeast(version, "1.0.0") {
		for _, i := range p.Interfaces {
			*i = current.Interface{Name: i.Name, Mac: i.Mac, Sandbox: i.Sandbox}
		}
	}
	res = &current.Result{CNIVersion: newestSpec, Interfaces: p.Interfaces, DNS: p.DNS}
	ok = true
	for _, ip := range p.IPs {
		ok = ok && (semver.AtLeast(version, "1.0.0") || len(ip.Version) == 0 || ip.Version[0] == '"')
		c := &current.IPConfig{Interface: ip.Interface}
		ok = setNet(&c.Address, ip.Address) && setIP(&c.Gateway, ip.Gateway) && ok
		res.IPs = append(res.IPs, c)
	}
	for _, r := range p.Routes {
		t := &types.Route{MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope}
		ok = setNet(&t.Dst, r.Dst) && setIP(&t.GW, r.GW) && ok
		res.Routes = append(res.Routes, t)
	}
	return res, ok
}

func setNet(n *net.IPNet, text string) bool {
	p, err := types.ParseCIDR(text)
	if err == nil {
		*n = *p
	}
	return err == nil
}

func setIP(ip *net.IP, text string) bool {
	if text != "" {
		*ip = net.ParseIP(text)
	}
	return text == "" || *ip != nil
}
