package clusterd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/pkg/slot"
)

// Define has the cluster make a network on all hosts. It chooses the VNI, which no other
// network gets: both keys are created in one transaction.
func Define(ctx context.Context, s *Settings, d overlay.Definition) (overlay.Definition, error) {
	err := operate(ctx, s, func(e *etcd) error {
		for {
			ok, err := e.define(&d)
			if ok || err != nil {
				return err
			}
		}
	})
	return d, err
}

// define makes one try; another definition at the same time makes it fail.
func (e *etcd) define(d *overlay.Definition) (ok bool, err error) {
	l := e.read()
	if l.err != nil {
		return false, l.err
	}
	taken := map[int]bool{}
	for _, k := range l.keys {
		if n, ok := strings.CutPrefix(k.key, vniKeys); ok {
			vni, _ := strconv.Atoi(n)
			taken[vni] = true
		}
		of, isNet := netKey(k.key)
		switch {
		case k.key == overlayKeys+d.Name:
			return false, fmt.Errorf("network %s: exists in the cluster already", d.Name)
		case isNet && of.net == d.Name && of.part == layoutPart && !fits(d, k.value):
			return false, fmt.Errorf("network %s: hosts have blocks of an earlier network of this name, which had %s: give it these subnets, or another name", d.Name, k.value)
		}
	}
	if d.VNI, err = overlay.FreeVNI(taken); err != nil {
		return false, err
	}
	text, err := d.Text()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(e.life, requestTime)
	defer cancel()
	network, vni := e.prefix+overlayKeys+d.Name, e.prefix+vniKeys+strconv.Itoa(d.VNI)
	r, err := e.client.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(network), "=", 0), clientv3.Compare(clientv3.ModRevision(vni), "=", 0),
	).Then(clientv3.OpPut(network, text), clientv3.OpPut(vni, d.Name)).Commit()
	if err != nil {
		return false, err
	}
	return r.Succeeded, nil
}

// fits reports whether the blocks of an earlier network are of the same subnets.
func fits(d *overlay.Definition, layout string) bool {
	l, err := slot.New(sets(d), 0)
	return err == nil && l.String() == layout
}

func sets(d *overlay.Definition) (all [][]netip.Prefix) {
	for _, s := range d.Subnets {
		all = append(all, []netip.Prefix{s})
	}
	return all
}

// Undefine has the cluster remove a network. Hosts keep it as long as something is
// attached to it.
func Undefine(ctx context.Context, s *Settings, name string) error {
	return operate(ctx, s, func(e *etcd) error {
		ctx, cancel := context.WithTimeout(e.life, requestTime)
		defer cancel()
		key := e.prefix + overlayKeys + name
		r, err := e.client.Get(ctx, key)
		if err != nil {
			return err
		}
		if len(r.Kvs) == 0 {
			return fmt.Errorf("network %s: the cluster has none of this name", name)
		}
		ops := []clientv3.Op{clientv3.OpDelete(key)}
		if d, err := overlay.ParseDefinition(name, string(r.Kvs[0].Value)); err == nil {
			ops = append(ops, clientv3.OpDelete(e.prefix+vniKeys+strconv.Itoa(d.VNI)))
		}
		done, err := e.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", r.Kvs[0].ModRevision)).Then(ops...).Commit()
		if err == nil && !done.Succeeded {
			err = errChanged
		}
		return err
	})
}

// definitions are the networks that the cluster has, as the daemon knows them.
type definitions struct {
	keys    map[string]kv
	maker   maker
	changed bool
	making  bool
	said    map[string]bool // errors that have been logged
}

// maker makes networks on this host, and removes those that it has made and that are
// not among them. It works on its own and calls done.
type maker interface {
	make(all []overlay.Definition, done func(errs []error))
}

// makeTicks is how often networks are looked at although nothing has changed: those
// that something is attached to are removed later.
const makeTicks = 10

// define makes the networks of the cluster on this host.
func (d *daemon) define() {
	x := &d.definitions
	if x.maker == nil || x.making || d.state != running || d.stopped != "" || !x.changed && d.ticks%makeTicks != 0 {
		return
	}
	x.making, x.changed = true, false
	var all []overlay.Definition
	for name, k := range x.keys {
		n, err := overlay.ParseDefinition(name, k.value)
		if err != nil {
			d.sayAll([]error{err})
			n = overlay.Definition{Name: name} // it is not removed either
		}
		all = append(all, n)
	}
	x.maker.make(all, func(errs []error) {
		x.making = false
		d.sayAll(errs)
	})
}

// sayAll logs errors that are new.
func (d *daemon) sayAll(errs []error) {
	for _, err := range errs {
		if text := err.Error(); !d.definitions.said[text] {
			d.definitions.said[text] = true
			d.log.Print(text)
		}
	}
}

// isOverlayName reports whether a key names a network.
func isOverlayName(s string) bool { return slot.IsHost(s) }

var errNoUnderlay = errors.New("cluster.yaml: networkDir and dev: one without the other")
