package dnsd

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Status is what the daemon says of itself.
type Status struct {
	Started   time.Time `json:"started"`
	Networks  []Network `json:"networks"`
	Queries   uint64    `json:"queries"`
	Answered  uint64    `json:"answered"`
	Forwarded uint64    `json:"forwarded"`
	Failed    uint64    `json:"failed"`  // forwarded, and no server answered
	Refused   uint64    `json:"refused"` // unknown askers, and those without a way out
	Dropped   uint64    `json:"dropped"` // not a query, or beyond an asker's bound
	Upstreams []Server  `json:"upstreams"`
}

// Network is one network's names.
type Network struct {
	Name     string       `json:"name"`
	Gateways []Gateway    `json:"gateways"`
	Domains  []string     `json:"domains,omitempty"`
	Names    []NameStatus `json:"names"` // those of other hosts among them
	Remote   []Host       `json:"remote,omitempty"`
}

// Host is another host that has containers on the network.
type Host struct {
	Name       string `json:"name"`
	Containers int    `json:"containers"`
}

// Gateway is an address that the daemon listens at.
type Gateway struct {
	Address netip.Addr `json:"address"`
	Problem string     `json:"problem,omitempty"` // why nothing answers there
}

// NameStatus is a name with what it is answered with.
type NameStatus struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
}

// Server is an upstream server.
type Server struct {
	Address  netip.AddrPort `json:"address"`
	Failures int            `json:"failures"`
	Down     bool           `json:"down,omitempty"` // it did not answer lately
}

func (s *server) status() (string, error) {
	st := Status{
		Started: s.started, Queries: s.stats.queries.Load(), Answered: s.stats.answered.Load(), Forwarded: s.stats.forwarded.Load(),
		Failed: s.stats.failed.Load(), Refused: s.stats.refused.Load(), Dropped: s.stats.dropped.Load(),
		Networks: s.networks(), Upstreams: s.upstreams.status(),
	}
	b, err := json.Marshal(st)
	return string(b) + "\n", err
}

// networks lists all names. What listens is asked when the book is free again: who
// asks for a name does not wait for it.
func (s *server) networks() []Network {
	list := s.book.list()
	for _, n := range list {
		for i, g := range n.Gateways {
			if err := s.doors.problem(g.Address); err != nil {
				n.Gateways[i].Problem = err.Error()
			}
		}
	}
	return list
}

func (b *book) list() []Network {
	b.mu.RLock()
	defer b.mu.RUnlock()
	list := []Network{}
	for _, key := range slices.Sorted(maps.Keys(b.networks)) {
		n := b.networks[key]
		out := Network{Name: n.name, Domains: slices.Sorted(maps.Keys(n.domains)), Gateways: []Gateway{}, Names: []NameStatus{}, Remote: b.remotes[key].status()}
		seen := map[netip.Addr]bool{}
		for _, e := range n.byAddr {
			for _, gw := range e.Gateways {
				seen[gw] = true
			}
		}
		for _, gw := range slices.SortedFunc(maps.Keys(seen), netip.Addr.Compare) {
			out.Gateways = append(out.Gateways, Gateway{Address: gw})
		}
		for _, text := range slices.Sorted(maps.Keys(n.names)) {
			out.Names = append(out.Names, NameStatus{text, slices.Concat(n.names[text].v4, n.names[text].v6)})
		}
		list = append(list, out)
	}
	return list
}

func (u *upstreams) status() []Server {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refresh()
	list := []Server{}
	add := func(at netip.AddrPort) {
		if !slices.ContainsFunc(list, func(s Server) bool { return s.Address == at }) {
			list = append(list, Server{Address: at, Failures: u.failures[at], Down: u.rank(at) > 0})
		}
	}
	for _, at := range u.hosts {
		add(at)
	}
	for _, at := range slices.SortedFunc(maps.Keys(u.failures), netip.AddrPort.Compare) {
		add(at)
	}
	return list
}

// ReadStatus reads what the daemon answered.
func ReadStatus(text string) (st Status, err error) {
	err = json.Unmarshal([]byte(text), &st)
	return st, err
}
