package clusterd

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// shortage says why a request was not served, and what to do.
func (d *daemon) shortage(net string, r *request) error {
	n := d.network(net)
	switch {
	case d.why != nil:
		return d.why
	case d.state != running:
		return fmt.Errorf("no block is confirmed since the daemon started: %w", cmp.Or(d.lastErr, errors.New("etcd has not answered yet")))
	case d.stopped != "":
		return fmt.Errorf("no block changes hands: %s", d.stopped)
	case d.mute != "":
		return fmt.Errorf("this host's blocks are used up, and etcd does not answer: %w", d.lastErr)
	}
	if r.uplink {
		return fmt.Errorf("the uplink is not programmed: %s", cmp.Or(n.uplink.said, "etcd does not answer"))
	}
	if !r.any && n.layout != nil {
		for _, p := range r.want {
			if s := n.slots[p.Slot]; s != nil && s.owners.Owner(p) != "" && s.owners.Owner(p) != d.host {
				h := s.owners.Owner(p)
				return fmt.Errorf("the address is in a block of host %s, which does not answer: if that host no longer exists, `netcleat cluster release-host %s`", h, h)
			}
		}
	}
	return fmt.Errorf("no free addresses in %d blocks: %s. Use a larger range or, if a host no longer exists, `netcleat cluster release-host HOST`", n.blocks(), n.holders())
}

func (n *network) blocks() uint64 {
	if n.layout == nil {
		return 0
	}
	return n.layout.Slots()
}

// holders says who owns how much, those with the most first.
func (n *network) holders() string {
	sum := map[string]uint64{}
	var hosts []string
	for _, s := range n.slots {
		for h, ps := range s.owners {
			if sum[h] == 0 {
				hosts = append(hosts, h)
			}
			sum[h] += ps.Size()
		}
	}
	slices.SortFunc(hosts, func(a, b string) int {
		if sum[a] != sum[b] {
			return int(min(sum[b], 1<<30)) - int(min(sum[a], 1<<30))
		}
		return strings.Compare(a, b)
	})
	const most = 20
	var parts []string
	for i, h := range hosts {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d hosts more", len(hosts)-most))
			break
		}
		parts = append(parts, fmt.Sprintf("%s owns %d addresses", h, sum[h]))
	}
	return strings.Join(parts, ", ")
}
