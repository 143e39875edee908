// Package job is what the runner on the host and the init of the guest say to each other: a Job goes in, Events come out.
package job

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Path is where the guest finds its job in the initramfs.
const Path = "/job.json"

// EnvRequire names the variable that lists the features whose tests may not skip.
const EnvRequire = "REQUIRE"

// Features are what every kernel in kernels.txt has; package selftest proves each of them.
var Features = []string{
	"bonding", "br_netfilter", "bridge", "dummy", "fq_codel", "htb", "ifb", "ingress", "iptables-legacy", "iptables-nft",
	"ipvlan", "macvlan", "netem", "nft", "pci-nic", "root", "tap", "tbf", "veth", "vlan", "vlan_filtering", "vrf", "vxlan",
}

// NIC is the hardware address of the guest's network card, which is plugged into nothing. `modprobe virtio_net` makes its link.
const NIC = "52:54:00:6e:6c:74"

// Job is what one boot has to do. Paths are the host's; the guest sees the same ones.
type Job struct {
	Early     []string      // module files in the initramfs, in the order in which they are loaded
	Modules   []string      // names of the modules that are loaded before the tests
	ModuleDir string        // the kernel's module directory, named after its release
	Repo      string        // the repository
	Timeout   time.Duration // of one test binary
	Shell     bool          // a shell on the serial console instead of the tests
	Tests     []Test
}

// Test is one test binary.
type Test struct {
	Package string // import path
	Dir     string // the package's directory, in which the binary runs
	Binary  string
	Run     string // -test.run; empty means every test
}

// Event is one line from the guest. Exactly one of Ready, Output, Exit, Fault and Done is set.
type Event struct {
	Package string        `json:",omitempty"` // the test binary that Output or Exit is about
	Ready   time.Duration `json:",omitempty"` // the guest is up, so long after its kernel started
	Output  []byte        `json:",omitempty"`
	Exit    *Exit         `json:",omitempty"`
	Fault   string        `json:",omitempty"` // the guest could not do its work
	Done    bool          `json:",omitempty"` // the last event of a job that ran to its end
}

// Exit is how a test binary ended.
type Exit struct {
	Status  string // "exit status 2", "signal: killed"; empty when it is 0
	Elapsed time.Duration
}

// Read reads the job that the runner left in file.
func Read(file string) (*Job, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var j Job
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("job %s: %w", file, err)
	}
	return &j, nil
}
