package vxlan

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nft"
)

// A container that could send VXLAN packets would be on every overlay network. So they
// are dropped where they come from containers:
//
//   - with dev, all that come from elsewhere, and all that the host would forward to it;
//   - with local, the interfaces to the other hosts are not known: those from bridges of
//     overlay networks, unless they stay on the bridge.
var (
	table   = nft.Table{Family: nft.Inet, Name: "cni_vxlan"}
	input   = nft.Chain{Table: table, Name: "input", Hook: &nft.Hook{Type: "filter", Num: unix.NF_INET_LOCAL_IN, Priority: -10}}
	forward = nft.Chain{Table: table, Name: "forward", Hook: &nft.Hook{Type: "filter", Num: unix.NF_INET_FORWARD, Priority: -10}}

	ports   = nft.Set{Table: table, Name: "ports", Key: []nft.Type{nft.TypePort}}
	devs    = nft.Set{Table: table, Name: "devs", Key: []nft.Type{nft.TypeName, nft.TypePort}}
	bridges = nft.Set{Table: table, Name: "bridges", Key: []nft.Type{nft.TypeName, nft.TypePort}}
)

// rules look the sets up.
func rules() []nft.Rule {
	const portReg = 4 // behind a name
	load := func(key uint32, set nft.Set, v nft.Verdict) []nft.Expr {
		return []nft.Expr{
			nft.Meta(unix.NFT_META_L4PROTO, 0), nft.Cmp(nft.Equal, 0, []byte{unix.IPPROTO_UDP}),
			nft.Meta(key, 0), nft.Header(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, portReg), nft.InSet(set.Name, 0), nft.Decide(v),
		}
	}
	others := []nft.Expr{
		nft.Meta(unix.NFT_META_L4PROTO, 0), nft.Cmp(nft.Equal, 0, []byte{unix.IPPROTO_UDP}),
		nft.Header(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, 0), nft.InSet(ports.Name, 0), nft.Decide(nft.Drop),
	}
	return []nft.Rule{
		{Chain: input, Exprs: load(unix.NFT_META_IIFNAME, bridges, nft.Drop)},
		{Chain: input, Exprs: load(unix.NFT_META_IIFNAME, devs, nft.Return)},
		{Chain: input, Exprs: others},
		{Chain: forward, Exprs: load(unix.NFT_META_OIFNAME, devs, nft.Drop)},
		{Chain: forward, Exprs: load(unix.NFT_META_OIFNAME, bridges, nft.Return)},
		{Chain: forward, Exprs: load(unix.NFT_META_IIFNAME, bridges, nft.Drop)},
	}
}

func (c *Conf) port() []byte { return binary.BigEndian.AppendUint16(nil, uint16(c.Port)) }

func (c *Conf) key(name string) []byte { return nft.Parts(nft.PadName(name), c.port()) }

// member is an element of one of the sets.
type member struct {
	set nft.Set
	key []byte
}

// guarded are the elements that the rules need for an uplink.
func (c *Conf) guarded(bridge string) []member {
	all := []member{{bridges, c.key(bridge)}}
	if c.Dev != "" {
		all = append(all, member{ports, c.port()}, member{devs, c.key(c.Dev)})
	}
	return all
}

// Guard keeps containers from sending VXLAN packets. It is the uplink's, and stays with it.
func (c *Conf) Guard(ctx context.Context, g gate.Gate, bridge string) error {
	return with(g, func(conn *nft.Conn) error {
		return conn.Update(ctx, "drop VXLAN packets of containers", func(tx *nft.Tx) error {
			have, err := conn.Ruleset(table)
			if err != nil {
				return err
			}
			tx.EnsureTable(table, "CNI vxlan")
			tx.EnsureChain(input)
			tx.EnsureChain(forward)
			for _, s := range []nft.Set{ports, devs, bridges} {
				tx.EnsureSet(s)
			}
			tx.Ensure(have, rules()...)
			for _, e := range c.guarded(bridge) {
				tx.Add(e.set, nft.Elem{Key: e.key})
			}
			return nil
		})
	})
}

// CheckGuard looks for what Guard made.
func (c *Conf) CheckGuard(g gate.Gate, bridge string) error {
	return with(g, func(conn *nft.Conn) error {
		have, err := conn.Ruleset(table)
		if err != nil {
			return err
		}
		missing := cnierr.Check("the rules that drop VXLAN packets of containers on %s are missing (netcleat reconcile restores them)", bridge)
		if have.Lacks(rules()...) != nil {
			return missing
		}
		for _, e := range c.guarded(bridge) {
			found, err := conn.Find(e.set, e.key)
			if err != nil && !nft.Missing(err) {
				return err
			}
			if len(found) == 0 {
				return missing
			}
		}
		return nil
	})
}

// Unguard removes what Guard made for a network without uplink. The port and the
// interface to other hosts stay guarded as long as another network's uplink has them.
func (c *Conf) Unguard(ctx context.Context, g gate.Gate, bridge string, others []Conf) error {
	err := with(g, func(conn *nft.Conn) error {
		return conn.Update(ctx, "end drop of VXLAN packets of "+bridge, func(tx *nft.Tx) error {
			if len(others) == 0 {
				found, err := conn.HasTable(table)
				if found {
					tx.DeleteTable(table)
				}
				return err
			}
			tx.Remove(bridges, nft.Elem{Key: c.key(bridge)})
			if c.Dev == "" {
				return nil
			}
			if !slices.ContainsFunc(others, func(o Conf) bool { return o.Dev == c.Dev && o.Port == c.Port }) {
				tx.Remove(devs, nft.Elem{Key: c.key(c.Dev)})
			}
			if !slices.ContainsFunc(others, func(o Conf) bool { return o.Dev != "" && o.Port == c.Port }) {
				tx.Remove(ports, nft.Elem{Key: c.port()})
			}
			return nil
		})
	})
	if nft.Missing(err) {
		return nil
	}
	return err
}

func with(g gate.Gate, fn func(*nft.Conn) error) error {
	c, err := nft.Dial(nil, g)
	if err == nil && !c.Available() {
		err = errors.Join(cnierr.Newf(cnierr.UnsupportedField, "the kernel lacks nf_tables, by which containers are kept from sending VXLAN packets themselves"), c.Close())
	}
	if err != nil {
		return fmt.Errorf("vxlan: %w", err)
	}
	if err = fn(c); err != nil {
		err = fmt.Errorf("vxlan: %w", err)
	}
	return errors.Join(err, c.Close())
}

// Reconcile restores the rules that the uplink of an attachment's network needs, by
// bridge's record alone.
func Reconcile(ctx context.Context, g gate.Gate, r journal.Record) error {
	conf := struct {
		Bridge string `json:"bridge"`
	}{Bridge: "cni0"}
	c := Of(r.Config)
	if c == nil || json.Unmarshal(r.Config, &conf) != nil || c.CheckGuard(g, conf.Bridge) == nil {
		return nil
	}
	return c.Guard(ctx, g, conf.Bridge)
}
