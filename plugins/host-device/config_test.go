package hostdevice

import (
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func TestParse(t *testing.T) {
	for conf, want := range map[string]string{
		`{"device":"eth1"}`:                            "",
		`{"hwaddr":"52:54:00:12:34:56"}`:               "",
		`{"kernelpath":"/sys/devices/pci0000:00/0:3"}`: "",
		`{"pciBusID":"0000:03:00.0"}`:                  "",
		`{"runtimeConfig":{"deviceID":"mlx5.sf.2"}}`:   "",
		`{}`:                             `specify either "device", "hwaddr", "kernelpath" or "pciBusID"`,
		`{"hwaddr":"x"}`:                 `failed to parse MAC address "x": address x: invalid MAC address`,
		`{"kernelpath":"/etc"}`:          `kernel device path "/etc" must be absolute and begin with /sys/devices/`,
		`{"kernelpath":"sys/devices/x"}`: `kernel device path "sys/devices/x" must be absolute and begin with /sys/devices/`,
		`{"kernelpath":"/sys/devices/../../etc"}`:       `kernel device path "/sys/devices/../../etc" must be absolute and begin with /sys/devices/`,
		`{"pciBusID":"../x"}`:                           `pciBusID "../x": not a PCI address`,
		`{"runtimeConfig":{"deviceID":".."}}`:           `runtime config DeviceID .. not found or unsupported`,
		`{"device":7}`:                                  "failed to load netconf: device: json: cannot unmarshal number into Go value of type string",
		`{"device":"eth1","hwaddr":"52:54:00:12:34:5"}`: `failed to parse MAC address "52:54:00:12:34:5": address 52:54:00:12:34:5: invalid MAC address`,
	} {
		_, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte(conf)})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("parse(%s):\n got %q\nwant %q", conf, got, want)
		}
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("parse(%s): no CNI code", conf)
		}
	}
}

// Only ADD is always told the device.
func TestParseWithoutDevice(t *testing.T) {
	for _, verb := range []string{plugin.Check, plugin.Del, plugin.Status, plugin.GC} {
		if _, err := parse(&plugin.Call{Verb: verb, Stdin: []byte("{}")}); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
}

func TestPrecedence(t *testing.T) {
	all := config{Device: "eth1", HWAddr: "52:54:00:12:34:56", KernelPath: "/sys/devices/x", PCIBusID: "0000:03:00.0"}
	all.RuntimeConfig.DeviceID = "0000:04:00.0"
	var got []string
	for _, drop := range []func(){
		func() {}, func() { all.Device = "" }, func() { all.HWAddr = "" }, func() { all.KernelPath = "" },
		func() { all.RuntimeConfig.DeviceID = "" }, func() { all.PCIBusID = "" },
	} {
		drop()
		got = append(got, all.selects())
	}
	want := []string{"device", "hwaddr", "kernelpath", "deviceID", "pciBusID", ""}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("selects %v, want %v", got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "host-device") {
		f.Add([]byte(conf))
	}
	f.Add([]byte(`{"device":"eth1"}`))
	f.Add([]byte(`{"kernelpath":"/sys/devices/../x","hwaddr":"x","runtimeConfig":{"deviceID":"../.."}}`))
	f.Fuzz(func(t *testing.T, conf []byte) {
		_, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: conf})
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("parse(%q): no CNI code: %v", conf, err)
		}
	})
}
