package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// cluster looks at the networks of cluster-local: whether the daemon listens, and
// whether this host owns the addresses that its containers have.
func (e *exam) cluster(ctx context.Context) {
	for _, n := range e.networks {
		if n.IPAM.Driver != "cluster-local" || len(n.Options) == 0 {
			continue
		}
		if err := e.blocksOf(ctx, n); err != nil {
			e.broken(err)
		}
	}
}

// blocksOf looks at one network.
func (e *exam) blocksOf(ctx context.Context, n show.Network) error {
	pool, sock, err := poolOf(n)
	if err != nil {
		return err
	}
	if err := sock.Reachable(); err != nil {
		e.add(finding.Problem, finding.Run("systemctl start netcleat-cluster"), "network %s: the cluster daemon does not listen: %v", n.Name, err)
	}
	parts, err := clusterlocal.ReadBlocks(string(e.Journal), pool)
	if err != nil {
		e.add(finding.Problem, finding.Do("the log of the cluster daemon says why: journalctl -u netcleat-cluster"), "network %s: %v", n.Name, err)
		return nil
	}
	return e.unowned(ctx, n, pool, parts)
}

// unowned looks for leases of addresses that are in no block of this host: an operator
// has released them while containers had them.
func (e *exam) unowned(ctx context.Context, n show.Network, pool *clusterlocal.Pool, parts slot.Parts) error {
	all, exists, err := e.held(ctx, n)
	if !exists || err != nil {
		return err
	}
	for _, l := range all {
		p, ok := pool.Find(l.Addr)
		if l.Foreign || ok && parts.Contain(p) {
			continue
		}
		e.add(finding.Problem, finding.Do("restart the container: it gets another address"),
			"network %s: container %s %s has %s, which this host does not own any more: another host may give it to a container", n.Name, l.Owner.ContainerID, l.Owner.IfName, l.Addr)
	}
	e.add(finding.Fine, nothing, "network %s: this host owns %d addresses of each range", n.Name, parts.Size())
	return nil
}

// poolOf reads the network as the plugin does.
func poolOf(n show.Network) (*clusterlocal.Pool, clusterlocal.Socket, error) {
	var conf map[string]json.RawMessage
	var ipam struct {
		IPAM struct {
			Socket clusterlocal.Socket `json:"daemonSocketPath"`
		} `json:"ipam"`
	}
	if err := errors.Join(json.Unmarshal(n.Options[0], &conf), json.Unmarshal(n.Options[0], &ipam)); err != nil {
		return nil, "", err
	}
	for key, value := range map[string]string{"name": n.Name, "cniVersion": cmp.Or(n.CNIVersion, "1.0.0")} {
		conf[key], _ = json.Marshal(value) // a string
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return nil, "", err
	}
	pool, err := clusterlocal.ReadPool(text)
	return pool, cmp.Or(ipam.IPAM.Socket, clusterlocal.DefaultSocket), err
}
