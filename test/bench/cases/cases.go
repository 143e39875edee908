// Package cases is the table of what the benchmark measures: data, and the little that turns a row into a list.
package cases

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"text/template"

	"github.com/netcleat/netcleat/test/bench/bed"
)

// Case is one row: a list, and what is measured with it.
type Case struct {
	Name     string
	List     string   // a network list; {{.}} in it stands for the backend, which is empty unless Backends says more
	Verbs    []string // in the order of a container's life
	Backends []string // of the reference, each a contender; others decide for themselves
	IfName   string   // eth0 unless set
	Kind     string   // what the floor makes; nothing: it starts and ends
	Nets     []string // the addresses that List hands out
	Ports    int      // published by each attachment
	Leases   int      // held by others
	Proof    bed.Proof
	Timed    []string // the plugins whose calls are measured, all where it is empty

	Others   int   // containers that are there before
	Attached bool  // there are as many as the -attached flag says
	Levels   []int // measured so many at a time, instead of one by one
	Connect  bool  // what is measured is the rate of connections, with no others and with OtherPorts ports
}

// OtherPorts is how many ports others publish where connections are measured, PortsEach by a container.
const (
	OtherPorts = 1000
	PortsEach  = 10
)

// Rendered returns the list for a backend.
func (c Case) Rendered(backend string) (json.RawMessage, error) {
	t, err := template.New(c.Name).Parse(c.List)
	if err != nil {
		return nil, fmt.Errorf("case %s: %w", c.Name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, backend); err != nil {
		return nil, fmt.Errorf("case %s: %w", c.Name, err)
	}
	if !json.Valid(b.Bytes()) {
		return nil, fmt.Errorf("case %s: list is not JSON: %s", c.Name, b.Bytes())
	}
	return b.Bytes(), nil
}

// Setup returns what a bed for this case has in common for all contenders.
func (c Case) Setup(backend string) (bed.Setup, error) {
	list, err := c.Rendered(backend)
	if err != nil {
		return bed.Setup{}, err
	}
	s := bed.Setup{List: list, IfName: "eth0", IDs: "bench-%d-%d", Kind: c.Kind, Ports: c.Ports, Leases: c.Leases, Timed: c.Timed, Proof: c.Proof}
	if bytes.Contains(list, []byte(`"nerdctlID"`)) {
		s.IDs = "default-%032x%032x" // as nerdctl makes them
	}
	if c.IfName != "" {
		s.IfName = c.IfName
	}
	for _, n := range c.Nets {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return bed.Setup{}, fmt.Errorf("case %s: %w", c.Name, err)
		}
		s.Nets = append(s.Nets, p)
	}
	return s, nil
}
