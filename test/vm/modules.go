package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// early names the modules without which the guest cannot reach its root and its port.
var early = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console"}

// wanted lists the modules that the guest loads: files, or directories that end in a slash.
var wanted = []string{
	"kernel/drivers/net/bonding/",
	"kernel/drivers/net/dummy",
	"kernel/drivers/net/geneve",
	"kernel/drivers/net/ifb",
	"kernel/drivers/net/ipvlan/",
	"kernel/drivers/net/macvlan",
	"kernel/drivers/net/macvtap",
	"kernel/drivers/net/tun",
	"kernel/drivers/net/veth",
	"kernel/drivers/net/vrf",
	"kernel/drivers/net/vxlan/",
	"kernel/net/8021q/",
	"kernel/net/bridge/",
	"kernel/net/ipv4/netfilter/",
	"kernel/net/ipv6/netfilter/",
	"kernel/net/netfilter/",
	"kernel/net/packet/",
	"kernel/net/sched/",
}

// unwanted are prefixes of those of the wanted that make devices of their own accord, or drag in a subsystem that nobody tests.
var unwanted = []string{"ip_vs", "sch_teql", "xt_ipvs"}

// moduleIndex is a kernel's modules.dep: what each module file needs, by its path below the module directory.
type moduleIndex map[string][]string

func readModuleIndex(dir string) (moduleIndex, error) {
	b, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	return parseModuleIndex(string(b)), nil
}

func parseModuleIndex(text string) moduleIndex {
	index := moduleIndex{}
	for line := range strings.Lines(text) {
		file, needs, _ := strings.Cut(line, ":")
		index[file] = strings.Fields(needs)
	}
	return index
}

// moduleName returns the name of a module file: kernel/fs/9p/9p.ko.xz is 9p.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return name
}

// order returns the files of the named modules and of all that they need, each after its needs. A module that is
// built into the kernel has no file.
func (m moduleIndex) order(names, builtin []string) ([]string, error) {
	byName := map[string]string{}
	for file := range m {
		byName[moduleName(file)] = file
	}
	var files []string
	var add func(file string)
	add = func(file string) {
		if slices.Contains(files, file) {
			return
		}
		for _, need := range m[file] {
			add(need)
		}
		files = append(files, file)
	}
	for _, name := range names {
		file, ok := byName[name]
		if !ok && !slices.Contains(builtin, name) {
			return nil, fmt.Errorf("module %s: not in this kernel", name)
		}
		if ok {
			add(file)
		}
	}
	return files, nil
}

// wanted returns the names of the wanted modules that the kernel has, sorted, but
// for those without which it is to do, and what needs them.
func (m moduleIndex) wanted(without []string) []string {
	var names []string
	for file, needs := range m {
		name := moduleName(file)
		refused := func(file string) bool { return slices.Contains(without, moduleName(file)) }
		if refused(file) || slices.ContainsFunc(needs, refused) {
			continue
		}
		if isWanted(file) && !slices.ContainsFunc(unwanted, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func isWanted(file string) bool {
	stem := path.Join(path.Dir(file), moduleName(file))
	return slices.ContainsFunc(wanted, func(want string) bool {
		if strings.HasSuffix(want, "/") {
			return strings.HasPrefix(file, want)
		}
		return stem == want
	})
}

// readBuiltin returns the names of the modules that are built into the kernel.
func readBuiltin(dir string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range strings.Fields(string(b)) {
		names = append(names, moduleName(file))
	}
	return names, nil
}
