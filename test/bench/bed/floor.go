package bed

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// bridgeName is the bridge that floors attach to.
const bridgeName = "cni0"

// floor runs a floor's binary in place of plugins.
type floor struct{ setup Setup }

// run starts the floor once.
func (f floor) run(verb string, a *attachment, start execute) (Cost, error) {
	master := bridgeName
	if f.setup.Kind == "macvlan" {
		master = "up0"
	}
	addresses, gateways, result := f.addresses(a.slot)
	env := []string{
		"VERB=" + verb, "KIND=" + f.setup.Kind, "MASTER=" + master, fmt.Sprintf("HOST=veth%d", a.slot),
		"SANDBOX=" + a.sandbox, "IFNAME=" + f.setup.IfName,
		fmt.Sprintf("MACS=0a5800%06x,0a5801%06x", a.slot, a.slot),
		"ADDRESSES=" + addresses, "GATEWAYS=" + gateways,
	}
	_, cost, err := start(command{path: f.setup.Floor, env: env, errors: true})
	a.result = result
	return cost, err
}

// addresses returns a slot's addresses as the floor reads them, and as a result that can be verified.
func (f floor) addresses(slot int) (string, string, json.RawMessage) {
	var addresses, gateways, ips []string
	for _, network := range f.setup.Nets {
		gateway := network.Addr().Next()
		address := gateway
		for range slot + 1 {
			address = address.Next()
		}
		addresses = append(addresses, fmt.Sprintf("%s/%d", hexadecimal(address), network.Bits()))
		gateways = append(gateways, hexadecimal(gateway))
		ips = append(ips, fmt.Sprintf(`{"address":"%s/%d","gateway":%q}`, address, network.Bits(), gateway))
	}
	result := `{"ips":[` + strings.Join(ips, ",") + `]}`
	return strings.Join(addresses, ","), strings.Join(gateways, ","), json.RawMessage(result)
}

// hexadecimal returns an address' bytes.
func hexadecimal(a netip.Addr) string { return hex.EncodeToString(a.AsSlice()) }
