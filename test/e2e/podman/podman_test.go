// Package podman has the stories of containers that podman runs, with the
// networks that it writes for CNI plugins.
package podman

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

// podman is the runtime on a host of its own.
type podman struct {
	*bed.Host
	t      *testing.T
	rootfs string
	as     []string // the words before a command, which select the user
}

const containersConf = `
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["%[1]s/bin"]
network_config_dir = "%[1]s/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
infra_image = "%[2]s"
`

const storageConf = `
[storage]
driver = "vfs"
graphroot = "%[1]s/graph"
runroot = "%[1]s/run"
`

func newPodman(t *testing.T) podman {
	t.Helper()
	h := bed.New(t, "podman", "crun", "conmon", "busybox", "nft", "iptables")
	tried.Versions(h.Version("podman", "--version") + ", " + h.Version("crun", "--version"))
	p := podman{h, t, h.Rootfs("tree"), nil}
	p.configure()
	return p
}

// configure has podman keep all that it has in the story's directory.
func (p podman) configure() {
	p.t.Helper()
	p.Write(p.Dir+"/containers.conf", fmt.Sprintf(containersConf, p.Dir, bed.ImageTag))
	p.Write(p.Dir+"/storage.conf", fmt.Sprintf(storageConf, p.Dir))
}

// try runs a command of podman's.
func (p podman) try(args ...string) (string, error) {
	env := []string{
		"env", "--chdir=" + p.Dir, "CONTAINERS_CONF=" + p.Dir + "/containers.conf", "CONTAINERS_STORAGE_CONF=" + p.Dir + "/storage.conf",
		"podman", "--tmpdir=" + p.Dir + "/tmp",
	}
	return p.Try(slices.Concat(p.as, env, args)...)
}

// do is try that must succeed.
func (p podman) do(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// serve runs a container that answers on the ports 80 to 82.
func (p podman) serve(name string, flags ...string) {
	p.t.Helper()
	args := append([]string{"run", "--detach", "--cgroups=disabled", "--name=" + name, "--hostname=" + name}, flags...)
	p.do(append(args, "--rootfs", p.rootfs, "/bin/peer", "serve", "80", "81", "82")...)
}

// remove stops and removes containers.
func (p podman) remove(names ...string) {
	p.t.Helper()
	p.do(append([]string{"rm", "--force", "--time=0"}, names...)...)
}

// attachment is what podman says of a container in a network.
type attachment struct {
	IPAddress         string
	GlobalIPv6Address string
	MacAddress        string
	Gateway           string
}

// network returns the container's attachment.
func (p podman) network(container, network string) attachment {
	p.t.Helper()
	var all map[string]attachment
	out := p.do("inspect", "--format={{json .NetworkSettings.Networks}}", container)
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	a, ok := all[network]
	if !ok {
		p.t.Fatalf("%s is not in %s: %s", container, network, out)
	}
	return a
}

// in runs a program in a container.
func (p podman) in(container string, argv ...string) (string, error) {
	return p.try(append([]string{"exec", container}, argv...)...)
}

// The network that podman has from the beginning, and the list it writes for it:
// bridge, portmap, firewall, tuning.
func TestDefaultNetwork(t *testing.T) {
	tried.Row(t, "the default network; stop and rm")
	p := newPodman(t)
	p.serve("web", "--publish=8080:80")
	p.serve("other")
	web := p.network("web", "podman").IPAddress
	p.Wants("web saw 10.88.0.1", p.From().TCP(web+":80"))
	p.Wants("web saw 10.88.0.1", p.From().TCP("127.0.0.1:8080"))
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	out, err := p.in("other", "peer", "ask", "tcp", web+":80")
	if want := "web saw " + p.network("other", "podman").IPAddress; err != nil || strings.TrimSpace(out) != want {
		t.Errorf("from another container: want %q, got %q, %v", want, out, err)
	}
	p.Healthy("--deep")
	p.do("stop", "--time=0", "web")
	p.Healthy() // with a container that has stopped
	p.remove("web", "other")
	p.Left("cni-podman0")
}

// Published ports: tcp, udp, a range, one address of the host.
func TestPublishedPorts(t *testing.T) {
	tried.Row(t, "published ports: tcp, udp, a range, one address of the host")
	p := newPodman(t)
	p.serve("web", "--publish=8080:80", "--publish=8053:80/udp", "--publish=9000-9002:80-82", "--publish=192.0.2.1:8081:80")
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8080"))
	p.Wants("web saw 192.0.2.2", p.LAN().UDP("192.0.2.1:8053"))
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:9000"))
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:9002"))
	p.Wants("web saw 192.0.2.2", p.LAN().TCP("192.0.2.1:8081"))
	p.Wants("web saw 192.0.2.1", p.From().TCP("192.0.2.1:8081"))
	p.From().Refuses("tcp", "127.0.0.1:8081")
	p.remove("web")
	p.LAN().Refuses("tcp", "192.0.2.1:8080")
	p.Left("cni-podman0")
}
