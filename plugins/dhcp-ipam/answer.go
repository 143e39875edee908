package dhcp

import (
	"bufio"
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// decodeAnswer reads the two values that answer a call: net/rpc's Response and
// the method's result.
func decodeAnswer(in *bufio.Reader) (*current.Result, error) {
	r := newGobReader(in)
	head, err := r.next()
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	body, err := r.next()
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	if msg := field[string](head, "Error"); msg != "" {
		return nil, serverError(msg)
	}
	return result(body), nil
}

// field returns a struct's field, or the zero value where it is absent or of
// another type.
func field[T any](v any, name string) T {
	m, _ := v.(map[string]any)
	f, _ := m[name].(T)
	return f
}

// result builds the result from what was read.
func result(v any) *current.Result {
	res := &current.Result{CNIVersion: current.ImplementedSpecVersion}
	for _, ip := range field[[]any](v, "IPs") {
		res.IPs = append(res.IPs, &current.IPConfig{
			Address: ipnet(field[map[string]any](ip, "Address")), Gateway: field[[]byte](ip, "Gateway"),
		})
	}
	for _, r := range field[[]any](v, "Routes") {
		res.Routes = append(res.Routes, &types.Route{
			Dst: ipnet(field[map[string]any](r, "Dst")), GW: field[[]byte](r, "GW"),
			MTU: int(field[int64](r, "MTU")), AdvMSS: int(field[int64](r, "AdvMSS")), Priority: int(field[int64](r, "Priority")),
			Table: number(r, "Table"), Scope: number(r, "Scope"),
		})
	}
	dns := field[map[string]any](v, "DNS")
	res.DNS = types.DNS{Nameservers: texts(dns, "Nameservers"), Domain: field[string](dns, "Domain"), Search: texts(dns, "Search")}
	return res
}

func ipnet(v map[string]any) net.IPNet {
	return net.IPNet{IP: field[[]byte](v, "IP"), Mask: field[[]byte](v, "Mask")}
}

// number returns a field that is a pointer to a number; gob sends what it points
// to, and nothing for a nil one.
func number(v any, name string) *int {
	n := int(field[int64](v, name))
	if n == 0 {
		return nil
	}
	return &n
}

func texts(v any, name string) (all []string) {
	for _, s := range field[[]any](v, name) {
		if s, ok := s.(string); ok {
			all = append(all, s)
		}
	}
	return all
}
