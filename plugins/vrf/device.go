package vrf

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
)

const (
	kind      = "vrf"
	attrTable = 1 // IFLA_VRF_TABLE
	// alias marks a VRF that this plugin made: the last DEL removes that one, and
	// not one that somebody else put into the sandbox.
	alias = "netcleat vrf"
)

// device is a VRF.
type device struct {
	Name  string
	Index int
	Table uint32
	Ours  bool
}

// find returns the VRF of that name. Where there is none, the error satisfies
// nl.NotFound.
func find(sandbox *nl.Conn, name string) (device, error) {
	l, err := sandbox.LinkByName(name)
	if err != nil {
		return device{}, err
	}
	if l.Kind != kind {
		return device{}, cnierr.Config("Netlink %s is not a VRF", name)
	}
	return device{Name: name, Index: l.Index, Table: tableOf(l), Ours: l.Alias == alias}, nil
}

func tableOf(l *nl.Link) (table uint32) {
	nl.Attrs(l.Info, func(typ uint16, d []byte) {
		if typ == attrTable {
			table = nl.Uint32(d)
		}
	})
	return table
}

// create makes the VRF, up, and takes it back where it cannot be looked at.
func create(sandbox *nl.Conn, name string, table uint32) (device, error) {
	m := nl.NewLink(kind, name, unix.IFF_UP)
	m.Begin(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, kind).Begin(unix.IFLA_INFO_DATA).Uint32(attrTable, table).End().End()
	err := sandbox.Do(m)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return device{}, cnierr.With(cnierr.UnsupportedField, fmt.Errorf("%w: the kernel lacks vrf", err))
	}
	if err != nil {
		return device{}, fmt.Errorf("could not add VRF %s: %w", name, err)
	}
	err = sandbox.Do(nl.SetLinkByName("name the maker of "+name, name).String(unix.IFLA_IFALIAS, alias))
	var d device
	if err == nil {
		d, err = find(sandbox, name)
	}
	if err != nil {
		return d, errors.Join(err, sandbox.Do(nl.DelLinkName(name)))
	}
	return d, nil
}

// freeTable returns a routing table that no VRF, rule or route uses. It leaves
// out those from 100 on that sbr takes, and 253 to 255, which the kernel has.
func freeTable(links []*nl.Link, rules []nl.Rule, routes []nl.Route) uint32 {
	used := map[uint32]bool{}
	for _, l := range links {
		if l.Kind == kind {
			used[tableOf(l)] = true
		}
	}
	for _, r := range rules {
		used[r.Table] = true
	}
	for _, r := range routes {
		used[r.Table] = true
	}
	const sbrFrom, sbrUntil = 100, 1000
	table := uint32(1)
	for used[table] {
		if table++; table == sbrFrom {
			table = sbrUntil
		}
	}
	return table
}

// members returns how many links are in the VRF.
func members(sandbox *nl.Conn, d device) (n int, err error) {
	links, err := sandbox.Links()
	for _, l := range links {
		if l.Master == d.Index {
			n++
		}
	}
	return n, err
}
