package hostdevice

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// sysfs is where the kernel shows its devices: /sys.
type sysfs string

func (s sysfs) pci(address string) string { return path.Join(string(s), "bus/pci/devices", address) }

func (s sysfs) auxiliary(id string) string { return path.Join(string(s), "bus/auxiliary/devices", id) }

func (s sysfs) kernel(p string) string {
	return path.Join(string(s), strings.TrimPrefix(path.Clean(p), string(sys)))
}

// exists reports whether there is such a file, as far as can be seen: one that
// cannot be looked at may be there.
func exists(p string) bool {
	_, err := os.Stat(p)
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ENAMETOOLONG)
}

// target is the device that the configuration means.
type target struct {
	words  string           // how it was named, for people: `pciBusID 0000:03:00.0`
	name   string           // "" unless it was named by its name
	hwaddr net.HardwareAddr // nil unless it was named by that
	dir    string           // where sysfs lists its interfaces; "" for the above
	pci    string           // its PCI address, where that is known
	// userspace says that a driver of userspace has the device (DPDK): there is
	// no interface to move.
	userspace bool
}

// drivers of userspace, as DPDK needs them.
var userspaceDrivers = []string{"vfio-pci", "uio_pci_generic", "igb_uio"}

// resolve says which device the configuration means.
func (s sysfs) resolve(conf *config) (t target, err error) {
	pci, aux := conf.PCIBusID, ""
	if id := conf.RuntimeConfig.DeviceID; id != "" {
		switch {
		case exists(s.pci(id)):
			pci = id
		case exists(s.auxiliary(id)):
			pci, aux = "", id
		default:
			return t, cnierr.Config("runtime config DeviceID %s not found or unsupported", id)
		}
	}
	t = target{pci: pci, userspace: conf.DPDKMode}
	switch {
	case conf.Device != "":
		t.name, t.words = conf.Device, fmt.Sprintf("device %q", conf.Device)
	case conf.hwaddr != nil:
		t.hwaddr, t.words = conf.hwaddr, "hwaddr "+conf.hwaddr.String()
	case conf.KernelPath != "":
		t.dir, t.words = path.Join(s.kernel(conf.KernelPath), "net"), "kernelpath "+conf.KernelPath
	case pci != "":
		t.dir, t.words = s.pciNet(pci), "pciBusID "+pci
	default:
		t.dir, t.words = path.Join(s.auxiliary(aux), "net"), "auxiliary device "+aux
	}
	if pci != "" {
		t.userspace, err = s.hasUserspaceDriver(pci)
	}
	return t, err
}

// pciNet is where a PCI device lists its interfaces. Those of a virtio device
// are one level further down.
func (s sysfs) pciNet(address string) string {
	virtio, err := filepath.Glob(filepath.Join(s.pci(address), "virtio*", "net"))
	if err == nil && len(virtio) > 0 {
		return virtio[0]
	}
	return path.Join(s.pci(address), "net")
}

func (s sysfs) hasUserspaceDriver(address string) (bool, error) {
	if !exists(s.pci(address)) {
		return false, cnierr.Config("pciBusID %s: no such device", address)
	}
	driver, err := os.Readlink(path.Join(s.pci(address), "driver"))
	if err != nil {
		return false, cnierr.Config("pciBusID %s: no driver is bound to it: %w", address, err)
	}
	return slices.Contains(userspaceDrivers, path.Base(driver)), nil
}

// find returns the interface on the host, if it is free to be moved.
func (t target) find(p *nl.Pair, c *plugin.Call) (*nl.Link, error) {
	l, err := t.lookUp(p.Host)
	switch {
	case nl.NotFound(err):
		return nil, t.missing(p, c, err)
	case err != nil:
		return nil, err
	case l.Flags&unix.IFF_LOOPBACK != 0:
		return nil, cnierr.Config("%s: %s is the host's loopback interface", t.words, l.Name)
	case l.Master != 0:
		return nil, t.enslaved(p, l)
	}
	return l, nil
}

func (t target) enslaved(p *nl.Pair, l *nl.Link) error {
	master := fmt.Sprintf("the link with index %d", l.Master)
	if m, err := p.Host.LinkByIndex(l.Master); err == nil {
		master = m.Name
	}
	return cnierr.Config("%s: %s is a port of %s: take it out first (`ip link set %s nomaster`)", t.words, l.Name, master, l.Name)
}

func (t target) lookUp(host *nl.Conn) (*nl.Link, error) {
	if t.hwaddr != nil {
		return byAddress(host, t.hwaddr)
	}
	name := t.name
	if name == "" {
		entries, err := os.ReadDir(t.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if len(entries) == 0 {
			return nil, &nl.Error{What: "failed to find network device in path " + t.dir, Errno: unix.ENODEV}
		}
		name = entries[0].Name()
	}
	return host.LinkByName(name)
}

// byAddress returns the link with the hardware address. VLANs and macvlans often
// have that of the link below them, which then is the one that is meant.
func byAddress(host *nl.Conn, mac net.HardwareAddr) (best *nl.Link, err error) {
	all, err := host.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		if s := score(l, mac); s > 0 && (best == nil || s > score(best, mac)) {
			best = l
		}
	}
	if best == nil {
		return nil, &nl.Error{What: "link with address " + mac.String(), Errno: unix.ENODEV}
	}
	return best, nil
}

// score says how well a link answers to the address; 0 is not at all.
func score(l *nl.Link, mac net.HardwareAddr) int {
	onTop := l.Parent != 0 && l.ParentNetns < 0 && l.Kind != "veth"
	switch {
	case bytes.Equal(l.PermanentMAC, mac):
		return 4
	case !bytes.Equal(l.MAC, mac):
		return 0
	case l.Kind == "":
		return 3
	case !onTop:
		return 2
	}
	return 1
}

// missing says where the device is instead.
func (t target) missing(p *nl.Pair, c *plugin.Call, cause error) error {
	if owner := t.owner(c); owner != "" {
		return cnierr.Newf(cnierr.TryAgain, "%s is in use: %s", t.words, owner)
	}
	if t.name != "" {
		if all, err := p.Host.Links(); err == nil {
			for _, l := range all {
				if l.Alias == t.name && l.Kind == "" {
					return cnierr.Config("%s: no such interface on the host; %s has it as its alias and may be what came back of it (`ip link set %s name %s`)", t.words, l.Name, l.Name, t.name)
				}
			}
		}
	}
	if nl.NotFound(cause) {
		return cnierr.Explain(cnierr.Config("failed to find host device: Link not found"), "%s: %v", t.words, cause)
	}
	return cnierr.Config("failed to find host device: %s: %w", t.words, cause)
}

// owner says which container has the device, or may have it, according to the
// records.
func (t target) owner(c *plugin.Call) string {
	judge, err := evidence.New()
	if err != nil {
		return ""
	}
	defer func() { _ = judge.Close() }() // it was only asked
	networks, _ := c.Journal.Networks()  // what cannot be read names no owner
	for _, n := range networks {
		records, _ := c.Journal.Readable(n)
		for _, r := range records {
			var d device
			if r.Plugin != name || r.GetState(&d) != nil || !t.means(&d) {
				continue
			}
			who := fmt.Sprintf("container %q interface %q on network %q", r.ContainerID, r.IfName, r.Network)
			switch v := judge.Of([]journal.Record{r}); v.State {
			case evidence.Alive:
				return who + " has it"
			case evidence.Unknown:
				return fmt.Sprintf("%s may have it: %s (%s)", who, v.Why, evidence.Forget(r.Network, r.ContainerID))
			}
		}
	}
	return ""
}

// means reports whether a recorded device is the target.
func (t target) means(d *device) bool {
	return d.Name != "" && (d.Name == t.name || d.Selected == t.words)
}
