package create

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/plugins/dnsname"
)

// aliases are what Docker, podman and nerdctl call keys of the main plugin.
var aliases = map[string]string{
	"com.docker.network.bridge.name":                 "bridge",
	"com.docker.network.bridge.enable_ip_masquerade": "ipMasq",
	"com.docker.network.driver.mtu":                  "mtu",
	"macvlan_mode":                                   "mode",
	"ipvlan_mode":                                    "mode",
	"ipvlan_flag":                                    "flag",
}

// The options that are more than a key of one plugin.
const (
	optParent      = "parent"
	optICC         = "com.docker.network.bridge.enable_icc"
	optHostBinding = "com.docker.network.bridge.host_binding_ipv4"
)

// kind says how a value is written.
type kind int

const (
	text kind = iota
	yesNo
	number
	words // between commas
)

// keys are those of a plugin that an option may set.
var keys = map[string]map[string]kind{
	"bridge": {
		"bridge": text, "isGateway": yesNo, "forceAddress": yesNo, "ipMasq": yesNo, "ipMasqBackend": text, "mtu": number,
		"hairpinMode": yesNo, "promiscMode": yesNo, "vlan": number, "preserveDefaultVlan": yesNo, "macspoofchk": yesNo,
		"portIsolation": yesNo, "enabledad": yesNo, "acceptRA": yesNo,
	},
	"macvlan":  {"mode": text, "mtu": number, "bcqueuelen": number, "enabledad": yesNo, "acceptRA": yesNo},
	"ipvlan":   {"mode": text, "flag": text, "mtu": number, "enabledad": yesNo, "acceptRA": yesNo},
	"vlan":     {"vlanId": number, "mtu": number, "enabledad": yesNo, "acceptRA": yesNo},
	"ptp":      {"ipMasq": yesNo, "ipMasqBackend": text, "mtu": number, "enabledad": yesNo, "acceptRA": yesNo},
	"portmap":  {"backend": text, "snat": yesNo, "masqAll": yesNo, "markMasqBit": number, "externalSetMarkChain": text, "hostPortConflict": text},
	"dnsname":  {"domainName": text, "nameservers": words},
	"firewall": {"backend": text, "ingressPolicy": text, "iptablesAdminChainName": text, "firewalldZone": text},
}

// set carries an option out: on the main plugin, or where it is PLUGIN.KEY on that
// one.
func (p *draft) set(key, value string) error {
	switch key {
	case optParent:
		return p.setParent(value)
	case optICC:
		return p.setICC(value)
	case optHostBinding:
		return p.setHostBinding(value)
	}
	plugin, name := p.Driver, key
	if alias, ok := aliases[key]; ok {
		name = alias
	} else if of, rest, dotted := strings.Cut(key, "."); dotted && keys[of] != nil {
		plugin, name = of, rest
	}
	conf := p.plugin(plugin)
	if conf == nil {
		return fmt.Errorf("option %s: a network of driver %s has no plugin %s%s", key, p.Driver, plugin, p.because(plugin))
	}
	kind, known := keys[plugin][name]
	if !known {
		return fmt.Errorf("option %s: driver %s has: %s", key, p.Driver, strings.Join(p.known(), ", "))
	}
	v, err := kind.parse(value)
	if err != nil {
		return fmt.Errorf("option %s: %w", key, err)
	}
	conf.set(name, v)
	return nil
}

func (p *draft) because(plugin string) string {
	switch {
	case plugin == dnsname.Name && p.Driver == "ptp":
		return ": add --dns"
	case plugin == dnsname.Name:
		return " with --no-dns"
	case p.Internal:
		return " when --internal"
	}
	return ""
}

func (k kind) parse(s string) (any, error) {
	switch k {
	case yesNo:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("%q: want true or false", s)
		}
		return b, nil
	case number:
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, fmt.Errorf("%q: want a number", s)
		}
		return n, nil
	case words:
		return strings.Split(s, ","), nil
	default:
		return s, nil
	}
}

// known are the options that the network's plugins have.
func (p *draft) known() (all []string) {
	for alias, name := range aliases {
		if _, ok := keys[p.Driver][name]; ok && (!strings.Contains(alias, "vlan_") || strings.HasPrefix(alias, p.Driver)) {
			all = append(all, alias)
		}
	}
	if p.needsParent() {
		all = append(all, optParent)
	}
	if p.Driver == "bridge" || p.Driver == "ptp" {
		all = append(all, optICC)
	}
	if p.plugin("portmap") != nil {
		all = append(all, optHostBinding)
	}
	for plugin, names := range keys {
		if p.plugin(plugin) == nil {
			continue
		}
		for name := range names {
			if plugin != p.Driver {
				name = plugin + "." + name
			}
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

func (p *draft) setParent(value string) error {
	if p.Parent != "" && p.Parent != value {
		return fmt.Errorf("option parent=%s: --parent says %s", value, p.Parent)
	}
	p.Parent = value
	return nil
}

// setICC keeps the network's containers from each other, or not. A network that
// is not let through the host's firewall has the bridge do it.
func (p *draft) setICC(value string) error {
	on, err := yesNo.parse(value)
	if err != nil {
		return fmt.Errorf("option %s: %w", optICC, err)
	}
	firewall := p.plugin("firewall")
	switch {
	case p.Driver != "bridge" && p.Driver != "ptp":
		return fmt.Errorf("option %s: only drivers bridge and ptp can keep containers apart", optICC)
	case on == true:
		return nil
	case p.Driver == "ptp" && firewall != nil:
		firewall.set("ingressPolicy", "same-bridge") // each container's link counts as a bridge
	case firewall != nil:
		firewall.set("ingressPolicy", "isolated")
	case p.Driver == "bridge":
		p.plugin("bridge").set("portIsolation", true)
	}
	return nil
}

// setHostBinding has ports published at one address of the host alone. As with
// Docker they are then not published on IPv6: no packet goes to "::".
func (p *draft) setHostBinding(value string) error {
	conf := p.plugin("portmap")
	if conf == nil {
		return fmt.Errorf("option %s: a network of driver %s publishes no ports%s", optHostBinding, p.Driver, p.because("portmap"))
	}
	a, err := netip.ParseAddr(value)
	switch {
	case err != nil || !a.Is4():
		return fmt.Errorf("option %s: %q: want an IPv4 address", optHostBinding, value)
	case a.IsUnspecified():
		return nil
	}
	conf.set("backend", "nftables")
	conf.set("conditionsV4", []string{"ip", "daddr", a.String()})
	conf.set("conditionsV6", []string{"ip6", "daddr", "::"})
	return nil
}
