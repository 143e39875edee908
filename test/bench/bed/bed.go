// Package bed is the private machine of one contender: a process in network and mount namespaces of its own, which makes
// sandboxes, calls plugins as a runtime does, times them, and looks whether they did what they say.
package bed

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Setup says what a bed is for.
type Setup struct {
	State  string          // directory that becomes /var/lib: its file system is measured too
	Dir    string          // the plugins; or
	Floor  string          // the one binary that is started instead of plugins
	List   json.RawMessage // the network list
	IfName string
	IDs    string         // the containers' names: a format for two numbers
	Kind   string         // what the floor makes: bridge, ptp, macvlan or, where it only starts, nothing
	Nets   []netip.Prefix // the networks that List hands out addresses from
	Ports  int            // published by each attachment
	Leases int            // held by others in the first of Nets
	Timed  []string       // the plugins of List whose calls are measured, all where it is empty
	Proof  Proof
}

// Proof says how to see that ADD worked.
type Proof struct {
	Link  bool     // the result's addresses are on the interface, and each gateway answers
	Lease bool     // the result's address is on file
	Ping  []string // these answer as well, which takes masquerading
}

// Bed serves one contender. Its exported methods are called by the parent, one at a time.
type Bed struct {
	setup  Setup
	runner runner
	host   *os.File // the bed's network namespace
	slots  map[int]*attachment
	serial atomic.Int64
	links  map[string]bool // the host's links that are no leaks
}

// attachment is one container, which lives in the sandbox of its slot.
type attachment struct {
	slot    int
	id      string
	sandbox string
	result  json.RawMessage
}

// runner carries out one verb for one attachment, starting processes by exec.
type runner interface {
	run(verb string, a *attachment, start execute) (Cost, error)
}

// Nothing stands where the parent has nothing to say or hear.
type Nothing struct{}

// network is the part of every bed's outside world that does not depend on the case: up0 leads to a neighbour, which is
// the gateway of the macvlan networks and the client that connects to published ports. It has no route to containers, so
// it answers only what is masqueraded.
const network = `link set lo up
link add up0 type veth peer name eth0 netns outside
addr add 198.51.100.1/24 dev up0
addr add 2001:db8::1/64 dev up0 nodad
link set up0 up
`

// neighbour is the other end of up0.
const neighbour = `link set lo up
addr add 198.51.100.2/24 dev eth0
addr add 2001:db8::2/64 dev eth0 nodad
addr add 10.24.0.1/16 dev eth0
addr add fd24::1/64 dev eth0 nodad
link set eth0 up
`

// Open prepares the bed. The process is in its new namespaces already.
func (b *Bed) Open(s Setup, _ *Nothing) error {
	b.setup, b.slots = s, map[int]*attachment{}
	if err := mounts(s.State); err != nil {
		return err
	}
	host, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	b.host = host
	if err := b.makeSandbox("/run/netns/outside"); err != nil {
		return err
	}
	if err := batch(network); err != nil {
		return err
	}
	if err := batch(neighbour, "-n", "outside"); err != nil {
		return err
	}
	if s.Floor != "" {
		b.runner = floor{s}
		err = b.prepareFloor()
	} else if b.runner, err = newChain(s); err == nil {
		err = fillLeases(s)
	}
	if err != nil {
		return err
	}
	b.links, err = links()
	return err
}

// prepareFloor makes the bridge, which plugins make at their first ADD.
func (b *Bed) prepareFloor() error {
	if b.setup.Kind != "bridge" {
		return nil
	}
	return batch("link add " + bridgeName + " type bridge\nlink set " + bridgeName + " up\n")
}

// mounts makes everything that plugins write to private: /run in memory, as it is on a host, and /var/lib in state.
func mounts(state string) error {
	if err := os.MkdirAll(filepath.Join(state, "cni"), 0o755); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{state, "/var/lib", "", unix.MS_BIND},
		{"tmpfs", "/run", "tmpfs", 0},
		{"sysfs", "/sys", "sysfs", 0}, // the network part of sysfs is its mounter's
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return os.Mkdir("/run/netns", 0o755)
}

// batch runs ip commands.
func batch(lines string, args ...string) error {
	cmd := exec.Command("ip", append(args, "-batch", "-")...)
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// fillLeases writes host-local's leases of containers that do not exist, from the first address on.
func fillLeases(s Setup) error {
	if s.Leases == 0 {
		return nil
	}
	dir, err := leaseDir(s.List)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	address := s.Nets[0].Addr().Next() // the gateway's
	for i := range s.Leases {
		address = address.Next()
		owner := fmt.Sprintf("other-%d\r\neth0", i)
		if err := os.WriteFile(filepath.Join(dir, address.String()), []byte(owner), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// leaseDir returns the directory of list's leases.
func leaseDir(list json.RawMessage) (string, error) {
	var l struct{ Name string }
	if err := json.Unmarshal(list, &l); err != nil {
		return "", fmt.Errorf("list: %w", err)
	}
	return filepath.Join("/var/lib/cni/networks", l.Name), nil
}

// Prepare makes the sandboxes of slots 0 to n-1 where they are missing.
func (b *Bed) Prepare(n int, _ *Nothing) error {
	for slot := range n {
		if b.slots[slot] != nil {
			continue
		}
		a := &attachment{slot: slot, sandbox: fmt.Sprintf("/run/netns/s%d", slot)}
		if err := b.makeSandbox(a.sandbox); err != nil {
			return err
		}
		b.slots[slot] = a
	}
	return nil
}

// Ask names one verb for one slot.
type Ask struct {
	Verb string
	Slot int
}

// Call carries out one verb and reports its cost.
func (b *Bed) Call(ask Ask, cost *Cost) error {
	var err error
	*cost, err = b.call(ask, timed)
	return err
}

// Trace carries out one verb under ptrace, which counts but distorts time.
func (b *Bed) Trace(ask Ask, cost *Cost) error {
	var err error
	*cost, err = b.call(ask, traced)
	return err
}

// call gives the attachment a new container ID with every ADD.
func (b *Bed) call(ask Ask, start execute) (Cost, error) {
	a := b.slots[ask.Slot]
	if a == nil {
		return Cost{}, fmt.Errorf("slot %d: not prepared", ask.Slot)
	}
	if ask.Verb == "ADD" || a.id == "" {
		a.id, a.result = fmt.Sprintf(b.setup.IDs, os.Getpid(), b.serial.Add(1)), nil
	}
	return b.runner.run(ask.Verb, a, start)
}

// Range is a number of slots to attach and the time that may take.
type Range struct {
	First, Count int
	Within       time.Duration
}

// Fill attaches containers until all are there or the time is over, and reports how many are.
func (b *Bed) Fill(r Range, attached *int) error {
	end := time.Now().Add(r.Within)
	if err := b.Prepare(r.First+r.Count, nil); err != nil {
		return err
	}
	for slot := r.First; slot < r.First+r.Count && time.Now().Before(end); slot++ {
		if _, err := b.call(Ask{"ADD", slot}, timed); err != nil {
			return err
		}
		*attached++
	}
	var err error
	b.links, err = links()
	return err
}
