package plugin

import (
	"net"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/jsontext"
	"github.com/netcleat/netcleat/pkg/semver"
)

// encodePlain writes a result of version 0.3.0 or later as the types package
// does, byte for byte but for the indentation. ok is false where that takes more
// than this: an entry that is null, an address that is none.
func encodePlain(res *current.Result, version string) (b []byte, ok bool) {
	e := encoder{object: jsontext.Sorted}
	if !semver.AtLeast(version, "1.0.0") {
		e = encoder{object: jsontext.Object, old: true}
	}
	if !semver.AtLeast(version, "0.3.0") || !e.sound(res) {
		return nil, false
	}
	return e.object(
		jsontext.Field{Key: "cniVersion", Value: jsontext.String(version)},
		jsontext.Field{Key: "interfaces", Value: jsontext.OptionalArray(res.Interfaces, e.iface)},
		jsontext.Field{Key: "ips", Value: jsontext.OptionalArray(res.IPs, e.ip)},
		jsontext.Field{Key: "routes", Value: jsontext.OptionalArray(res.Routes, e.route)},
		jsontext.Field{Key: "dns", Value: e.dns(res.DNS)},
	), true
}

// encoder writes the objects of a result. The types of 1.0.0 sort their keys;
// the old ones have them in the order of their fields, an address's version, and
// a dns object also where it is empty.
type encoder struct {
	object func(...jsontext.Field) jsontext.Value
	old    bool
}

func (e encoder) sound(res *current.Result) bool {
	for _, i := range res.Interfaces {
		if i == nil {
			return false
		}
	}
	for _, ip := range res.IPs {
		if ip == nil || !isIP(ip.Address.IP) || len(ip.Gateway) != 0 && !isIP(ip.Gateway) {
			return false
		}
	}
	for _, r := range res.Routes {
		if r == nil || !isIP(r.Dst.IP) || len(r.GW) != 0 && !isIP(r.GW) {
			return false
		}
	}
	return true
}

func isIP(ip net.IP) bool { return len(ip) == net.IPv4len || len(ip) == net.IPv6len }

func (e encoder) iface(i *current.Interface) jsontext.Value {
	fields := []jsontext.Field{
		{Key: "name", Value: jsontext.String(i.Name)},
		{Key: "mac", Value: jsontext.Optional(i.Mac)},
		{Key: "sandbox", Value: jsontext.Optional(i.Sandbox)},
	}
	if !e.old {
		fields = append(fields, jsontext.Field{Key: "mtu", Value: jsontext.OptionalInt(i.Mtu)},
			jsontext.Field{Key: "socketPath", Value: jsontext.Optional(i.SocketPath)},
			jsontext.Field{Key: "pciID", Value: jsontext.Optional(i.PciID)})
	}
	return e.object(fields...)
}

func (e encoder) ip(ip *current.IPConfig) jsontext.Value {
	var version jsontext.Value
	if e.old {
		version = jsontext.String("6")
		if ip.Address.IP.To4() != nil {
			version = jsontext.String("4")
		}
	}
	return e.object(
		jsontext.Field{Key: "version", Value: version},
		jsontext.Field{Key: "interface", Value: number(ip.Interface)},
		jsontext.Field{Key: "address", Value: jsontext.String(ip.Address.String())},
		jsontext.Field{Key: "gateway", Value: address(ip.Gateway)},
	)
}

func (e encoder) route(r *types.Route) jsontext.Value {
	return e.object(
		jsontext.Field{Key: "dst", Value: jsontext.String(r.Dst.String())},
		jsontext.Field{Key: "gw", Value: address(r.GW)},
		jsontext.Field{Key: "mtu", Value: jsontext.OptionalInt(r.MTU)},
		jsontext.Field{Key: "advmss", Value: jsontext.OptionalInt(r.AdvMSS)},
		jsontext.Field{Key: "priority", Value: jsontext.OptionalInt(r.Priority)},
		jsontext.Field{Key: "table", Value: number(r.Table)},
		jsontext.Field{Key: "scope", Value: number(r.Scope)},
	)
}

func (e encoder) dns(d types.DNS) jsontext.Value {
	v := e.object(
		jsontext.Field{Key: "nameservers", Value: jsontext.OptionalArray(d.Nameservers, jsontext.String)},
		jsontext.Field{Key: "domain", Value: jsontext.Optional(d.Domain)},
		jsontext.Field{Key: "search", Value: jsontext.OptionalArray(d.Search, jsontext.String)},
		jsontext.Field{Key: "options", Value: jsontext.OptionalArray(d.Options, jsontext.String)},
	)
	if d.IsEmpty() && !e.old {
		return nil
	}
	return v
}

func number(n *int) jsontext.Value {
	if n == nil {
		return nil
	}
	return jsontext.Int(*n)
}

func address(ip net.IP) jsontext.Value {
	if len(ip) == 0 {
		return nil
	}
	return jsontext.String(ip.String())
}
