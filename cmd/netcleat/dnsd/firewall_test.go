package dnsd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// closed are hosts that drop what they receive, each its own way.
var closed = map[string]func(*town){
	"iptables-nft, policy": func(w *town) {
		w.Run("iptables", "-P", "INPUT", "DROP")
		w.Run("ip6tables", "-P", "INPUT", "DROP")
		w.Run("ip6tables", "-A", "INPUT", "-p", "ipv6-icmp", "-j", "ACCEPT")
	},
	"iptables-nft, rule": func(w *town) {
		w.Run("iptables", "-A", "INPUT", "-j", "REJECT")
		w.Run("ip6tables", "-A", "INPUT", "-p", "udp", "-j", "DROP")
	},
	"iptables-legacy": func(w *town) {
		w.Run("iptables-legacy", "-P", "INPUT", "DROP")
		w.Run("ip6tables-legacy", "-P", "INPUT", "DROP")
		w.Run("ip6tables-legacy", "-A", "INPUT", "-p", "ipv6-icmp", "-j", "ACCEPT")
	},
	"nftables, inet": func(w *town) {
		w.Run("nft", `add table inet mine; add chain inet mine in { type filter hook input priority 0; policy drop; }; add rule inet mine in meta l4proto ipv6-icmp accept`)
	},
	"nftables, two tables": func(w *town) {
		w.Run("nft", `add table ip a; add chain ip a in { type filter hook input priority -10; }; add rule ip a in udp dport 53 drop`)
		w.Run("nft", `add table ip6 b; add chain ip6 b other; add rule ip6 b other udp dport 53 reject; add chain ip6 b in { type filter hook input priority 10; }; add rule ip6 b in jump other`)
	},
}

// rules is the host's firewall.
func (w *town) rules() string {
	w.t.Helper()
	return w.Run("nft", "list", "ruleset") + w.Run("iptables-legacy-save") + w.Run("ip6tables-legacy-save")
}

// TestInputDrop: queries get in on each of the hosts, nothing else does, and the
// last container takes the rules with it.
func TestInputDrop(t *testing.T) {
	for name, prepare := range closed {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			web, db := named("web", 2), named("db", 3)
			cw, cd := w.call(web), w.call(db)
			prepare(w)
			before := rulesOf(w.rules())
			w.Must(plugin.Add, cw)
			w.Must(plugin.Add, cd)
			w.opened(web.id)
			if out, ok := w.Try("iptables", "-S", "INPUT"); !ok {
				t.Errorf("iptables cannot list its table any more: %s", out)
			}
			w.Must(plugin.Check, cw)
			w.Must(plugin.Del, cw)
			w.want(asks{id: db.id, name: "db"}, "10.1.0.3")
			w.Must(plugin.Del, cd)
			if got := rulesOf(w.rules()); got != before {
				t.Errorf("rules were left:\n%s\nbefore:\n%s", got, before)
			}
		})
	}
}

func (w *town) opened(id string) {
	w.t.Helper()
	for _, server := range []string{"10.1.0.1", "fd01::1"} {
		w.want(asks{id: id, name: "db", server: server}, "10.1.0.3")
		w.want(asks{id: id, name: "db", server: server, tcp: true}, "10.1.0.3")
	}
	w.Serve(w.Host, "tcp4", "10.1.0.1:8053")
	if got := w.Ask(w.sandbox[id], "tcp", "10.1.0.1:8053"); got != "" && !strings.Contains(w.rules(), "dport 53 ") {
		w.t.Error("another port is open")
	}
}

// rulesOf is a ruleset without counters, and without the empty tables of iptables.
func rulesOf(text string) string {
	var lines []string
	for line := range strings.Lines(counters.ReplaceAllString(text, "counter")) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "*") || strings.HasPrefix(line, "COMMIT") {
			continue
		}
		line, _, _ = strings.Cut(line, " [")
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n")
}

var counters = regexp.MustCompile(`counter packets \d+ bytes \d+`)

// TestReconcile: what flushes the rules is made good by the record.
func TestReconcile(t *testing.T) {
	for name, prepare := range closed {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			web, db := named("web", 2), named("db", 3)
			w.add(web)
			w.add(db)
			prepare(w) // after the container, with no rule of ours in it
			if got := w.Fails(plugin.Check, w.call(web), 102); !strings.Contains(got, "netcleat reconcile restores it") {
				t.Errorf("CHECK: %s", got)
			}
			r, err := w.Journal().Read(w.keyOf(web))
			must(t, err)
			must(t, dnsname.Reconcile(t.Context(), nil, w.Journal(), r))
			w.opened(web.id)
			n := 0
			must(t, dnsname.Reconcile(t.Context(), func(string) error { n++; return nil }, w.Journal(), r))
			if n > 0 {
				t.Errorf("%d changes though nothing is missing", n)
			}
		})
	}
}

// TestChangedRule: a rule of the old tables that was changed, and kept its comment, is
// missing, and is made good.
func TestChangedRule(t *testing.T) {
	w := newTown(t)
	web, db := named("web", 2), named("db", 3)
	cw, cd := w.call(web), w.call(db)
	closed["iptables-legacy"](w)
	w.Must(plugin.Add, cw)
	w.Must(plugin.Add, cd)
	before := w.Run("iptables-legacy-save")
	for _, change := range [][2]string{{"--dport 53 ", "--dport 54 "}, {"-d 10.1.0.1/32 ", "-d 10.1.0.9/32 "}, {"-j ACCEPT", "-j DROP"}} {
		w.restore(strings.ReplaceAll(before, change[0], change[1]))
		if got := w.Fails(plugin.Check, cw, 102); !strings.Contains(got, "netcleat reconcile restores it") {
			t.Errorf("%s: CHECK: %s", change[1], got)
		}
		r, err := w.Journal().Read(w.keyOf(web))
		must(t, err)
		must(t, dnsname.Reconcile(t.Context(), nil, w.Journal(), r))
		if got, want := rulesOf(w.Run("iptables-legacy-save")), rulesOf(before); got != want {
			t.Errorf("%s: restored to\n%s\nwant\n%s", change[1], got, want)
		}
		w.want(asks{id: web.id, name: "db"}, "10.1.0.3")
	}
}

// restore loads what iptables-legacy-save has printed.
func (w *town) restore(text string) {
	w.t.Helper()
	file := filepath.Join(w.Dir, "rules")
	must(w.t, os.WriteFile(file, []byte(text), 0o600))
	w.Run("sh", "-c", "iptables-legacy-restore <"+file)
}
