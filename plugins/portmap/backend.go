package portmap

import (
	"context"

	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nft"
)

// portBackend is how the ports of one attachment are published: by elements of
// nftables' maps (inElements) or by rules in chains of iptables' (inChains). All
// that publish ports wait for each other (job.locked); c is the socket of who does.
type portBackend interface {
	// add publishes; a port that another live container has is cnierr.PortTaken.
	add(ctx context.Context, c *nft.Conn) error
	// remove takes everything of the attachment's back, and what its network or the
	// host no longer needs.
	remove(ctx context.Context, c *nft.Conn) error
	// compare is a cnierr.Check error where something is missing.
	compare(ctx context.Context, c *nft.Conn) error
	// restore makes what is missing, and leaves what is there.
	restore(ctx context.Context, c *nft.Conn) error
	// readsRecords reports whether add must not rely on what is in the kernel
	// to find out that a port is taken: another backend may have published it.
	readsRecords(c *nft.Conn) (bool, error)
}

// backend is the one that the publication was made with.
func (j *job) backend() portBackend {
	if j.byIPTables() {
		return inChains{j}
	}
	return inElements{j}
}

// byIPTables reports whether iptables has published it, and not nftables.
func (p publication) byIPTables() bool { return p.Backend == iptables.IPTables }
