//go:build linux && (amd64 || arm64)

// Command floor is the least that a Go process can do to attach a container: it makes the links, addresses and routes that
// bridge, ptp and macvlan leave behind, with raw netlink, and nothing else: no configuration, leases, rules or result.
//
// Everything comes from the environment, addresses in hexadecimal, because package os, a parser or fmt would be paid for
// at every start:
//
//	VERB       ADD or DEL
//	KIND       bridge, ptp or macvlan
//	MASTER     the bridge, or macvlan's parent
//	HOST       name of the host end of the veth pair
//	SANDBOX    path of the sandbox's network namespace
//	IFNAME     name of the interface in the sandbox
//	MACS       hardware addresses of the host end and of the sandbox's end, comma-separated
//	ADDRESSES  the sandbox's addresses with prefix length, comma-separated
//	GATEWAYS   one gateway for each address
package main

import "syscall"

func main() {
	w, err := read()
	if err == nil {
		err = w.run()
	}
	if err != nil {
		_, _ = syscall.Write(2, []byte(err.Error()+"\n"))
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

// run carries out one verb.
func (w *wish) run() error {
	add, macvlan := w.verb == "ADD", w.kind == "macvlan"
	switch {
	case add && macvlan:
		return w.addMacvlan()
	case add:
		return w.addVeth()
	case macvlan:
		return w.delMacvlan()
	default:
		return w.delVeth()
	}
}

// addVeth makes the pair and everything on it.
func (w *wish) addVeth() error {
	host, err := open()
	if err != nil {
		return err
	}
	if err := w.hostEnd(host); err != nil {
		return err
	}
	return w.configureSandbox()
}

// hostEnd makes the pair in one request, with the peer born in the sandbox, and gives the gateways to the bridge or,
// for ptp, to the host end.
func (w *wish) hostEnd(host *socket) error {
	if w.kind == "ptp" {
		host.veth(w, 0)
		if err := host.send(); err != nil {
			return err
		}
		link := host.index(w.host)
		for i, a := range w.addresses {
			host.address(link, w.gateways[i].single(), 0)
			host.route(route{link: link, dst: a.single(), scope: scopeLink})
		}
		return host.send()
	}
	bridge := host.index(w.master)
	for i, a := range w.addresses {
		gateway := prefix{w.gateways[i], a.bits}
		host.address(bridge, gateway, flagMayExist)
	}
	host.veth(w, bridge)
	return host.send()
}

// addMacvlan makes a macvlan that is born in the sandbox.
func (w *wish) addMacvlan() error {
	host, err := open()
	if err != nil {
		return err
	}
	host.macvlan(w, host.index(w.master))
	if err := host.send(); err != nil {
		return err
	}
	return w.configureSandbox()
}

// configureSandbox brings the interface up and gives it addresses and routes, in one message.
func (w *wish) configureSandbox() error {
	sandbox, err := w.enter()
	if err != nil {
		return err
	}
	link := sandbox.index(w.ifName)
	if w.onlyIPv4() {
		sandbox.noLinkLocal(link)
	}
	sandbox.up(link)
	for i, a := range w.addresses {
		gateway := w.gateways[i]
		if w.kind == "ptp" {
			sandbox.address(link, a, addrNoPrefixRoute)
			sandbox.route(route{link: link, dst: gateway.single(), scope: scopeLink})
			sandbox.route(route{link: link, dst: a.masked(), via: gateway, src: a.addr})
		} else {
			sandbox.address(link, a, 0)
		}
		sandbox.route(route{link: link, dst: prefix{addr: gateway[:0]}, via: gateway, family: gateway.family()})
	}
	return sandbox.send()
}

// delVeth deletes the pair by its host end.
func (w *wish) delVeth() error {
	host, err := open()
	if err != nil {
		return err
	}
	host.del(w.host)
	return host.send()
}

// delMacvlan deletes the interface inside the sandbox.
func (w *wish) delMacvlan() error {
	sandbox, err := w.enter()
	if err != nil {
		return err
	}
	sandbox.del(w.ifName)
	return sandbox.send()
}
