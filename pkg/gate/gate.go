// Package gate is the door through which every change to the kernel passes:
// netlink requests, nftables transactions, sysctl writes. Tests refuse the n-th
// change there, and CNI_DEBUG=1 prints each.
package gate

// A Gate is asked before each change; what says which, in words such as
// "create veth veth1a2b3c4d". An error refuses the change: it is then not made,
// and the caller sees the error as the kernel's. A nil Gate lets all through.
type Gate func(what string) error

// Pass asks the gate.
func (g Gate) Pass(what string) error {
	if g == nil {
		return nil
	}
	return g(what)
}
