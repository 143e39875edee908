package connect

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/libcni"

	"github.com/netcleat/netcleat/cmd/netcleat/create"
	"github.com/netcleat/netcleat/pkg/nl"
)

// document is a list of plugins whose members are changed one by one, so that
// what nobody here knows stays.
type document struct {
	top     map[string]any
	plugins []map[string]any
}

// parse reads a list as the library has put it together: plugins may be in files
// of their own.
func parse(l *libcni.NetworkConfigList) (d *document, err error) {
	d = &document{}
	if d.top, err = object(l.Bytes); err != nil {
		return nil, err
	}
	for _, p := range l.Plugins {
		o, err := object(p.Bytes)
		if err != nil {
			return nil, err
		}
		d.plugins = append(d.plugins, o)
	}
	d.top["plugins"] = d.plugins
	return d, nil
}

// object reads a JSON object and keeps numbers as they are written.
func object(text []byte) (o map[string]any, err error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	err = dec.Decode(&o)
	return o, err
}

func (d *document) text() ([]byte, error) { return json.Marshal(d.top) }

// offers reports whether a plugin has the capability.
func (d *document) offers(capability string) bool {
	for _, p := range d.plugins {
		if all, ok := p["capabilities"].(map[string]any); ok && all[capability] == true {
			return true
		}
	}
	return false
}

// offer gives the main plugin the capability.
func (d *document) offer(capability string) {
	all, ok := d.plugins[0]["capabilities"].(map[string]any)
	if !ok {
		all = map[string]any{}
		d.plugins[0]["capabilities"] = all
	}
	all[capability] = true
}

// keepDefaults takes out of the list what would give the container a default route
// of a family that it has one of. As with Docker a container has one gateway: the
// first network's that has one.
func (d *document) keepDefaults(st *state) {
	var has families
	var v4 nl.Route
	v4, has.v4 = st.defaultOf(false)
	_, has.v6 = st.defaultOf(true)
	if has == (families{}) {
		return
	}
	for _, p := range d.plugins {
		ipam, _ := p["ipam"].(map[string]any)
		if ipam != nil {
			dropRoutes(ipam, has)
		}
		if p["isDefaultGateway"] == true {
			p["isDefaultGateway"], p["isGateway"] = false, true
			addRoutes(p, ipam, has)
		}
		if ipam != nil && ipam["type"] == "dhcp" && has.v4 {
			deferRoutes(ipam, int64(v4.Priority))
		}
	}
}

// families are those that a container has a default route of.
type families struct{ v4, v6 bool }

// of reports whether the prefix's is among them.
func (f families) of(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return f.v4
	}
	return f.v6
}

// mainTable is the routing table that routes without one are in.
const mainTable = "254"

// dropRoutes takes the default routes of the families out of IPAM's.
func dropRoutes(ipam map[string]any, has families) {
	routes, _ := ipam["routes"].([]any)
	kept := []any{}
	for _, r := range routes {
		o, _ := r.(map[string]any)
		dst, _ := o["dst"].(string)
		p, err := netip.ParsePrefix(dst)
		table, _ := o["table"].(json.Number)
		main := table == "" || table == "0" || table == mainTable
		if err == nil && main && p.Bits() == 0 && has.of(p) {
			continue
		}
		kept = append(kept, r)
	}
	if len(kept) < len(routes) {
		ipam["routes"] = kept
	}
}

// addRoutes writes a default route down for the family that has none, if only one
// has: isDefaultGateway would give it to both.
func addRoutes(plugin, ipam map[string]any, has families) {
	conf, err := json.Marshal(plugin)
	if err != nil || ipam == nil || has == (families{true, true}) {
		return
	}
	dst := "0.0.0.0/0"
	if has.v4 {
		dst = "::/0"
	}
	for _, p := range create.Subnets(conf) {
		if has.of(p) {
			continue
		}
		routes, _ := ipam["routes"].([]any)
		if !slices.ContainsFunc(routes, func(r any) bool { o, _ := r.(map[string]any); return o["dst"] == dst }) {
			ipam["routes"] = append(routes, map[string]any{"dst": dst})
		}
		return
	}
}

// deferRoutes has the routes of a DHCP server come after the container's own.
func deferRoutes(ipam map[string]any, after int64) {
	n, _ := ipam["priority"].(json.Number)
	if p, err := n.Int64(); err != nil || p <= after {
		ipam["priority"] = after + 1
	}
}
