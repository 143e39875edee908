package nerdctl

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

// A container's ends and beginnings.
func TestRestarts(t *testing.T) {
	tried.Row(t, "`restart`, `stop` and `start`, `kill`, a killed process, a restart of containerd; `rm --force` of all")
	n := newNerdctl(t)
	n.serve("web", "--publish=8080:80")
	answers := func(after string) {
		t.Helper()
		n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
		if t.Failed() {
			t.Fatalf("after %s", after)
		}
	}
	ends := func(how func()) {
		t.Helper()
		how()
		n.Wait("the container has ended", func() bool { return !strings.HasPrefix(n.status()["web"], "Up") })
	}
	answers("run")
	n.do("restart", "--time=0", "web")
	answers("restart")
	ends(func() { n.do("stop", "--time=0", "web") })
	n.LAN().Refuses("tcp", "192.0.2.1:8080")
	n.do("start", "web")
	answers("stop and start")
	ends(func() { n.do("kill", "web") })
	n.do("start", "web")
	answers("kill and start")
	ends(func() { n.Run("kill", "-9", n.pid("web")) })
	n.do("start", "web")
	answers("kill -9 and start")
	n.Stop()
	answers("the end of containerd")
	n.Start()
	answers("a restart of containerd")
	n.serve("late", "--publish=80")
	n.Wants("late saw 192.0.2.2", n.LAN().TCP("192.0.2.1:"+n.port("late")))
	n.remove("web", "late")
	n.left(bridge)
}

// A boot empties /run and the kernel's tables. Containers that start again have
// their networks and ports.
func TestReboot(t *testing.T) {
	tried.Row(t, "a reboot (processes, links, rules and /run are lost): `start` attaches again, with the same ports")
	n := newNerdctl(t)
	n.serve("web", "--publish=8080:80")
	n.serve("random", "--publish=80")
	port := n.port("random")
	n.Stop()
	n.Reboot(bridge)
	n.Start()
	n.Healthy()
	n.do("start", "web", "random")
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.Healthy("--deep")
	n.Wants("random saw 192.0.2.2", n.LAN().TCP("192.0.2.1:"+port))
	n.serve("late", "--publish=80")
	if n.port("late") == port {
		t.Errorf("two containers have port %s", port)
	}
	n.remove("web", "random", "late")
	n.left(bridge)
}

const composeFile = `
services:
  web:
    image: ` + bed.ImageTag + `
    hostname: web
    ports: ["8080:80"]
    networks: [front, back]
    command: ["/bin/peer", "serve", "80"]
    cgroup_parent: CGROUP
  db:
    image: ` + bed.ImageTag + `
    hostname: db
    networks: [back]
    command: ["/bin/peer", "serve", "81"]
    cgroup_parent: CGROUP
networks:
  front: {}
  back: {}
`

// Two services and two networks, which compose makes and removes; then what a
// prune removes.
func TestCompose(t *testing.T) {
	tried.Row(t, "`compose up` and `down` with two services and two networks; services reach each other by name")
	tried.Row(t, "`system prune`, `network prune`: unused networks are removed, and nothing is left")
	n := newNerdctl(t)
	file := n.write("compose.yaml", strings.ReplaceAll(composeFile, "CGROUP", n.cgroup))
	compose := func(args ...string) string {
		t.Helper()
		return n.do(append([]string{"compose", "--project-name=shop", "--file=" + file}, args...)...)
	}
	compose("up", "--detach", "--no-build")
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	web := n.containerOf("web")
	if out, err := n.in(web, "/bin/peer", "ask", "tcp", "db:81"); err != nil || !strings.HasPrefix(out, "db saw ") {
		t.Errorf("web asks db: %v %s", err, out)
	}
	compose("down")
	if nets := n.do("network", "ls", "--format={{.Name}}"); strings.Contains(nets, "shop") {
		t.Errorf("networks after compose down: %s", nets)
	}
	n.do("network", "create", "unused")
	n.do("network", "create", "used")
	n.serve("web", "--network=used", "--publish=8080:80")
	n.do("system", "prune", "--force")
	nets := n.do("network", "ls", "--format={{.Name}}")
	if strings.Contains(nets, "unused") || !strings.Contains(nets, "used") {
		t.Errorf("networks after a prune: %s", nets)
	}
	n.Wants("web saw 192.0.2.2", n.LAN().TCP("192.0.2.1:8080"))
	n.remove("web")
	n.do("network", "prune", "--force")
	n.left(bridge)
}

// containerOf is the container of compose's service.
func (n nerdctl) containerOf(service string) string {
	n.t.Helper()
	for name := range n.status() {
		if strings.Contains(name, service) {
			return name
		}
	}
	n.t.Fatalf("service %s: no container", service)
	return ""
}
