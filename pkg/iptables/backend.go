package iptables

import "github.com/netcleat/netcleat/pkg/nft"

// Backend says where rules go.
type Backend string

// The backends, as configurations name them.
const (
	NFTables Backend = "nftables"
	IPTables Backend = "iptables"
)

// Default is the backend for rules of the table ("nat", "filter") where the
// configuration names none: nftables, unless the kernel lacks it or the old
// table of that name is loaded, which says that the host works with that.
func Default(c *nft.Conn, table string) (Backend, Tool) {
	if LegacyLoaded(table) {
		return IPTables, Tool{Legacy: Tool{Legacy: true}.Installed()}
	}
	if !c.Available() {
		return IPTables, Tool{}
	}
	return NFTables, Tool{}
}
