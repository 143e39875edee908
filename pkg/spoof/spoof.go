// Package spoof holds a bridge's ports to the hardware address that they were
// given (macspoofchk).
//
// All ports share two sets of one bridge-family table and the two rules that
// look them up, so that a frame costs the same with any number of ports.
package spoof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// Port is a port of a bridge. Name is its host end's; the others say whose it is,
// by which what the reference left for it is found.
type Port struct {
	Name        string
	ContainerID string
	IfName      string
}

var (
	table   = nft.Table{Family: nft.Bridge, Name: "cni_spoofcheck"}
	hook    = nft.Chain{Table: table, Name: "prerouting", Hook: &nft.Hook{Type: "filter", Num: 0, Priority: -300}}
	allowed = nft.Set{Table: table, Name: "allowed", Key: []nft.Type{nft.TypeName, nft.TypeEther}}
	checked = nft.Set{Table: table, Name: "checked", Key: []nft.Type{nft.TypeName}}

	// The reference's place.
	natHook = nft.Chain{Table: nft.Table{Family: nft.Bridge, Name: "nat"}, Name: "PREROUTING"}
)

func pair(name string, mac net.HardwareAddr) []byte { return nft.Parts(nft.PadName(name), mac) }

// Add drops what the port sends from another hardware address than mac. undo
// takes that back.
func Add(ctx context.Context, g gate.Gate, p Port, mac net.HardwareAddr) (undo func() error, err error) {
	undo = func() error { return Del(context.WithoutCancel(ctx), g, p) }
	if len(mac) != 6 {
		return undo, cnierr.Config("macspoofchk: hardware address %q: want six bytes", mac)
	}
	return undo, with(g, func(c *nft.Conn) error {
		return c.Update(ctx, "check hardware addresses of "+p.Name, func(tx *nft.Tx) error { return p.add(c, tx, mac) })
	})
}

func with(g gate.Gate, fn func(*nft.Conn) error) error {
	c, err := nft.Dial(nil, g)
	return use(c, err, fn)
}

// use runs fn with a socket that was opened, and closes it.
func use(c *nft.Conn, err error, fn func(*nft.Conn) error) error {
	if err != nil {
		return fmt.Errorf("macspoofchk: %w", err)
	}
	if err = fn(c); err != nil {
		err = fmt.Errorf("macspoofchk: %w", err)
	}
	return errors.Join(err, c.Close())
}

func (p Port) add(c *nft.Conn, tx *nft.Tx, mac net.HardwareAddr) error {
	have, err := c.Ruleset(table)
	if err != nil {
		return err
	}
	if have.Lacks(rules()...) != nil {
		tx.EnsureTable(table, "CNI macspoofchk")
		tx.EnsureChain(hook)
		tx.EnsureSet(allowed)
		tx.EnsureSet(checked)
		tx.Ensure(have, rules()...)
	}
	if err := p.forget(c, tx); err != nil {
		return err
	}
	tx.Add(allowed, nft.Elem{Key: pair(p.Name, mac)})
	tx.Add(checked, nft.Elem{Key: nft.PadName(p.Name), Comment: mac.String() + " " + journal.Cut(p.ContainerID, 100)})
	return nil
}

// rules look the sets up.
func rules() []nft.Rule {
	name, addr := nft.Meta(unix.NFT_META_IIFNAME, 0), nft.Header(unix.NFT_PAYLOAD_LL_HEADER, 6, 6, 4)
	return []nft.Rule{
		{Chain: hook, Exprs: []nft.Expr{name, addr, nft.InSet(allowed.Name, 0), nft.Decide(nft.Return)}},
		{Chain: hook, Exprs: []nft.Expr{name, nft.InSet(checked.Name, 0), nft.Decide(nft.Drop)}},
	}
}

// forget removes the port's elements. Its address is in the comment of the one
// that is found by name.
func (p Port) forget(c *nft.Conn, tx *nft.Tx) error {
	found, err := c.Find(checked, nft.PadName(p.Name))
	if err != nil {
		return err
	}
	for _, e := range found {
		tx.Remove(checked, nft.Elem{Key: e.Key})
		mac, err := net.ParseMAC(e.Comment[:min(len(e.Comment), 17)])
		if err != nil {
			continue
		}
		also, err := c.Find(allowed, pair(p.Name, mac))
		if err != nil {
			return err
		}
		for _, e := range also {
			tx.Remove(allowed, nft.Elem{Key: e.Key})
		}
	}
	return nil
}

// Del ends the check of a port, ours or the reference's, and removes the table
// after the last. It needs neither the link nor its address.
func Del(ctx context.Context, g gate.Gate, p Port) error {
	err := with(g, func(c *nft.Conn) error {
		return c.Update(ctx, "end check of "+p.Name, func(tx *nft.Tx) error {
			return errors.Join(p.del(c, tx), p.delReference(c, tx))
		})
	})
	if nft.Missing(err) {
		return nil
	}
	return err
}

func (p Port) del(c *nft.Conn, tx *nft.Tx) error {
	if err := p.forget(c, tx); err != nil || tx.Empty() {
		return err
	}
	all, err := c.Elements(checked)
	if err != nil {
		return err
	}
	// A set that shrinks just then may tell of an element twice.
	if !slices.ContainsFunc(all, func(e nft.Elem) bool { return !slices.Equal(e.Key, nft.PadName(p.Name)) }) {
		tx.DeleteTable(table)
	}
	return nil
}

// delReference removes the reference's rule and chains for the attachment.
func (p Port) delReference(c *nft.Conn, tx *nft.Tx) error {
	first := nft.Chain{Table: natHook.Table, Name: "cni-br-iface-" + p.ContainerID + "-" + p.IfName}
	macs := nft.Chain{Table: natHook.Table, Name: first.Name + "-mac"}
	info, err := c.GetChain(first)
	if err != nil || info == nil || p.ContainerID == "" {
		return err
	}
	if err := c.DropChain(tx, first, natHook, nil); err != nil {
		return err
	}
	info, err = c.GetChain(macs)
	if err != nil || info == nil {
		return err
	}
	tx.FlushChain(macs)
	tx.DeleteChain(macs)
	return nil
}

// Reconcile restores the check of an attachment's port, by bridge's record alone.
func Reconcile(ctx context.Context, g gate.Gate, r journal.Record) error {
	var conf struct {
		MACSpoofCheck bool `json:"macspoofchk"`
	}
	if json.Unmarshal(r.Config, &conf) != nil || !conf.MACSpoofCheck {
		return nil
	}
	p, addr := Port{ContainerID: r.ContainerID, IfName: r.IfName}, ""
	for _, l := range r.Links {
		if l.Sandbox {
			addr = l.MAC
		} else {
			p.Name = l.Name
		}
	}
	mac, err := net.ParseMAC(addr)
	if err != nil || p.Name == "" {
		return fmt.Errorf("macspoofchk: the record does not say the port's name and address (%q, %q)", p.Name, addr)
	}
	if Check(ctx, p, mac) == nil {
		return nil
	}
	_, err = Add(ctx, g, p, mac)
	return err
}

// Check looks for the port's elements and for the rules that use them.
func Check(ctx context.Context, p Port, mac net.HardwareAddr) error {
	c, err := nft.Look(ctx)
	return use(c, err, func(c *nft.Conn) error {
		have, err := c.Ruleset(table)
		if err != nil {
			return err
		}
		guarded, err := c.Find(checked, nft.PadName(p.Name))
		if err != nil {
			return err
		}
		free, err := c.Find(allowed, pair(p.Name, mac))
		if err != nil {
			return err
		}
		if have.Lacks(rules()...) != nil || len(guarded) == 0 || len(free) == 0 {
			return cnierr.Check("the check of hardware address %s on %s is missing (netcleat reconcile restores it)", mac, p.Name)
		}
		return nil
	})
}
