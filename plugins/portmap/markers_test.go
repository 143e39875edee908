package portmap_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// nerdctlID is a container's ID as nerdctl makes it.
func nerdctlID(name string) string { return "default-" + fmt.Sprintf("%064x", name)[:64] }

// ofNerdctl is a call for a container of nerdctl's.
func ofNerdctl(name, conf string) nltest.Call {
	c := call(conf)
	c.ContainerID = nerdctlID(name)
	return c
}

// read is what nerdctl takes for taken, by the expression and the command that it
// has for that.
func (w *town) read() string {
	out, _ := w.Try("iptables", "-t", "nat", "-S", "CNI-HOSTPORT-DNAT")
	var ports []string
	for _, m := range regexp.MustCompile(`--dports ((,?\d+)+)`).FindAllStringSubmatch(out, -1) {
		ports = append(ports, m[1])
	}
	return strings.Join(ports, " ")
}

// TestMarkers: what nftables publishes for nerdctl's containers is to be read
// where the reference has it, and no longer than that.
func TestMarkers(t *testing.T) {
	w := newTown(t)
	before := w.rules()
	a, b := ofNerdctl("a", conf("", mappings)), ofNerdctl("b", conf("", `[{"hostPort":9000,"containerPort":80}]`))
	b.Netns = w.PathOf(w.neighbour)
	w.Must(plugin.Add, a)
	w.Must(plugin.Add, b)
	if diff := cmp.Diff("8080,8081,8082,8084 5353 9000", w.read()); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	want := `-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net1\" id: \"` + b.ContainerID + `\"" -m multiport --dports 9000` + "\n"
	if out := w.Run("iptables", "-t", "nat", "-S"); !strings.Contains(out, want) {
		t.Errorf("%s is not in:\n%s", want, out)
	}
	w.Must(plugin.Check, a)
	w.Must(plugin.Del, a)
	w.Must(plugin.Del, a)
	if diff := cmp.Diff("9000", w.read()); diff != "" {
		t.Errorf("ports after one is detached (-want +got):\n%s", diff)
	}
	w.Must(plugin.Del, b)
	if diff := cmp.Diff(before, w.withoutBuiltin(w.rules())); diff != "" {
		t.Errorf("after the last DEL (-before +after):\n%s", diff)
	}
}

// withoutBuiltin drops the chains that iptables makes where it only lists.
func (w *town) withoutBuiltin(rules string) string {
	return regexp.MustCompile(`(?s)table ip nat \{\n(\tchain [A-Z]+ \{\n\t\ttype nat hook \w+ priority \S+; policy accept;\n\t\}\n\n?)*\}\n`).ReplaceAllString(rules, "")
}

// TestMarkersOfOthers: containers of other runtimes have markers where nerdctl is
// in use only, which its directory shows.
func TestMarkersOfOthers(t *testing.T) {
	for _, id := range []string{"c1", strings.Repeat("ab", 32), "default-web", "default-" + strings.Repeat("ab", 31)} {
		w := newTown(t)
		c := call(conf("", mappings))
		c.ContainerID = id
		w.Must(plugin.Add, c)
		if rules := w.rules(); strings.Contains(rules, "table ip nat") {
			t.Errorf("%s has markers:\n%s", id, rules)
		}
	}
}

// TestMarkersOfManyPorts: nerdctl does not read ranges, and a rule takes 15 ports.
func TestMarkersOfManyPorts(t *testing.T) {
	w := newTown(t)
	var list []string
	for p := 49153; p < 49153+40; p++ {
		list = append(list, fmt.Sprintf(`{"hostPort":%d,"containerPort":%d}`, p, p))
	}
	c := ofNerdctl("a", conf("", "["+strings.Join(list, ",")+"]"))
	w.Must(plugin.Add, c)
	ports := strings.FieldsFunc(w.read(), func(r rune) bool { return r == ',' || r == ' ' })
	if len(ports) != 40 || ports[0] != "49153" || ports[39] != "49192" {
		t.Errorf("ports: %v", ports)
	}
	w.Must(plugin.Del, c)
	if got := w.read(); got != "" {
		t.Errorf("left after DEL: %s", got)
	}
}

// TestMarkersAreNoCondition: an ADD and a DEL whose markers the kernel refuses
// succeed and say so.
func TestMarkersAreNoCondition(t *testing.T) {
	w := newTown(t)
	c := ofNerdctl("a", conf("", mappings))
	w.Must(plugin.Add, c)
	refused := c
	refused.Gate = func(what string) error {
		if strings.HasPrefix(what, "mark ports of ") {
			return errors.New("refused by the test")
		}
		return nil
	}
	a := w.Do(plugin.Del, refused)
	if a.Exit != 0 || !strings.Contains(a.Stderr, "refused by the test") || !strings.Contains(a.Stderr, "netcleat doctor --fix") {
		t.Errorf("DEL: exit %d, %s", a.Exit, a.Stderr)
	}
	if w.read() == "" {
		t.Error("the refused change was made")
	}
	if err := portmap.Collect(context.Background(), nil, w.Journal(), journal.Key{Network: "net1", ContainerID: c.ContainerID}); err != nil || w.read() != "" {
		t.Errorf("collect: %v, left: %s", err, w.read())
	}
	a = w.Do(plugin.Add, refused)
	if a.Exit != 0 || !strings.Contains(a.Stderr, "nerdctl may choose a port that is taken") {
		t.Errorf("ADD: exit %d, %s", a.Exit, a.Stderr)
	}
	w.Must(plugin.Check, c)
}

// TestMarkersBesideTheReference: the chain is the reference's, which jumps to it
// and has rules in it. They stay, and so do packets' ways.
func TestMarkersBesideTheReference(t *testing.T) {
	w := newTown(t)
	w.serve()
	w.Run("iptables", "-t", "nat", "-N", "CNI-DN-0123456789abcdef")
	w.Run("iptables", "-t", "nat", "-N", "CNI-HOSTPORT-DNAT")
	w.Run("iptables", "-t", "nat", "-A", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "CNI-HOSTPORT-DNAT")
	w.Run("iptables", "-t", "nat", "-A", "CNI-HOSTPORT-DNAT", "-p", "tcp", "-m", "comment", "--comment", `dnat name: "net1" id: "theirs"`,
		"-m", "multiport", "--dports", "7000", "-j", "CNI-DN-0123456789abcdef")
	before := w.rules()
	c := ofNerdctl("a", conf("", mappings))
	w.Must(plugin.Add, c)
	if got := w.read(); got != "7000 8080,8081,8082,8084 5353" {
		t.Errorf("ports: %s", got)
	}
	if diff := cmp.Diff(reached, w.reach()); diff != "" {
		t.Errorf("who reaches what, and is seen as whom (-want +got):\n%s", diff)
	}
	w.Must(plugin.Del, c)
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// TestMarkersAndTheOtherBackend: the last container of the iptables backend takes
// its chains away, and not the markers.
func TestMarkersAndTheOtherBackend(t *testing.T) {
	w := newTown(t)
	a, b := ofNerdctl("a", conf("", mappings)), ofNerdctl("b", conf("iptables", `[{"hostPort":9000,"containerPort":80}]`))
	b.Netns = w.PathOf(w.neighbour)
	w.Must(plugin.Add, a)
	w.Must(plugin.Add, b)
	if got := w.read(); got != "8080,8081,8082,8084 5353 9000" {
		t.Errorf("ports: %s", got)
	}
	w.Must(plugin.Check, b)
	w.Must(plugin.Del, b)
	if rules := w.rules(); strings.Contains(rules, "jump CNI-") || w.read() != "8080,8081,8082,8084 5353" {
		t.Errorf("ports: %s\n%s", w.read(), rules)
	}
	w.Must(plugin.Del, a)
	if rules := w.rules(); strings.Contains(rules, "CNI-") {
		t.Errorf("left:\n%s", rules)
	}
}

// TestMarkersOfTwoInterfaces: two interfaces of a container on one network have
// the same comment; each goes with its own ports.
func TestMarkersOfTwoInterfaces(t *testing.T) {
	w := newTown(t)
	first := ofNerdctl("a", conf("", `[{"hostPort":9000,"containerPort":80}]`))
	second := ofNerdctl("a", strings.ReplaceAll(conf("", `[{"hostPort":9001,"containerPort":80}]`), `"eth0"`, `"eth1"`))
	second.IfName = "eth1"
	w.Must(plugin.Add, first)
	w.Must(plugin.Add, second)
	if got := w.read(); got != "9000 9001" {
		t.Errorf("ports: %s", got)
	}
	w.Must(plugin.Del, first)
	if got := w.read(); got != "9001" {
		t.Errorf("ports after one DEL: %s", got)
	}
	w.Must(plugin.Del, second)
	if got := w.read(); got != "" {
		t.Errorf("ports after both: %s", got)
	}
}

// TestMarkersAreRestored: nft(8) writes a marker in words that nerdctl does not
// read. CHECK passes all the same, and reconcile makes it again.
func TestMarkersAreRestored(t *testing.T) {
	w := newTown(t)
	c := ofNerdctl("a", conf("", `[{"hostPort":9000,"containerPort":80}]`))
	w.Must(plugin.Add, c)
	saved := filepath.Join(t.TempDir(), "saved")
	if err := os.WriteFile(saved, []byte("flush ruleset\n"+w.Run("nft", "list", "ruleset")), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Run("nft", "-f", saved)
	if got := w.read(); got != "" {
		t.Errorf("nft(8) keeps the form: %s", got)
	}
	w.Must(plugin.Check, c)
	w.reconcile(t)
	if got := w.read(); got != "9000" {
		t.Errorf("ports after reconcile: %s", got)
	}
	w.reconcile(t)
	if got := w.read(); got != "9000" {
		t.Errorf("ports after reconcile twice: %s", got)
	}
}

func (w *town) reconcile(t *testing.T) {
	t.Helper()
	records, err := w.Journal().Network("net1")
	for _, r := range records {
		err = errors.Join(err, portmap.Reconcile(t.Context(), nil, w.Journal(), r))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestMarkersAreCollected: GC removes those of containers that are not valid, with
// a record and without one.
func TestMarkersAreCollected(t *testing.T) {
	w := newTown(t)
	a, b := ofNerdctl("a", conf("", `[{"hostPort":9000,"containerPort":80}]`)), ofNerdctl("b", conf("", `[{"hostPort":9001,"containerPort":80}]`))
	b.Netns = w.PathOf(w.neighbour)
	w.Must(plugin.Add, a)
	w.Must(plugin.Add, b)
	if err := os.RemoveAll(string(w.Journal())); err != nil {
		t.Fatal(err)
	}
	w.Must(plugin.GC, call(`{"cniVersion":"1.1.0","name":"net1","type":"portmap","cni.dev/valid-attachments":[{"containerID":"`+b.ContainerID+`","ifname":"eth0"}]}`))
	if got := w.read(); got != "9001" {
		t.Errorf("ports after GC: %s", got)
	}
	w.Must(plugin.Del, b)
	if got := w.read(); got != "" {
		t.Errorf("ports after DEL without a record: %s", got)
	}
}

// TestLegacyHostOfNerdctl: where iptables is the legacy one nerdctl would not see
// markers, and gets the reference's rules.
func TestLegacyHostOfNerdctl(t *testing.T) {
	w := newTown(t)
	dir := t.TempDir()
	for _, verb := range []string{"restore", "save"} {
		for _, name := range []string{"iptables", "ip6tables"} {
			script := "#!/bin/sh\nexec /usr/sbin/" + name + "-legacy-" + verb + " \"$@\"\n"
			if err := os.WriteFile(filepath.Join(dir, name+"-legacy-"+verb), []byte(script), 0o700); err != nil { //nolint:gosec // it is run
				t.Fatal(err)
			}
			if err := os.Symlink(name+"-legacy-"+verb, filepath.Join(dir, name+"-"+verb)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	c := ofNerdctl("a", conf("", `[{"hostPort":9000,"containerPort":80}]`))
	w.Must(plugin.Add, c)
	if out := w.Run("iptables-legacy", "-t", "nat", "-S", "CNI-HOSTPORT-DNAT"); !strings.Contains(out, "--dports 9000") {
		t.Errorf("the old table has no rule:\n%s", out)
	}
	w.Must(plugin.Del, c)
}

// TestMarkersStartNoProgram: that a container has markers is no reason to have
// iptables read its table, at ADD or DEL of the only container either.
func TestMarkersStartNoProgram(t *testing.T) {
	w := newTown(t)
	dir := t.TempDir()
	for _, name := range []string{"iptables-save", "iptables-restore"} {
		script := "#!/bin/sh\necho " + name + " \"$@\" >>" + dir + "/started\nexec /usr/sbin/" + name + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	c := ofNerdctl("a", conf("", mappings))
	w.Must(plugin.Add, c)
	if got := w.read(); got == "" {
		t.Error("the container has no markers")
	}
	w.Must(plugin.Del, c)
	if started, err := os.ReadFile(filepath.Join(dir, "started")); err == nil {
		t.Errorf("started:\n%s", started)
	}
}
