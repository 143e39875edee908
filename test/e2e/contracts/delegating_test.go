package contracts

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

// flannel executes bridge itself, with a configuration of its own, and replays
// that on DEL with neither runtimeConfig nor prevResult; then it is called again.
func TestFlannelDelegates(t *testing.T) {
	h := bed.New(t)
	const conf = `{"cniVersion": "0.3.1", "name": "cbr0", "type": "bridge", "hairpinMode": true, "isDefaultGateway": true, "isGateway": true, "ipMasq": false, "mtu": 1450,
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "10.244.0.0/16"}]}}`
	portmap := func(more string) string {
		return `{"cniVersion": "0.3.1", "name": "cbr0", "type": "portmap", "capabilities": {"portMappings": true}` + more + `}`
	}
	h.Container("c1")
	env := func(verb string) []string { return bed.Env(verb, "c1", "/run/netns/c1", "eth0") }
	call := func(plugin, verb, conf string) string {
		t.Helper()
		out, err := h.Plugin(plugin, conf, env(verb)...)
		if err != nil {
			t.Fatalf("%s %s: %v", plugin, verb, err)
		}
		return out
	}
	result := call("bridge", "ADD", conf)
	call("portmap", "ADD", portmap(`, "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}, "prevResult": `+result))
	h.Serve("c1", "80")
	h.Wants("c1 saw 192.0.2.2", h.LAN().TCP("192.0.2.1:8080"))
	if mtu := h.Run("ip", "-n", "c1", "link", "show", "eth0"); !strings.Contains(mtu, "mtu 1450") {
		t.Error(mtu)
	}
	h.Sh("kill $(ip netns pids c1)")
	for range 2 {
		call("portmap", "DEL", portmap(""))
		call("bridge", "DEL", conf)
	}
	h.RemoveContainers("c1")
	h.Left("cni0", "cbr0")
}

// multus delegates: a second interface, with what device plugins say of it.
func TestMultusDelegates(t *testing.T) {
	h := bed.New(t)
	h.Container("pod")
	env := func(verb string) []string {
		return append(bed.Env(verb, "pod", "/run/netns/pod", "net1"), "CNI_ARGS=IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=pod;K8S_POD_UID=u1")
	}
	const common = `"cniVersion": "1.0.0", "name": "second", "deviceID": "0000:03:02.3", "pciBusID": "0000:03:02.3",
		"capabilities": {"mac": true, "ips": true, "CNIDeviceInfoFile": true, "deviceID": true},
		"runtimeConfig": {"CNIDeviceInfoFile": "/var/run/k8s.cni.cncf.io/devinfo/cni/default-second-pod-net1-device.json", "deviceID": "0000:03:02.3",
			"mac": "02:00:00:00:77:01", "ips": ["10.77.0.9/24"], "infinibandGUID": "c2:11:22:33:44:55:66:77"},
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}`
	for plugin, own := range map[string]string{"bridge": `"bridge": "br-second"`, "macvlan": `"master": "lan0"`} {
		conf := `{"type": "` + plugin + `", ` + own + `, ` + common + `}`
		if out, err := h.Plugin(plugin, conf, env("ADD")...); err != nil {
			t.Fatalf("%s: %v %s", plugin, err, out)
		}
		addr := h.Run("ip", "-n", "pod", "addr", "show", "net1")
		for _, want := range []string{"02:00:00:00:77:01", "10.77.0.9/24"} {
			if !strings.Contains(addr, want) {
				t.Errorf("%s: %s is not in %s", plugin, want, addr)
			}
		}
		if out, err := h.Plugin(plugin, conf, env("DEL")...); err != nil {
			t.Fatalf("%s: %v %s", plugin, err, out)
		}
	}
	h.RemoveContainers("pod")
	h.Left("br-second")
}

// multus runs plugins from within a pod: in a root directory that has little but
// the binaries and the host's /run and /var/lib/cni.
func TestMultusInAPod(t *testing.T) {
	h := bed.New(t)
	root := h.Rootfs("multus")
	h.Sh(`
		cd ` + root + ` && mkdir -p var/lib/cni opt
		cp ` + h.Plugins + `/bridge ` + h.Plugins + `/host-local opt/
		mount --rbind /proc proc
		mount --rbind /run run
		mount --bind /var/lib/cni var/lib/cni`)
	h.Container("pod")
	const conf = `{"cniVersion": "1.0.0", "name": "inner", "type": "bridge", "bridge": "br-inner", "isGateway": true, "ipMasq": true,
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.78.0.0/24"}]]}}`
	for _, verb := range []string{"ADD", "DEL"} {
		env := append(bed.Env(verb, "pod", "/run/netns/pod", "eth0"), "CNI_PATH=/opt", "PATH=/bin")
		cmd := h.Cmd(append(append([]string{"env", "-i"}, env...), "/usr/sbin/chroot", root, "/opt/bridge")...)
		cmd.Stdin = strings.NewReader(conf)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", verb, err, out)
		}
		if _, err := h.Try("ip", "-n", "pod", "addr", "show", "eth0"); (err == nil) != (verb == "ADD") {
			t.Errorf("after %s: eth0: %v", verb, err)
		}
	}
	h.RemoveContainers("pod")
	h.Left("br-inner")
}
