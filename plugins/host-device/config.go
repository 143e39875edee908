package hostdevice

import (
	"net"
	"path"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// config is the plugin's network configuration, valid once parse returns it.
type config struct {
	Device     string `json:"device"`
	HWAddr     string `json:"hwaddr"`
	KernelPath string `json:"kernelpath"`
	PCIBusID   string `json:"pciBusID"`
	// DPDKMode leaves the device where it is. With a PCI address its driver
	// decides.
	DPDKMode  bool `json:"DPDKMode"`
	EnableDAD bool `json:"enabledad"`
	// AcceptRA leaves IPv6 to the kernel where IPAM gave no address of it; ours,
	// not the reference's.
	AcceptRA      bool `json:"acceptRA"`
	RuntimeConfig struct {
		DeviceID string `json:"deviceID"` // a PCI address or a name on the auxiliary bus
	} `json:"runtimeConfig"`

	layer3 bool             // an IPAM plugin is configured
	hwaddr net.HardwareAddr // HWAddr, read
}

func parse(c *plugin.Call) (config, error) {
	conf := config{layer3: c.Conf.IPAM.Type != ""}
	if err := c.Decode(&conf); err != nil {
		return conf, err
	}
	if err := conf.validate(); err != nil {
		return conf, err
	}
	// Only an ADD has to know which device, and only it is always told deviceID.
	if c.Verb == plugin.Add && conf.selects() == "" {
		return conf, cnierr.Config(`specify either "device", "hwaddr", "kernelpath" or "pciBusID"`)
	}
	return conf, nil
}

// selects names the key that counts of those that are given, in the reference's
// order. A deviceID takes the place of pciBusID.
func (c *config) selects() string {
	for _, k := range []struct{ key, value string }{
		{"device", c.Device}, {"hwaddr", c.HWAddr}, {"kernelpath", c.KernelPath}, {"deviceID", c.RuntimeConfig.DeviceID}, {"pciBusID", c.PCIBusID},
	} {
		if k.value != "" {
			return k.key
		}
	}
	return ""
}

const devices = "/sys/devices/"

func (c *config) validate() (err error) {
	if c.HWAddr != "" {
		if c.hwaddr, err = net.ParseMAC(c.HWAddr); err != nil {
			return cnierr.Config("failed to parse MAC address %q: %w", c.HWAddr, err)
		}
	}
	switch {
	case c.KernelPath != "" && !strings.HasPrefix(path.Clean(c.KernelPath), devices):
		return cnierr.Config("kernel device path %q must be absolute and begin with %s", c.KernelPath, devices)
	case !isElement(c.PCIBusID):
		return cnierr.Config("pciBusID %q: not a PCI address", c.PCIBusID)
	case !isElement(c.RuntimeConfig.DeviceID):
		return cnierr.Config("runtime config DeviceID %s not found or unsupported", c.RuntimeConfig.DeviceID)
	}
	return nil
}

// isElement reports whether a directory can have an entry of that name, or it is
// "".
func isElement(s string) bool { return s != "." && s != ".." && !strings.ContainsAny(s, "/\x00") }
