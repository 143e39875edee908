package connect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/nl"
)

// elect gives the container another default route where it has lost one with a
// network: as with Docker, one of the networks that remain has the gateway then.
// It is the one that the container has been on for longest.
func (o Options) elect(ctx context.Context, s *Sandbox, before *state) (err error) {
	now, err := s.observe()
	if err != nil {
		return err
	}
	rows, err := show.Rows(o.Places)
	if err != nil {
		o.Warn("not everything could be read: %v", err)
	}
	rows = slices.DeleteFunc(rows, func(r show.Row) bool { return !s.holds(r) })
	slices.SortStableFunc(rows, func(a, b show.Row) int { return a.Created.Compare(b.Created) })
	c, err := nl.Dial(s.ns, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	var errs []error
	for _, v6 := range []bool{false, true} {
		_, had := before.defaultOf(v6)
		if _, has := now.defaultOf(v6); had && !has {
			errs = append(errs, o.electOf(ctx, c, rows, v6))
		}
	}
	return errors.Join(errs...)
}

// electOf makes the default route of one family, by the first of the attachments
// that can have it.
func (o Options) electOf(ctx context.Context, c *nl.Conn, rows []show.Row, v6 bool) error {
	var errs []error
	for _, row := range rows {
		r, ok := o.defaultRoute(ctx, row, v6)
		if !ok {
			continue
		}
		l, err := c.LinkNamed(row.Interface)
		if err == nil {
			r.Index = l.Index
			err = c.Do(nl.AddRoute(r))
		}
		if err == nil {
			o.Warn("the container's default route is now %s over %s, of network %s", words(r), row.Interface, row.Network)
			return nil
		}
		errs = append(errs, fmt.Errorf("network %s: %w", row.Network, err))
	}
	return errors.Join(errs...)
}

// defaultRoute is the default route that the attachment's network gives to its
// containers, which this one has not got, since it had one.
func (o Options) defaultRoute(ctx context.Context, row show.Row, v6 bool) (r nl.Route, ok bool) {
	n, err := o.Find(ctx, row.Network)
	if err != nil {
		return r, false
	}
	list, err := libcni.NetworkConfFromFile(n.File)
	if err != nil {
		return r, false // whoever wants to attach to it is told
	}
	rt := &libcni.RuntimeConf{ContainerID: row.Container, IfName: row.Interface, NetNS: row.Netns}
	cached, err := o.Library().GetNetworkListCachedResult(list, rt)
	if err != nil || cached == nil {
		return r, false
	}
	result, err := current.NewResultFromResult(cached)
	if err != nil {
		return r, false
	}
	r, ok = configured(list, v6)
	if r.Gateway.IsValid() || r.Scope == unix.RT_SCOPE_LINK {
		return r, ok
	}
	for _, ip := range result.IPs {
		if gw, is := netip.AddrFromSlice(ip.Gateway); is && gw.Unmap().Is6() == v6 {
			r.Gateway = gw.Unmap()
			return r, ok
		}
	}
	return r, false
}

// configured is the default route of a family that a list gives to containers,
// as far as the list names it.
func configured(list *libcni.NetworkConfigList, v6 bool) (r nl.Route, ok bool) {
	for _, p := range list.Plugins {
		var conf struct {
			IsDefaultGateway bool `json:"isDefaultGateway"`
			IPAM             struct {
				Routes []struct {
					Dst   netip.Prefix `json:"dst"`
					GW    netip.Addr   `json:"gw"`
					Scope *uint8       `json:"scope"`
					Table *uint32      `json:"table"`
				} `json:"routes"`
			} `json:"ipam"`
		}
		if json.Unmarshal(p.Bytes, &conf) != nil {
			continue
		}
		r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if v6 {
			r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		for _, route := range conf.IPAM.Routes {
			main := route.Table == nil || slices.Contains([]uint32{0, unix.RT_TABLE_MAIN}, *route.Table)
			if route.Dst != r.Dst || !main {
				continue
			}
			r.Gateway = route.GW
			if route.Scope != nil {
				r.Scope = *route.Scope
			}
			return r, true
		}
		if conf.IsDefaultGateway {
			return r, true
		}
	}
	return r, false
}
