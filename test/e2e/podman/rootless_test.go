package podman

import (
	"slices"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
	"github.com/netcleat/netcleat/test/e2e/tried"
)

// newRootless is podman of a user of the host, who has a range of IDs and no
// privileges.
func newRootless(t *testing.T) podman {
	t.Helper()
	h := bed.New(t, "podman", "crun", "conmon", "busybox", "newuidmap", "slirp4netns")
	h.OwnEtc()
	home := h.Dir + "/ann"
	h.Sh(`
		echo "ann:x:1000:1000::` + home + `:/bin/sh" >>/etc/passwd
		echo "ann:x:1000:" >>/etc/group
		echo "ann:100000:65536" | tee /etc/subuid >/etc/subgid
		mkdir -p ` + home + ` /run/user/1000
		mknod -m 666 /run/tun c 10 200
		mount --bind /run/tun /dev/net/tun`)
	p := podman{h, t, h.Rootfs("tree"), []string{"setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "env", "HOME=" + home, "XDG_RUNTIME_DIR=/run/user/1000"}}
	p.configure()
	h.Sh("chown -R 1000:1000 /run/user/1000 " + h.Dir + " && chown -R 0:0 " + h.Plugins)
	h.Mark()
	return p
}

// A user's containers are on networks in a namespace of the user's, where the
// plugins run as a root without privileges over the host. Published ports are
// podman's own there: its server listens, and connects from within the container.
func TestRootless(t *testing.T) {
	tried.Row(t, "as a user (rootless), with slirp4netns: networks with a subnet and `--ipv6`, published ports, `network connect` and `disconnect`, `restart`")
	p := newRootless(t)
	p.do("network", "create", "--subnet=10.60.0.0/24", "street")
	p.do("network", "create", "--ipv6", "--subnet=10.61.0.0/24", "--subnet=fd00:61::/64", "square")
	p.serve("web", "--network=street,square", "--publish=8080:80", "--publish=8053:80/udp")
	p.serve("other", "--network=street")
	p.published()
	p.asks("other", p.network("web", "street").IPAddress+":80", "web saw "+p.network("other", "street").IPAddress)
	p.do("network", "connect", "square", "other")
	p.asks("other", "["+p.network("web", "square").GlobalIPv6Address+"]:80", "web saw "+p.network("other", "square").GlobalIPv6Address)
	p.do("network", "disconnect", "square", "other")
	p.do("restart", "--time=0", "web")
	p.published()
	p.asks("other", p.network("web", "street").IPAddress+":80", "web saw "+p.network("other", "street").IPAddress)
	if records := p.records(); records == "" {
		t.Error("no record: it was not our plugins that attached")
	}
	p.remove("web", "other")
	if records := p.records(); records != "" {
		t.Errorf("records are left: %s", records)
	}
	p.do("network", "rm", "street", "square")
	p.Left()
}

// published has the container web answer at its host ports, to itself.
func (p podman) published() {
	p.t.Helper()
	own := []string{"web saw " + p.network("web", "street").IPAddress, "web saw " + p.network("web", "square").IPAddress}
	for _, answer := range []string{p.LAN().TCP("192.0.2.1:8080"), p.From().TCP("192.0.2.1:8080"), p.LAN().UDP("192.0.2.1:8053")} {
		if !slices.Contains(own, answer) {
			p.t.Errorf("answer: want one of %q, got %q", own, answer)
		}
	}
}

// records are the plugins' files about attachments of the user's containers.
func (p podman) records() string {
	p.t.Helper()
	return p.Sh("find " + p.Dir + "/tmp/rootless-netns/run/netcleat -type f ! -name '.*' ! -path '*/.locks/*' 2>/dev/null || true")
}

// A user's networks have names, too: the server runs in the user's namespace, as root of
// that, and outside of it nothing listens.
func TestRootlessNames(t *testing.T) {
	tried.Row(t, "as a user (rootless): names and `--network-alias`, with the daemon killed")
	p := newRootless(t)
	p.do("network", "create", "one")
	p.do("network", "create", "two")
	var all []string
	for _, c := range []string{"a", "b", "c"} {
		p.serve(c, "--network=one", "--network-alias=app")
		all = append(all, p.network(c, "one").IPAddress)
	}
	p.serve("other", "--network=two")
	p.resolves("a", "b", all[1])
	p.resolves("a", "other", "NXDOMAIN")
	p.rotates("a", "app", all)
	if out := p.Run("ss", "-Hlnup", "sport = :53"); out != "" {
		t.Errorf("outside of the user's namespace something listens: %s", out)
	}
	p.Sh("kill -9 $(cat " + p.Dir + "/tmp/rootless-netns/run/netcleat/.dns.lock)")
	p.remove("b")
	p.serve("d", "--network=one")
	p.resolves("a", "c", all[2])
	p.resolves("a", "b", "NXDOMAIN")
	p.remove("a", "c", "d", "other")
	if records := p.records(); records != "" {
		t.Errorf("records are left: %s", records)
	}
	p.do("network", "rm", "one", "two")
	p.Left()
}
