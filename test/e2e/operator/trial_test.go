package operator

import (
	"encoding/json"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/netcleat/netcleat/test/e2e/bed"
)

const tryList = `{
  "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "shop",
  "plugins": [
    {"type": "bridge", "bridge": "br-shop", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.90.0.0/24"}], [{"subnet": "fd00:90::/64"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall"},
    {"type": "dnsname", "domainName": "shop.test"}
  ]
}`

// newTrial makes a host with network shop, whose neighbour is the next hop.
func newTrial(t *testing.T, conflist string) story {
	t.Helper()
	s := story{bed.New(t, "iptables", "nft"), t}
	s.Write("/etc/cni/net.d/shop.conflist", conflist)
	s.Sh("ip route add default via 192.0.2.2 && ip -6 route add default via 2001:db8::2")
	return s
}

// try tests network shop, and returns what it prints and its exit status.
func (s story) try(flags string) (out string, status int) {
	s.t.Helper()
	out, err := s.sh("netcleat network test shop " + flags)
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		return out, e.ExitCode()
	}
	if err != nil {
		s.t.Fatalf("network test: %v\n%s", err, out)
	}
	return out, 0
}

// A network that works passes everything in both families, and nothing stays of it.
func TestTrialOfAHealthyNetwork(t *testing.T) {
	s := newTrial(t, tryList)
	s.Mark()
	out, status := s.try("")
	for _, want := range []string{
		`two sandboxes attached: 10\.90\.0\.\d+/24, fd00:90::\w+/64 and 10\.90\.0\.\d+/24, fd00:90::\w+/64$`,
		`ping from one sandbox to the other, 10\.90\.0\.\d+$`, `ping from one sandbox to the other, fd00:90::\w+$`,
		`ping the gateway, 10\.90\.0\.1$`, `ping the gateway, fd00:90::1$`,
		`name of the other sandbox, asked of 10\.90\.0\.1$`, `name of the other sandbox, asked of fd00:90::1$`,
		`ping 192\.0\.2\.2, outside$`, `ping 2001:db8::2, outside$`,
		`published port 192\.0\.2\.1:\d+, asked by the host$`, `published port 192\.0\.2\.1:\d+, asked by the other sandbox$`,
		`published port \[2001:db8::1\]:\d+, asked by the host$`, `published port \[2001:db8::1\]:\d+, asked by the other sandbox$`,
		`both detached$`,
	} {
		if !regexp.MustCompile(`(?m)^ok +` + want).MatchString(out) {
			t.Errorf("no line says ok %s", want)
		}
	}
	if status != 0 || strings.Contains(out, "failed") || strings.Contains(out, "skipped") {
		t.Errorf("exit status %d\n%s", status, out)
	}
	s.Left("br-shop")
}

// Without chained plugins, what cannot be tried is skipped, with the reason.
func TestTrialSkips(t *testing.T) {
	s := newTrial(t, `{"cniVersion": "1.0.0", "name": "shop", "plugins": [{"type": "bridge", "bridge": "br-shop", "isGateway": true, "portIsolation": true, "ipam": {"type": "host-local", "subnet": "10.90.0.0/24"}}]}`)
	s.Mark()
	out, status := s.try("-o json")
	var r struct {
		Checks []struct{ Outcome, What, Why string }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 {
		t.Fatalf("%v, exit status %d\n%s", err, status, out)
	}
	var skipped []string
	for _, c := range r.Checks {
		if c.Outcome == "skipped" {
			skipped = append(skipped, c.What)
		}
	}
	if got := strings.Join(skipped, ", "); got != "ping between the sandboxes, names, outside, published port" {
		t.Errorf("skipped: %s\n%s", got, out)
	}
	s.Left("br-shop")
}

// What is broken fails, with the cause and the command that fixes it; and nothing stays.
func TestTrialOfABrokenNetwork(t *testing.T) {
	for _, b := range []struct{ name, breaks, fails, cause string }{
		{"a chain drops", `nft 'add table inet site; add chain inet site f { type filter hook forward priority 5; policy drop; }'`, `ping 192\.0\.2\.2, outside: no answer`, `inet site f drops it: policy drop`},
		{"IPv6 does not leave", `ip route add blackhole 2001:db8:1::/48; nft 'add table ip6 site; add chain ip6 site f { type filter hook forward priority 5; policy drop; }'`, `ping 2001:db8::2, outside: no answer`, `ip6 site f drops it: policy drop`},
		{"gateway mute", `nft 'add table ip site; add chain ip site f { type filter hook input priority 5; }; add rule ip site f iifname "br-shop" icmp type echo-request drop'`, `ping the gateway, 10\.90\.0\.1: no answer`, ``},
		{"names mute", `nft 'add table ip site; add chain ip site f { type filter hook prerouting priority -300; }; add rule ip site f udp dport 53 drop'`, `name of the other sandbox, asked of 10\.90\.0\.1: `, ``},
		{"published port taken on its way", `nft 'add table ip site; add chain ip site f { type filter hook forward priority 5; }; add rule ip site f tcp dport 8080 drop'`, `published port 192\.0\.2\.1:\d+, asked by the other sandbox: `, ``},
	} {
		t.Run(b.name, func(t *testing.T) {
			s := newTrial(t, tryList)
			s.Sh(b.breaks)
			s.Mark()
			out, status := s.try("")
			if status != 1 || !regexp.MustCompile(`(?m)^failed +`+b.fails).MatchString(out) {
				t.Errorf("exit status %d, want 1, and failed %s\n%s", status, b.fails, out)
			}
			if b.cause != "" && !regexp.MustCompile(`(?m)^root cause: .*`+b.cause+`\nfix: \S`).MatchString(out) {
				t.Errorf("no cause %s\n%s", b.cause, out)
			}
			s.Left("br-shop")
		})
	}
}

// An ADD that fails is a finding, and what the ADD before it has made does not stay.
func TestTrialOfAFullNetwork(t *testing.T) {
	s := newTrial(t, strings.Replace(tryList, `{"subnet": "10.90.0.0/24"}`, `{"subnet": "10.90.0.0/24", "rangeStart": "10.90.0.5", "rangeEnd": "10.90.0.5"}`, 1))
	s.Mark()
	out, status := s.try("")
	if status != 1 || !regexp.MustCompile(`(?m)^failed +two sandboxes attached: 10\.90\.0\.5/24, \S+: .*no IP addresses available`).MatchString(out) {
		t.Errorf("exit status %d\n%s", status, out)
	}
	s.Left("br-shop")
}

// What cannot be tried ends with 2.
func TestTrialThatCannotBe(t *testing.T) {
	s := newTrial(t, tryList)
	for _, args := range []string{"nothing", "shop --target nowhere", "shop -o yaml", "shop --cni-path /nowhere"} {
		out, err := s.sh("netcleat network test " + args)
		if e := (*exec.ExitError)(nil); !errors.As(err, &e) || e.ExitCode() != 2 {
			t.Errorf("%s: want exit status 2, got %v\n%s", args, err, out)
		}
	}
}

// Whoever reads its output may end before it does.
func TestTrialUnread(t *testing.T) {
	s := newTrial(t, tryList)
	s.Mark()
	if out, err := s.sh("netcleat network test shop | head -n 1"); err != nil || !strings.Contains(out, "two sandboxes attached") {
		t.Errorf("%v\n%s", err, out)
	}
	s.Left("br-shop")
}

// slow is a plugin whose ADD does not end.
const slow = `#!/bin/sh
if [ "$CNI_COMMAND" = ADD ]; then
	echo $$ >/run/slow
	exec sleep 1000
fi
if [ "$CNI_COMMAND" = VERSION ]; then
	echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}'
fi
`

// Interrupted while it waits for an answer, or for a plugin, it leaves nothing; killed, it leaves
// what netcleat gc removes.
func TestTrialInterrupted(t *testing.T) {
	hanging := strings.Replace(tryList, `{"type": "dnsname", "domainName": "shop.test"}`, `{"type": "slow"}`, 1)
	for _, i := range []struct {
		name, list string
		signal     syscall.Signal
		when       string // a condition of the shell
	}{
		{"while pinging", tryList, syscall.SIGINT, "grep -q 'ping the gateway, fd00' /run/out"},
		{"in the middle of an ADD", hanging, syscall.SIGTERM, "test -s /run/slow"},
		{"when the session is lost", tryList, syscall.SIGHUP, "grep -q 'ping the gateway, fd00' /run/out"},
		{"killed", tryList, syscall.SIGKILL, "grep -q 'ping the gateway, fd00' /run/out"},
		{"killed in the middle of an ADD", hanging, syscall.SIGKILL, "test -s /run/slow"},
	} {
		t.Run(i.name, func(t *testing.T) {
			s := newTrial(t, tryList)
			s.Write("/etc/cni/net.d/shop.conflist", i.list)
			s.Write(s.Plugins+"/slow", slow)
			s.Sh("chmod +x " + s.Plugins + "/slow; rm -f /run/out")
			s.Mark()
			c := s.Cmd("sh", "-c", "export CNI_PATH="+s.Plugins+"; exec "+s.Netcleat()+" network test shop --target 192.0.2.99 --target 192.0.2.98 >/run/out 2>&1")
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			s.Wait(i.when, func() bool { _, err := s.Try("sh", "-c", i.when); return err == nil })
			s.Sh("kill -" + map[syscall.Signal]string{syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP", syscall.SIGKILL: "KILL"}[i.signal] + " $(pgrep -f '[n]etcleat network test shop --target' | head -1)")
			_ = c.Wait()
			out := s.Sh("cat /run/out")
			if i.signal == syscall.SIGKILL {
				s.Sh("[ ! -s /run/slow ] || kill $(cat /run/slow) || true")
				if gc, err := s.sh("netcleat gc"); err != nil {
					t.Fatalf("gc: %v\n%s", err, gc)
				}
			} else if status := c.ProcessState.ExitCode(); status != 2 || !strings.Contains(out, "both detached") {
				t.Errorf("exit status %d, want 2\n%s", status, out)
			}
			s.Left("br-shop")
		})
	}
}
