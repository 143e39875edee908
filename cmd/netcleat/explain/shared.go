package explain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/look"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// host is what is read once for all attachments. What not every attachment needs, workers
// read when the first asks.
type host struct {
	holders map[holding][]show.Row // healthy attachments
	rules   *ruleset.Ruleset
	links   map[int]*nl.Link
	named   map[string]*nl.Link
	neighs  map[neighbour]nl.Neigh
	learnt  map[string][]nl.Neigh // by hardware address: what bridges know of their ports
	look    *look.Look
}

// holding is an address, of the network or of hardware, on a network.
type holding struct{ network, address string }

// neighbour is an address on a link.
type neighbour struct {
	index int
	addr  netip.Addr
}

// newHost reads it. Without the rules, of which the error tells, the rest is there.
func newHost(ctx context.Context, rows []show.Row) (h *host, err error) {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	h = &host{
		holders: map[holding][]show.Row{}, links: map[int]*nl.Link{}, named: map[string]*nl.Link{},
		neighs: map[neighbour]nl.Neigh{}, learnt: map[string][]nl.Neigh{}, look: look.New(),
	}
	all, err := c.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		h.links[l.Index], h.named[l.Name] = l, l
	}
	if err := h.readNeighs(c); err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.Health == show.Healthy {
			for _, a := range append(r.Addresses[:len(r.Addresses):len(r.Addresses)], r.MAC) {
				k := holding{r.Network, a}
				h.holders[k] = append(h.holders[k], r)
			}
		}
	}
	h.rules, err = ruleset.Read(ctx)
	return h, err
}

// readNeighs reads the neighbours of all families.
func (h *host) readNeighs(c *nl.Conn) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		all, err := c.Neighs(family)
		if err != nil {
			return err
		}
		for _, n := range all {
			if family == unix.AF_BRIDGE {
				h.learnt[n.MAC.String()] = append(h.learnt[n.MAC.String()], n)
			} else {
				h.neighs[neighbour{n.Index, n.IP}] = n
			}
		}
	}
	return nil
}

// worker looks at attachments, one after the other.
type worker struct {
	*host
	conn     *nl.Conn // of the host
	evidence *evidence.Judge
}

// workers are how many look at attachments at a time: most of it is waiting for the kernel.
const workers = 4

// start returns n workers, whom the caller ends.
func (h *host) start(n int) (all []*worker, err error) {
	judge, err := evidence.New()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, judge.Close()) }()
	for range n {
		w := &worker{host: h}
		if w.evidence, err = judge.Twin(); err != nil {
			return all, err
		}
		all = append(all, w)
		if w.conn, err = nl.Dial(nil, unix.NETLINK_ROUTE, nil); err != nil {
			return all, err
		}
	}
	return all, nil
}

func (w *worker) end() error {
	err := w.evidence.Close()
	if w.conn != nil {
		err = errors.Join(err, w.conn.Close())
	}
	return err
}

// explain looks at some of the attachments.
func (h *host) explain(ctx context.Context, o Options, rows []show.Row) ([]Report, error) {
	mine := map[string][]show.Row{}
	for _, r := range rows {
		mine[r.Container] = append(mine[r.Container], r)
	}
	all, err := h.start(min(workers, len(rows)))
	errs := make([]error, len(rows))
	reports := make([]Report, len(rows))
	if err == nil {
		var wg sync.WaitGroup
		for n, w := range all {
			wg.Go(func() {
				for i := n; i < len(rows); i += len(all) {
					x := &exam{Options: o, worker: w, row: rows[i], container: mine[rows[i].Container]}
					if err := x.examine(ctx); err != nil {
						errs[i] = fmt.Errorf("%s %s %s: %w", x.row.Network, x.row.Called(), x.row.Interface, err)
					}
					reports[i] = x.report()
				}
			})
		}
		wg.Wait()
	}
	for _, w := range all {
		errs = append(errs, w.end())
	}
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	return reports, errors.Join(errs...)
}

// hostLink returns the host's link of that name, or nil.
func (w *worker) hostLink(name string) *nl.Link { return w.named[name] }

// hostSysctl is the key of one of the host's.
type hostSysctl string

// sysctl returns the value of one of the host's.
func (w *worker) sysctl(key string) (string, error) {
	return look.Once(w.look, hostSysctl(key), func() (string, error) { return sysctl.Get(nil, key) })
}

// hostAddrs returns the addresses of a link of the host.
func (w *worker) hostAddrs(index int) ([]nl.Addr, error) {
	all, err := look.Once(w.look, "addresses", func() (map[int][]nl.Addr, error) {
		all, err := w.conn.Addrs(0)
		byLink := map[int][]nl.Addr{}
		for _, a := range all {
			byLink[a.Index] = append(byLink[a.Index], a)
		}
		return byLink, err
	})
	return all[index], err
}

// hostRules returns the host's routing rules.
func (w *worker) hostRules() ([]nl.Rule, error) {
	return look.Once(w.look, "routing rules", w.conn.Rules)
}

// toWorld returns the host's route to the world in the family of an address.
func (w *worker) toWorld(a netip.Addr) (nl.Route, error) {
	to := worldOf(a)
	return look.Once(w.look, to, func() (nl.Route, error) { return w.conn.RouteTo(to) })
}
