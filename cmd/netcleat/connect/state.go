package connect

import (
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/utils"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

// state is what a container has before it is connected.
type state struct {
	names  []string // of its links
	routes []nl.Route
}

// observe looks into the sandbox.
func (s *Sandbox) observe() (_ *state, err error) {
	c, err := nl.Dial(s.ns, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	links, err := c.Links()
	if err != nil {
		return nil, err
	}
	var st state
	for _, l := range links {
		st.names = append(st.names, l.Name)
	}
	st.routes, err = c.Routes(unix.RT_TABLE_MAIN)
	return &st, err
}

// choose returns the interface's name: the one that was asked for, or the first
// ethN that the container has not.
func (st *state) choose(name string) (string, error) {
	if name == "" {
		for n := 0; ; n++ {
			if name = fmt.Sprintf("eth%d", n); !slices.Contains(st.names, name) {
				return name, nil
			}
		}
	}
	if err := utils.ValidateInterfaceName(name); err != nil {
		return "", fmt.Errorf("ifname %q: %w", name, err)
	}
	if slices.Contains(st.names, name) {
		return "", fmt.Errorf("ifname %q: the container has an interface of that name already", name)
	}
	return name, nil
}

func isDefault(r nl.Route, v6 bool) bool { return r.Dst.Bits() == 0 && r.Dst.Addr().Is6() == v6 }

// defaultOf returns the container's default route of a family: the one that the
// kernel takes.
func (st *state) defaultOf(v6 bool) (best nl.Route, ok bool) {
	for _, r := range st.routes {
		if isDefault(r, v6) && (!ok || r.Priority < best.Priority) {
			best, ok = r, true
		}
	}
	return best, ok
}

// compare looks whether the container has the routes that it had, and goes by the
// same default routes.
func (st *state) compare(s *Sandbox, ifName string) error {
	if _, has := st.defaultOf(true); has {
		if err := s.heedNoRouter(ifName); err != nil {
			return err
		}
	}
	now, err := s.observe()
	if err != nil {
		return err
	}
	for _, r := range st.routes {
		if !slices.Contains(now.routes, r) {
			return fmt.Errorf("it takes the route %s from the container", words(r))
		}
	}
	for _, v6 := range []bool{false, true} {
		had, has := st.defaultOf(v6)
		for _, r := range now.routes {
			if has && isDefault(r, v6) && r.Priority <= had.Priority && !slices.Contains(st.routes, r) {
				return fmt.Errorf("it gives the container another default route, %s, than it had, %s", words(r), words(had))
			}
		}
	}
	return nil
}

// words names a route as people do.
func words(r nl.Route) string {
	r.Table = 0 // which is the main one, as nobody needs to be told
	return r.String()
}

// heedNoRouter has the kernel take no default route from the routers of a LAN on
// the interface, and removes one that it has taken.
func (s *Sandbox) heedNoRouter(ifName string) (err error) {
	setting := sysctl.Setting{Key: "net/ipv6/conf/" + ifName + "/accept_ra_defrtr", Value: "0", IfExists: true}
	if err := sysctl.Set(s.ns, nil, setting); err != nil {
		return err
	}
	c, err := nl.Dial(s.ns, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	l, err := c.LinkNamed(ifName)
	if err != nil {
		return err
	}
	routes, err := c.Routes(unix.RT_TABLE_MAIN)
	for _, r := range routes {
		if isDefault(r, true) && r.Index == l.Index && r.Protocol == unix.RTPROT_RA {
			err = errors.Join(err, c.Do(nl.DelRoute(r)))
		}
	}
	return err
}

// restore gives the container back the routes that it has lost. What the kernel
// refuses, as it may where the container has ended, stays lost.
func (st *state) restore(s *Sandbox) (err error) {
	now, err := s.observe()
	if err != nil {
		return err
	}
	c, err := nl.Dial(s.ns, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for _, r := range st.routes {
		if !slices.Contains(now.routes, r) {
			err = errors.Join(err, c.Do(nl.AddRoute(r)))
		}
	}
	return err
}
