package operator

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// findings are what netcleat doctor prints, with the line that mends each.
func (s story) doctor(flags ...string) (text string, ok bool) {
	s.t.Helper()
	s.Sh("mkdir -p /etc/cni/net.d")
	out, err := s.sh("netcleat doctor " + strings.Join(flags, " "))
	return out, err == nil
}

// finding fails the story where doctor does not find it; it returns the line
// that is printed to mend it.
func (s story) finding(pattern string) (mend string) {
	s.t.Helper()
	out, _ := s.doctor()
	m := regexp.MustCompile(`(?m)^` + pattern + `.*\n +-> (.*)$`).FindStringSubmatch(out)
	if m == nil {
		s.t.Fatalf("no finding %s\n%s", pattern, out)
	}
	return m[len(m)-1]
}

// What is left behind, and how it is named. In a PID namespace of its own, as here, doctor
// cannot see who else may hold a network namespace: then the rules of a network are no proven
// leak.
var leaks = []struct{ name, makes, says string }{
	{"element of a published port", `nft 'add element ip cni_hostport ports_any { tcp . 9999 comment "ghost eth0 shop" : 10.90.0.99 . 80 }'`, `warning +container ghost of network shop: 1 rules or elements in ip cni_hostport ports_any: no record, lease`},
	{"element of another network's port", `nft 'add element ip6 cni_hostport ports_any { tcp . 9999 comment "ghost eth0 gone" : fd00::99 . 80 }'`, `warning +container ghost of network gone: 1 rules or elements in ip6 cni_hostport ports_any: no record, lease`},
	{"marker for nerdctl", `iptables -t nat -N CNI-HOSTPORT-DNAT && iptables -t nat -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment 'dnat name: "shop" id: "ghost"' -m multiport --dports 9999`, `warning +container ghost of network shop \(markers for nerdctl\): 1 rules or elements in ip nat CNI-HOSTPORT-DNAT: no record, lease`},
	{"element of the check of hardware addresses", `netcleat-spoof`, `warning +container ghost: 1 rules or elements in bridge cni_spoofcheck checked: no record, lease`},
	{"masquerading of a network", `rm -r /run/netcleat/past /var/lib/cni/results/past-* /var/lib/cni/networks/past; ip link del br-past; ip netns del past; while ip link show | grep -q "alias netcleat past "; do sleep 0.1; done`, `(?:problem|warning) +network past \(masquerading\): \d rules or elements in inet cni_plugins_masquerade masq_checks`},
	{"accepts of a network", `iptables -A CNI-FORWARD -s 10.77.0.0/16 -m comment --comment 'net: ghosts, from 10.77.0.0/16' -j ACCEPT`, `(?:problem|warning) +network ghosts \(firewall\): 1 rules or elements in ip filter CNI-FORWARD`},
	{"rules of a network that has leases", `mkdir -p /var/lib/cni/networks/doubtful && printf 'x\r\neth0' >/var/lib/cni/networks/doubtful/10.78.0.2 && iptables -A CNI-FORWARD -s 10.78.0.0/16 -m comment --comment 'net: doubtful, from 10.78.0.0/16' -j ACCEPT`, ``},
	{"shaper", `ip link add bwp0123456789ab type ifb && ip link set bwp0123456789ab alias "netcleat shop ghost eth0"`, `warning +shaper bwp0123456789ab is of container ghost eth0: no record, lease`},
	{"the reference's shaper", `ip link add bwpba9876543210 type ifb`, `warning +shaper bwpba9876543210 belongs to no known attachment`},
	{"lease of an unknown container", `printf 'ghost\r\neth0' >/var/lib/cni/networks/shop/10.90.0.77`, `warning +network shop: 10\.90\.0\.77 is held by container ghost`},
	{"attachment without a lease", `rm /var/lib/cni/networks/shop/10.90.0.3`, `problem +shop db eth0: has 10\.90\.0\.3 without a lease`},
	{"port of the bridge", `ip link add stray type veth peer name stray1 && ip link set stray master br-shop`, `warning +stray is a port of br-shop, but belongs to no known attachment`},
	{"end on the host of ptp", `ip link add stray type veth peer name stray1 && ip link set stray alias "netcleat shop ghost eth0"`, `warning +stray was made for "shop ghost eth0", which is no known attachment`},
	{"chain of iptables", `iptables -t nat -N CNI-abc && iptables -t nat -A CNI-abc -j MASQUERADE && iptables -t nat -A POSTROUTING -s 10.9.9.9 -m comment --comment 'name: "shop" id: "ghost"' -j CNI-abc`, `warning +chain CNI-abc of iptables is of container ghost`},
	{"file of tuning", `mkdir -p /run/cni/tuning && echo '{}' >/run/cni/tuning/ghost_eth0.json`, `warning +/run/cni/tuning/ghost_eth0\.json: tuning kept it`},
	{"entry of libcni's cache", `sed 's/"db"/"ghost"/; s#/run/netns/db#/run/netns/ghost#' /var/lib/cni/results/shop-db-eth0 >/var/lib/cni/results/shop-ghost-eth0`, `note +shop ghost eth0: libcni remembers it, but there is no namespace`},
	{"forwarding off", `sysctl -qw net.ipv6.conf.all.forwarding=0`, `problem +forwarding of IPv6 is off: the containers of shop reach nobody but the host`},
	{"rules missing", `nft flush ruleset`, `problem +shop web eth0: rules of \[bridge portmap firewall\] are missing`},
	{"limit missing", `for i in $(ip -o link show type ifb | sed 's/^[0-9]*: \([^:]*\):.*/\1/'); do ip link del $i; done`, `problem +shop web eth0: rules of \[bandwidth\] are missing`},
}

const past = `{
  "cniVersion": "1.0.0", "name": "past",
  "plugins": [
    {"type": "bridge", "bridge": "br-past", "isDefaultGateway": true, "ipMasq": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.92.0.0/24"}], [{"subnet": "fd00:92::/64"}]]}},
    {"type": "firewall"}
  ]
}`

// Each leak is named, and the printed line mends it; what lives goes on.
func TestLeaks(t *testing.T) {
	s, _ := newStory(t)
	s.Add(s.List(past), s.Container("past"))
	s.Write("/etc/cni/net.d/shop.conflist", list)
	spoofed := strings.NewReplacer(`"shop"`, `"guarded"`, "br-shop", "br-guarded", `"hairpinMode": true`, `"macspoofchk": true`, "10.90.", "10.93.", "fd00:90:", "fd00:93:").Replace(list)
	s.Add(s.List(spoofed), s.Container("guarded"))
	if out, ok := s.doctor(); !ok || strings.Contains(out, "warning") {
		t.Fatalf("doctor finds something from the beginning\n%s", out)
	}
	spoof := `nft 'add element bridge cni_spoofcheck checked { "vethgone" comment "02:00:00:00:00:01 ghost" }' && nft 'add element bridge cni_spoofcheck allowed { "vethgone" . 02:00:00:00:00:01 }'`
	for _, l := range leaks {
		t.Run(l.name, func(t *testing.T) {
			s := story{s.Host, t}
			if out, err := s.sh(strings.ReplaceAll(l.makes, "netcleat-spoof", spoof)); err != nil {
				t.Fatalf("%s: %v\n%s", l.makes, err, out)
			}
			if l.says == "" { // it is none
				if out, ok := s.doctor("--fix"); !ok || strings.Contains(out, "mended") {
					t.Errorf("doctor finds something\n%s", out)
				}
				return
			}
			mend := s.finding(l.says)
			t.Log("-> " + mend)
			proven := mend == "netcleat doctor --fix"
			if dry, _ := s.doctor("--dry-run"); proven != regexp.MustCompile(`(?m)^would mend: `).MatchString(dry) {
				t.Errorf("--dry-run does not say what --fix does\n%s", dry)
			}
			s.finding(l.says) // which changed nothing
			fixed, _ := s.doctor("--fix")
			if found := regexp.MustCompile(`(?m)^` + l.says).MatchString(fixed); found && strings.HasPrefix(mend, "netcleat") && !strings.Contains(mend, " # ") {
				t.Errorf("--fix leaves it\n%s", fixed)
			} else if !found && strings.HasPrefix(mend, "# ") {
				t.Errorf("--fix has taken what is not proven\n%s", fixed)
			}
			mend = s.found(l.name, mend)
			if out, err := s.sh(mend); err != nil {
				t.Fatalf("%s: %v\n%s", mend, err, out)
			}
			if out, _ := s.doctor(); regexp.MustCompile(`(?m)^` + l.says).MatchString(out) {
				t.Errorf("not mended by %s\n%s", mend, out)
			}
			s.works()
		})
	}
	if out, ok := s.doctor(); !ok || strings.Contains(out, "warning") {
		t.Errorf("doctor finds something at the end\n%s", out)
	}
}

// deleteRules is the command that deletes a network's rules of a chain.
func deleteRules(chain, network string) string {
	return "for h in $(nft -a list chain " + chain + " | sed -n 's/.*net: " + network + "\\b.* handle //p'); do nft delete rule " + chain + " handle $h; done\n"
}

// found is what an operator runs who has found out what doctor did not know: that
// the container no longer exists, and that a link or a file is a leftover.
func (s story) found(leak, mend string) string {
	s.t.Helper()
	if !strings.HasPrefix(mend, "# ") {
		return mend
	}
	if _, forget, ok := strings.Cut(mend, "remove what is left with: "); ok {
		return forget + " --force"
	}
	by := map[string]string{
		"masquerading of a network":                  deleteRules("inet cni_plugins_masquerade masq_checks", "past") + deleteRules("ip filter CNI-FORWARD", "past") + deleteRules("ip6 filter CNI-FORWARD", "past"),
		"accepts of a network":                       `iptables -D CNI-FORWARD -s 10.77.0.0/16 -m comment --comment 'net: ghosts, from 10.77.0.0/16' -j ACCEPT`,
		"the reference's shaper":                     "ip link del bwpba9876543210",
		"element of the check of hardware addresses": `nft 'delete element bridge cni_spoofcheck checked { "vethgone" }; delete element bridge cni_spoofcheck allowed { "vethgone" . 02:00:00:00:00:01 }'`,
		"port of the bridge":                         "ip link del stray",
		"file of tuning":                             "rm /run/cni/tuning/ghost_eth0.json",
	}
	if by[leak] == "" {
		s.t.Fatalf("nothing mends it: %s", mend)
	}
	return by[leak]
}

// destructive are commands that take what a running container may need.
var destructive = regexp.MustCompile(`\b(rm|ip link del|ip netns del|nft (delete|flush|destroy)|ip6?tables\S* .*-[DFX]|netcleat forget .*--force)\b`)

// Where every memory of running containers is lost, doctor does not say, nor does
// --fix, that anything of them be removed.
func TestNothingOfTheLivingIsDeleted(t *testing.T) {
	s, _ := newStory(t)
	s.Write("/etc/cni/net.d/shop.conflist", list)
	s.Sh("iptables -t nat -N CNI-abc && iptables -t nat -A CNI-abc -j MASQUERADE && iptables -t nat -A POSTROUTING -s 10.9.9.9 -m comment --comment 'name: \"shop\" id: \"web\"' -j CNI-abc")
	counts := regexp.MustCompile(`packets \d+ bytes \d+`)
	state := func() string { return counts.ReplaceAllString(s.Sh("ip -o link; nft list ruleset"), "") }
	before := state()
	for _, loss := range []string{
		"mv /var/lib/cni/results /var/lib/cni/lost",
		"rm -r /run/netcleat/shop",
		"rm -r /var/lib/cni/networks/shop",
		"mv /var/lib/cni/lost /var/lib/cni/results",
		"sed -i 's#/run/netns/#/proc/1/no/#g' /var/lib/cni/results/*",
	} {
		s.Sh(loss)
		out, _ := s.doctor()
		for line := range strings.Lines(out) {
			if _, mend, ok := strings.Cut(line, "-> "); ok && !strings.HasPrefix(mend, "#") && destructive.MatchString(mend) {
				t.Errorf("after %s: %s\n%s", loss, mend, out)
			}
		}
		s.doctor("--fix")
		if after := state(); after != before {
			t.Fatalf("--fix after %s:\n%s", loss, cmp.Diff(before, after))
		}
	}
	s.works()
}

// Each configuration is linted.
func TestLinted(t *testing.T) {
	s, _ := newStory(t)
	s.Write("/etc/cni/net.d/bad.conflist", `{"cniVersion": "1.0.0", "name": "bad", "plugins": [{"type": "bridge", "mtu": -1}]}`)
	s.Write("/etc/cni/net.d/worse.conflist", `{"cniVersion": "1.0.0",`)
	mend := s.finding(`problem +/etc/cni/net.d/bad\.conflist.*mtu -1: negative`)
	if !strings.HasPrefix(mend, "netcleat lint /etc/cni/net.d/bad.conflist") {
		t.Errorf("mend: %s", mend)
	}
	s.finding(`problem +/etc/cni/net.d/worse\.conflist: `)
	out, _ := s.doctor()
	if n := strings.Count(out, "worse.conflist"); n != 1 {
		t.Errorf("worse.conflist is told %d times\n%s", n, out)
	}
	s.works()
}
