package dhcpd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/file"
	"github.com/netcleat/netcleat/pkg/netns"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
)

// recordVersion is the format of the lease files. One of a later format is left
// alone.
const recordVersion = 1

// record is what the file of a lease holds.
type record struct {
	Version int `json:"version"`
	dhcp.Key
	Netns    string        `json:"netns"` // as the plugin gave it
	NetnsID  netns.ID      `json:"netnsID"`
	Index    int           `json:"index"` // of the link: it keeps it when it is renamed
	MAC      string        `json:"mac"`   // as of the last message
	Provide  []dhcp.Option `json:"provide,omitempty"`
	Request  []byte        `json:"request,omitempty"`
	Priority int           `json:"priority,omitempty"`
	Binding  *binding      `json:"binding,omitempty"` // nil: the lease has expired
	// Last is the address that an expired lease was for: it is asked for again.
	Last netip.Addr `json:"last,omitzero"`
}

// binding is what a server granted. Its times are on the clock that runs since
// boot (see now).
type binding struct {
	Address   netip.Prefix  `json:"address"`
	Gateway   netip.Addr    `json:"gateway,omitzero"`
	Routes    []route       `json:"routes,omitempty"`
	DNS       types.DNS     `json:"dns,omitzero"`
	Server    netip.Addr    `json:"server"`
	ServerMAC string        `json:"serverMAC,omitempty"` // what its messages came from: a relay's where there is one
	Renew     time.Duration `json:"renew"`
	Rebind    time.Duration `json:"rebind"`
	Expire    time.Duration `json:"expire"`
	Until     time.Time     `json:"until"` // Expire, for people
}

// route is a route of the lease. Without a gateway it is on the link.
type route struct {
	Dst     netip.Prefix `json:"dst"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// now is the time since boot, suspension included. Setting the host's clock does
// not touch it, and no lease file is older than the boot.
func now() time.Duration {
	var ts unix.Timespec
	// The clock exists on every kernel, so this cannot fail.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// result is the lease as the plugin returns it.
func (b *binding) result(priority int) *current.Result {
	res := &current.Result{
		IPs: []*current.IPConfig{{Address: ipnet(b.Address), Gateway: b.Gateway.AsSlice()}}, DNS: b.DNS,
	}
	for _, r := range b.Routes {
		out := &types.Route{Dst: ipnet(r.Dst), GW: r.Gateway.AsSlice(), Priority: priority}
		if !r.Gateway.IsValid() {
			scope := unix.RT_SCOPE_LINK
			out.Scope, out.GW = &scope, net.IPv4zero.To4()
		}
		res.Routes = append(res.Routes, out)
	}
	return res
}

func ipnet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

const tempSuffix = ".new"

// save writes the lease's file. The directory is in memory and goes with the
// boot: a rename is all the safety that it needs.
func (r *record) save(dir dhcp.Leases) error {
	r.Version = recordVersion
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("lease file: %w", err)
	}
	path := dir.Path(r.Key)
	if err := file.Replace(path, path+tempSuffix, b); err != nil {
		return fmt.Errorf("lease file: %w", err)
	}
	return nil
}

// forget removes the lease's file, and the mark of a DEL.
func forget(dir dhcp.Leases, k dhcp.Key) error {
	return errors.Join(unlink(dir.Path(k)), unlink(dir.Path(k)+tempSuffix), unlink(dir.FreedPath(k)))
}

func unlink(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readRecord reads a lease's file.
func readRecord(path string) (*record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("lease file %s: %w", path, err)
	}
	if r.Version > recordVersion {
		return nil, fmt.Errorf("lease file %s: version %d", path, r.Version)
	}
	if r.Binding != nil && (!r.Binding.Address.IsValid() || !r.Binding.Server.IsValid()) {
		return nil, fmt.Errorf("lease file %s: no address or no server", path)
	}
	return r, nil
}
