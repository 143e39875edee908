package connect

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// mapping is a published port as plugins are told of it.
type mapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// mappings reads what docker run --publish takes:
// [IP:]HOSTPORT:PORT[/PROTOCOL], where both ports may be ranges of one length.
func mappings(all []string) (list []mapping, err error) {
	for _, s := range all {
		m, err := parsePublish(s)
		if err != nil {
			return nil, fmt.Errorf("publish %q: %w", s, err)
		}
		list = append(list, m...)
	}
	return list, nil
}

func parsePublish(s string) (list []mapping, err error) {
	ports, proto, given := strings.Cut(s, "/")
	if !given {
		proto = "tcp"
	}
	if proto = strings.ToLower(proto); !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
		return nil, fmt.Errorf("protocol %q: want tcp, udp or sctp", proto)
	}
	i := strings.LastIndexByte(ports, ':')
	if i < 0 {
		return nil, fmt.Errorf("want [IP:]HOSTPORT:PORT: no port is chosen for you")
	}
	host, container := ports[:i], ports[i+1:]
	ip := ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		ip, host = strings.Trim(host[:i], "[]"), host[i+1:]
		if a, err := netip.ParseAddr(ip); err != nil || a.Is4In6() {
			return nil, fmt.Errorf("%q: want an address of the host", ip)
		}
	}
	from, n, err := portRange(host)
	if err != nil {
		return nil, err
	}
	to, m, err := portRange(container)
	if err != nil {
		return nil, err
	}
	if n != m {
		return nil, fmt.Errorf("%d ports of the host for %d of the container", n, m)
	}
	for i := range n {
		list = append(list, mapping{from + i, to + i, proto, ip})
	}
	return list, nil
}

// portRange reads PORT or FIRST-LAST, and returns the first and how many they are.
func portRange(s string) (first, n int, err error) {
	a, b, ranged := strings.Cut(s, "-")
	if !ranged {
		b = a
	}
	lo, err := strconv.ParseUint(a, 10, 16)
	hi, err2 := strconv.ParseUint(b, 10, 16)
	if err != nil || err2 != nil || lo == 0 || hi < lo {
		return 0, 0, fmt.Errorf("port %q: want 1 to 65535, or FIRST-LAST", s)
	}
	return int(lo), int(hi-lo) + 1, nil
}
