package bed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// result is what the proof needs of an ADD's result, in every version since 0.3.0.
type result struct {
	IPs []struct {
		Address netip.Prefix
		Gateway netip.Addr
	}
}

// Verify looks whether the slot's attachment works, so that nobody wins by doing nothing.
func (b *Bed) Verify(slot int, _ *Nothing) error {
	a, proof := b.slots[slot], b.setup.Proof
	var r result
	if proof.Link || proof.Lease {
		if err := json.Unmarshal(a.result, &r); err != nil {
			return fmt.Errorf("result %s: %w", a.result, err)
		}
		if len(r.IPs) == 0 {
			return fmt.Errorf("result %s: no address", a.result)
		}
	}
	if proof.Lease {
		return b.verifyLease(a, r.IPs[0].Address.Addr())
	}
	if !proof.Link {
		return nil
	}
	if err := inside(a.sandbox, func() error { return b.verifyLink(r) }); err != nil {
		return err
	}
	if b.setup.Ports == 0 || b.setup.Floor != "" {
		return nil
	}
	_, err := b.connections(slot, 1)
	return err
}

// verifyLease looks for the file of an address.
func (b *Bed) verifyLease(a *attachment, address netip.Addr) error {
	dir, err := leaseDir(b.setup.List)
	if err != nil {
		return err
	}
	owner, err := os.ReadFile(filepath.Join(dir, address.String()))
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(owner, []byte(a.id)) {
		return fmt.Errorf("lease %s: owner %q, want %s", address, owner, a.id)
	}
	return nil
}

// verifyLink looks at the interface, from inside of the sandbox.
func (b *Bed) verifyLink(r result) error {
	link, err := net.InterfaceByName(b.setup.IfName)
	if err != nil {
		return err
	}
	if link.Flags&net.FlagUp == 0 {
		return fmt.Errorf("link %s: is down", link.Name)
	}
	have, err := link.Addrs()
	if err != nil {
		return err
	}
	var answer []string
	for _, ip := range r.IPs {
		if !slices.ContainsFunc(have, func(a net.Addr) bool { return a.String() == ip.Address.String() }) {
			return fmt.Errorf("link %s: has %v, not %s", link.Name, have, ip.Address)
		}
		if ip.Gateway.IsValid() {
			answer = append(answer, ip.Gateway.String())
		}
	}
	if b.setup.Floor == "" {
		answer = append(answer, b.setup.Proof.Ping...)
	}
	for _, address := range answer {
		if err := ping(netip.MustParseAddr(address)); err != nil {
			return fmt.Errorf("ping %s: %w", address, err)
		}
	}
	return nil
}

// Leaks lists what the slot's attachment left behind after its DEL: links, files and rules.
func (b *Bed) Leaks(slot int, leaks *[]string) error {
	a := b.slots[slot]
	if b.setup.IfName != "lo" {
		err := inside(a.sandbox, func() error {
			if _, err := net.InterfaceByName(b.setup.IfName); err == nil {
				*leaks = append(*leaks, "link "+b.setup.IfName+" in the sandbox")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	now, err := links()
	if err != nil {
		return err
	}
	for name := range now {
		if _, err := os.Stat("/sys/class/net/" + name + "/bridge"); err != nil && !b.links[name] {
			*leaks = append(*leaks, "link "+name+" on the host")
		}
	}
	files, err := filesNaming(a.id, "/run", "/var/lib/cni")
	*leaks = append(*leaks, files...)
	if n := rulesNaming(a.id); n > 0 {
		*leaks = append(*leaks, fmt.Sprintf("%d rules or elements", n))
	}
	return err
}

// links returns the names of the host's links.
func links() (map[string]bool, error) {
	all, err := net.Interfaces()
	names := map[string]bool{}
	for _, l := range all {
		names[l.Name] = true
	}
	return names, err
}

// filesNaming lists the files under dirs whose name or content mentions id.
func filesNaming(id string, dirs ...string) ([]string, error) {
	var found []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || strings.HasPrefix(path, "/run/netns/") {
				return err
			}
			content, err := os.ReadFile(path)
			if strings.Contains(e.Name(), id) || bytes.Contains(content, []byte(id)) {
				found = append(found, "file "+path)
			}
			return err
		})
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// rulesNaming counts the lines of the ruleset that mention id; without the nft command it sees none.
func rulesNaming(id string) int {
	ruleset, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		return 0
	}
	return bytes.Count(ruleset, []byte(`"`+id+`"`)) + bytes.Count(ruleset, []byte(id+` `))
}
