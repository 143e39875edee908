package clusterd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/pkg/slot"
)

// Report is the state of the cluster as etcd has it.
type Report struct {
	Revision int64           `json:"revision"`
	Stopped  string          `json:"stopped,omitempty"`
	Hosts    []HostReport    `json:"hosts"`
	Networks []NetworkReport `json:"networks"`
}

// HostReport is a host.
type HostReport struct {
	Name    string `json:"name"`
	Session string `json:"session"` // "" of a host that owns blocks and has no key
	State   string `json:"state"`   // registered, releasing, removed, unknown, or reset
}

// NetworkReport is a network.
type NetworkReport struct {
	Name   string        `json:"name"`
	Layout string        `json:"layout"`
	Slots  uint64        `json:"slots"`
	Owners []OwnerReport `json:"owners"`
	Errors []string      `json:"errors,omitempty"` // keys that cannot be read
}

// OwnerReport is what a host has of a network.
type OwnerReport struct {
	Host   string   `json:"host"`
	Owned  uint64   `json:"owned"`           // addresses of each range set
	Blocks []string `json:"blocks"`          // of the first range set
	Short  string   `json:"short,omitempty"` // what it is short of
	VTEP   string   `json:"vtep,omitempty"`  // where it is reached, on an overlay network
	Named  int      `json:"named,omitempty"` // containers that others know the names of
}

// Status reads the state of the cluster.
func Status(ctx context.Context, s *Settings) (r *Report, err error) {
	err = operate(ctx, s, func(e *etcd) error {
		l := e.read()
		if l.err == nil {
			r = report(l)
		}
		return l.err
	})
	return r, err
}

// Others returns what the hosts but one have of a network.
func (r *Report) Others(host, network string) (all []OwnerReport) {
	for _, n := range r.Networks {
		for _, o := range n.Owners {
			if n.Name == network && o.Host != host {
				all = append(all, o)
			}
		}
	}
	return all
}

// operate runs fn on the store.
func operate(ctx context.Context, s *Settings, fn func(*etcd) error) (err error) {
	client, err := dial(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreCancel(client.Close())) }()
	return fn(s.store(ctx, client, func(fn func()) { fn() }))
}

// ReleaseHost gives back what a host owns, and returns the number of addresses.
func ReleaseHost(ctx context.Context, s *Settings, host string) (freed uint64, err error) {
	if !slot.IsHost(host) {
		return 0, fmt.Errorf("host %q: not a name", host)
	}
	err = operate(ctx, s, func(e *etcd) error {
		done := make(chan error, 1)
		r := &release{store: e, host: host, done: func(n uint64, err error) {
			freed = n
			done <- err
		}}
		r.begin()
		return <-done
	})
	return freed, err
}

func report(l listing) *Report {
	d := &daemon{nets: map[string]*network{}, hosts: map[string]kv{}, status: map[string]kv{}, dirty: map[string]bool{}}
	r := &Report{Revision: l.rev}
	for _, k := range l.keys {
		d.learn(k.key, k, l.rev)
	}
	r.Stopped = d.stopped
	known := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(d.nets)) {
		r.Networks = append(r.Networks, d.nets[name].report(known))
	}
	for h, k := range d.hosts {
		known[h] = true
		state := "registered"
		switch k.value {
		case releasedSession:
			state = "releasing"
		case resetSession:
			state = "reset: has not adopted its blocks yet"
		case removedSession:
			if !known[h] {
				continue
			}
			state = "removed"
		}
		r.Hosts = append(r.Hosts, HostReport{h, k.value, state})
		delete(known, h)
	}
	for h := range known {
		r.Hosts = append(r.Hosts, HostReport{Name: h, State: "unknown"})
	}
	slices.SortFunc(r.Hosts, func(a, b HostReport) int { return strings.Compare(a.Name, b.Name) })
	return r
}

func (n *network) report(known map[string]bool) NetworkReport {
	r := NetworkReport{Name: n.name}
	if n.layout == nil {
		r.Errors = append(r.Errors, "layout: missing or unreadable")
		return r
	}
	r.Layout, r.Slots = n.layout.String(), n.layout.Slots()
	owners := map[string]*OwnerReport{}
	of := func(h string) *OwnerReport {
		if owners[h] == nil {
			owners[h] = &OwnerReport{Host: h}
			known[h] = true
		}
		return owners[h]
	}
	for _, i := range slices.Sorted(maps.Keys(n.slots)) {
		if err := n.slots[i].bad; err != nil {
			r.Errors = append(r.Errors, err.Error())
		}
		for h, ps := range n.slots[i].owners {
			o := of(h)
			o.Owned += ps.Size()
			for _, p := range ps {
				o.Blocks = append(o.Blocks, n.layout.Prefix(0, p).String())
			}
		}
	}
	for h, k := range n.needs {
		of(h).Short = "any address"
		if x, err := parseNeed(k.value); err == nil && !x.any {
			of(h).Short = n.layout.Prefix(0, slot.Part{Slot: x.at.Slot, Off: x.at.Off}).Addr().String()
		}
	}
	for h, k := range n.uplink.tunnels {
		if t, err := parseTunnel(k.value); err == nil {
			of(h).VTEP = t.addr.String()
		}
	}
	for h, ids := range n.naming.keys {
		of(h).Named = len(ids)
	}
	for _, h := range slices.Sorted(maps.Keys(owners)) {
		r.Owners = append(r.Owners, *owners[h])
	}
	return r
}

// Print prints the report: a table, or JSON.
func (r *Report) Print(w io.Writer, format string) error {
	if format == "json" {
		return term.JSON(w, r)
	}
	if r.Stopped != "" {
		fmt.Fprintf(w, "STOPPED: %s\n", r.Stopped)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "HOST\tSTATE")
	for _, h := range r.Hosts {
		fmt.Fprintf(t, "%s\t%s\n", h.Name, h.State)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "NETWORK\tHOST\tADDRESSES\tBLOCKS\tVTEP\tNAMED\tSHORT OF")
	for _, n := range r.Networks {
		for _, o := range n.Owners {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%d\t%s\n", n.Name, o.Host, o.Owned, term.Brief(o.Blocks), o.VTEP, o.Named, o.Short)
		}
		for _, e := range n.Errors {
			fmt.Fprintf(t, "%s\t\t\t%s\t\t\t\n", n.Name, e)
		}
	}
	return t.Flush()
}
