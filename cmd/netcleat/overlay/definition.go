package overlay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
)

// Definition is an overlay network as the cluster has it: nothing else of a network can
// be said there, since every host makes it.
type Definition struct {
	Name     string         `json:"-"`
	VNI      int            `json:"vni"`
	Subnets  []netip.Prefix `json:"subnets"`  // one of each family
	Gateways []netip.Addr   `json:"gateways"` // one of each subnet
	MTU      int            `json:"mtu,omitempty"`
	Internal bool           `json:"internal,omitempty"`
	Names    bool           `json:"names,omitempty"` // containers find each other by name
}

// Bounds of what is read.
const (
	maxDefinition = 4096
	firstVNI      = 4096 // those below are the operator's
	lastVNI       = 1<<24 - 1
	minMTU        = 576
	maxMTU        = 65535
)

// maxName leaves room in the names of files that are made of the network's.
const maxName = 200

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// ParseDefinition reads what the cluster says of a network. Whoever can write there
// cannot say more than a Definition holds.
func ParseDefinition(name, text string) (d Definition, err error) {
	if len(text) > maxDefinition {
		return d, fmt.Errorf("network %.50q: its definition is longer than %d bytes", name, maxDefinition)
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, fmt.Errorf("network %.50q: %w", name, err)
	}
	d.Name = name
	return d, d.Check()
}

// Check returns why the network cannot be.
func (d *Definition) Check() error {
	switch {
	case !nameForm.MatchString(d.Name) || len(d.Name) > maxName:
		return fmt.Errorf("network %.50q: not a name", d.Name)
	case d.VNI < firstVNI || d.VNI > lastVNI:
		return fmt.Errorf("network %s: vni %d: not from %d to %d", d.Name, d.VNI, firstVNI, lastVNI)
	case d.MTU != 0 && (d.MTU < minMTU || d.MTU > maxMTU):
		return fmt.Errorf("network %s: mtu %d: not from %d to %d", d.Name, d.MTU, minMTU, maxMTU)
	case len(d.Subnets) == 0 || len(d.Subnets) > 2:
		return fmt.Errorf("network %s: want one subnet, or one of each family", d.Name)
	case len(d.Subnets) == 2 && d.Subnets[0].Addr().Is4() == d.Subnets[1].Addr().Is4():
		return fmt.Errorf("network %s: subnets %s and %s are of one family", d.Name, d.Subnets[0], d.Subnets[1])
	case len(d.Gateways) != len(d.Subnets):
		return fmt.Errorf("network %s: want one gateway of each subnet", d.Name)
	}
	for i, s := range d.Subnets {
		switch {
		case !s.IsValid() || s.Masked() != s || s.Addr().Is4In6() || s.Bits() > s.Addr().BitLen()-3 || s.Bits() < 8:
			return fmt.Errorf("network %s: subnet %s", d.Name, s)
		case s.Addr().IsMulticast() || s.Addr().IsLoopback() || s.Addr().IsLinkLocalUnicast() || s.Addr().IsUnspecified():
			return fmt.Errorf("network %s: subnet %s: containers cannot have its addresses", d.Name, s)
		case !s.Contains(d.Gateways[i]) || d.Gateways[i] == s.Addr():
			return fmt.Errorf("network %s: gateway %s: is no host of %s", d.Name, d.Gateways[i], s)
		}
	}
	return nil
}

// Text is what the cluster stores.
func (d *Definition) Text() (string, error) {
	if err := d.Check(); err != nil {
		return "", err
	}
	b, err := json.Marshal(d)
	if len(b) > maxDefinition {
		err = errors.New("definition too long")
	}
	return string(b), err
}

// FreeVNI returns the lowest one that is not taken.
func FreeVNI(taken map[int]bool) (int, error) {
	for n := firstVNI; n <= lastVNI; n++ {
		if !taken[n] {
			return n, nil
		}
	}
	return 0, errors.New("no VNI is free")
}
