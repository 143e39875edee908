//go:build linux && (amd64 || arm64)

package main

import (
	"runtime"
	"syscall"
)

// wish is what the environment asks for.
type wish struct {
	verb, kind, master, host, ifName string
	hostMAC, mac                     addr
	addresses                        []prefix
	gateways                         []addr
	sandbox                          int // descriptor of the sandbox's namespace
}

// addr is an address as the kernel takes it: 4, 16 or, for hardware, 6 bytes.
type addr []byte

// prefix is an address with the length of its network.
type prefix struct {
	addr addr
	bits byte
}

// family returns the address family.
func (a addr) family() byte {
	if len(a) == 4 {
		return syscall.AF_INET
	}
	return syscall.AF_INET6
}

// single returns the prefix that holds a alone.
func (a addr) single() prefix { return prefix{a, byte(len(a) * 8)} }

// single returns the prefix that holds p's address alone.
func (p prefix) single() prefix { return p.addr.single() }

// masked returns p with the host part cleared.
func (p prefix) masked() prefix {
	net := make(addr, len(p.addr))
	for i := range net {
		keep := min(max(int(p.bits)-8*i, 0), 8)
		net[i] = p.addr[i] & byte(0xff<<(8-keep))
	}
	return prefix{net, p.bits}
}

// read takes the wish from the environment and opens the sandbox.
func read() (*wish, error) {
	w := &wish{sandbox: -1}
	for _, v := range []struct {
		name string
		to   *string
	}{{"VERB", &w.verb}, {"KIND", &w.kind}, {"MASTER", &w.master}, {"HOST", &w.host}, {"IFNAME", &w.ifName}} {
		*v.to, _ = syscall.Getenv(v.name)
	}
	if macs := list("MACS"); len(macs) == 2 {
		w.hostMAC, w.mac = macs[0].addr, macs[1].addr
	}
	w.addresses = list("ADDRESSES")
	for _, g := range list("GATEWAYS") {
		w.gateways = append(w.gateways, g.addr)
	}
	path, _ := syscall.Getenv("SANDBOX")
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	w.sandbox = fd
	return w, nil
}

// list reads comma-separated hexadecimal addresses, each with an optional /length.
func list(name string) []prefix {
	s, _ := syscall.Getenv(name)
	var out []prefix
	for len(s) > 0 {
		var p prefix
		for len(s) > 1 && s[0] != '/' && s[0] != ',' {
			p.addr = append(p.addr, digit(s[0])<<4|digit(s[1]))
			s = s[2:]
		}
		if len(s) > 0 && s[0] == '/' {
			for s = s[1:]; len(s) > 0 && s[0] != ','; s = s[1:] {
				p.bits = p.bits*10 + digit(s[0])
			}
		}
		if len(s) > 0 {
			s = s[1:]
		}
		out = append(out, p)
	}
	return out
}

// digit returns the value of one lower-case hexadecimal digit.
func digit(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// onlyIPv4 reports whether the sandbox gets no IPv6 address.
func (w *wish) onlyIPv4() bool {
	for _, a := range w.addresses {
		if a.addr.family() != syscall.AF_INET {
			return false
		}
	}
	return true
}

// enter moves the calling thread into the sandbox, for good, and opens netlink there.
func (w *wish) enter() (*socket, error) {
	runtime.LockOSThread()
	if _, _, errno := syscall.RawSyscall(sysSetns, uintptr(w.sandbox), syscall.CLONE_NEWNET, 0); errno != 0 {
		return nil, errno
	}
	return open()
}
