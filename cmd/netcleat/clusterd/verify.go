package clusterd

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"slices"

	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/pkg/journal"
)

// Difference is one between what this host forwards and what etcd says.
type Difference struct {
	What string
	// Others says that it is between hosts: what this host's daemon does at its start does
	// not repair it.
	Others bool
}

// String returns what differs.
func (d Difference) String() string { return d.What }

// Verify compares what this host's uplinks forward with what etcd says.
func Verify(ctx context.Context, s *Settings) (differences []Difference, err error) {
	err = operate(ctx, s, func(e *etcd) error {
		l := e.read()
		if l.err != nil {
			return l.err
		}
		differences, err = verify(s, l)
		return err
	})
	return differences, err
}

func verify(s *Settings, l listing) (all []Difference, err error) {
	f := &files{dir: s.StateDir, journal: journal.Default, note: func(format string, args ...any) { all = append(all, differs(format, args...)) }}
	d := newDaemon(identity{host: s.Host}, nil, f, log.New(lines{&all}, "", 0))
	for _, k := range l.keys {
		d.learn(k.key, k, l.rev)
	}
	k, err := openKernel()
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	if d.namer, err = openRegistry(f.journal, nil); err != nil {
		return all, err
	}
	for _, p := range f.registered() {
		if p.Overlay == nil {
			continue
		}
		n := d.network(p.Name)
		n.conf = p
		all = append(all, d.verify(k, n)...)
		all = append(all, d.verifyNames(n)...)
	}
	return all, nil
}

// verifyNames compares the names of this host's containers.
func (d *daemon) verifyNames(n *network) []Difference {
	d.readNames(n)
	missing, extra := 0, len(n.naming.keys[d.host])
	for id, text := range n.naming.wanted() {
		if k, there := n.naming.keys[d.host][id]; !there {
			missing++
		} else if k.value == text {
			extra--
		}
	}
	if missing+extra == 0 {
		return nil
	}
	return []Difference{differs("network %s: etcd lacks the names of %d containers of this host, and has %d that are not so", n.name, missing, extra)}
}

// verify compares one network.
func (d *daemon) verify(k *kernel, n *network) (all []Difference) {
	if n.layout == nil {
		return nil
	}
	if t, err := parseTunnel(n.uplink.tunnels[d.host].value); err == nil {
		n.uplink.here = t.addr
	}
	s, err := overlay.Compare(k.conn, d.overlay(n))
	switch {
	case errors.Is(err, overlay.ErrNoUplink):
		return nil // nothing is attached since the boot
	case err != nil:
		return []Difference{differs("network %s: %v", n.name, err)}
	case s.Missing+s.Extra > 0:
		all = append(all, differs("network %s: of the entries that forward to other hosts, %d are missing and %d should not be there", n.name, s.Missing, s.Extra))
	}
	if s.Host != n.uplink.here {
		all = append(all, differs("network %s: this host is at %s, and etcd says %s", n.name, s.Host, n.uplink.here))
	}
	return append(all, sameAddress(n)...)
}

// sameAddress finds hosts that say they are at one address.
func sameAddress(n *network) (all []Difference) {
	by := map[string]string{}
	for _, h := range slices.Sorted(maps.Keys(n.uplink.tunnels)) {
		t, err := parseTunnel(n.uplink.tunnels[h].value)
		if err != nil {
			continue
		}
		a := t.addr.String()
		if o := by[a]; o != "" {
			all = append(all, Difference{fmt.Sprintf("network %s: hosts %s and %s are both at %s", n.name, o, h, a), true})
		}
		by[a] = h
	}
	return all
}

func differs(format string, args ...any) Difference {
	return Difference{What: fmt.Sprintf(format, args...)}
}

// lines takes what is logged: of hosts that are not reached.
type lines struct{ all *[]Difference }

func (l lines) Write(b []byte) (int, error) {
	*l.all = append(*l.all, Difference{string(b[:max(0, len(b)-1)]), true})
	return len(b), nil
}
