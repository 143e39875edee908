package firewall_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/firewall"
)

// TestConcurrent: 64 containers of two networks come and go at once.
func TestConcurrent(t *testing.T) {
	for _, h := range hosts {
		if h.name != "clean" && !strings.HasPrefix(h.name, "legacy") {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			w := newTown(t)
			h.prepare(w)
			before := w.rules()
			do := func(verb string) {
				var wg sync.WaitGroup
				for i := range 64 {
					c := w.attach([]string{"a1", "b1"}[i%2], `,"ingressPolicy":"same-bridge"`)
					c.ContainerID, c.Netns = fmt.Sprintf("c%d", i), ""
					wg.Go(func() {
						w.In(w.Host, func() {
							if a := w.Do(verb, c); a.Exit != 0 {
								t.Errorf("%s %s: %s", verb, c.ContainerID, a.Stdout)
							}
						})
					})
				}
				wg.Wait()
			}
			do(plugin.Add)
			do(plugin.Check)
			do(plugin.Del)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestSharedBridge: two networks on one bridge; the policy stays until both are
// gone, and the stricter one as long as its own.
func TestSharedBridge(t *testing.T) {
	w := newTown(t)
	before := w.rules()
	strict := w.attach("a1", `,"ingressPolicy":"isolated"`)
	mild := w.attach("a2", `,"ingressPolicy":"same-bridge"`)
	mild.Conf = strings.Replace(mild.Conf, `"name":"net0"`, `"name":"net9"`, 1)
	w.Must(plugin.Add, strict)
	w.Must(plugin.Add, mild)
	w.Must(plugin.Del, strict)
	if out := w.Run("nft", "list", "table", "inet", "cni_firewall"); strings.Count(out, `"br0"`) != 3 {
		t.Errorf("after the stricter network went:\n%s", out)
	}
	w.Must(plugin.Check, mild)
	w.Must(plugin.Del, mild)
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestFailsClosed: no container is more open than its configuration says.
func TestFailsClosed(t *testing.T) {
	w := newTown(t)
	for name, conf := range map[string]string{
		"no interfaces":  strings.Replace(confOf(`,"ingressPolicy":"same-bridge"`), `{"name":"br0"},{"name":"veth0"},{"name":"eth0","sandbox":"/x"}`, "", 1),
		"no host's":      strings.Replace(confOf(`,"ingressPolicy":"same-bridge"`), `{"name":"br0"},{"name":"veth0"},`, "", 1),
		"no port":        strings.Replace(confOf(`,"ingressPolicy":"isolated"`), `{"name":"veth0"},`, "", 1),
		"unknown policy": confOf(`,"ingressPolicy":"isolatd"`),
		"no prevResult":  `{"cniVersion":"1.0.0","name":"net0","type":"firewall"}`,
		"backend":        confOf(`,"backend":"nftable"`),
	} {
		c := w.attach("a1", "")
		c.Conf = conf
		before := w.Snapshot()
		w.Fails(plugin.Add, c, 7)
		if diff := cmp.Diff(before, w.Snapshot()); diff != "" {
			t.Errorf("%s: left behind (-before +after):\n%s", name, diff)
		}
	}
}

// TestNotChained: null is no result of a plugin before.
func TestNotChained(t *testing.T) {
	w := newTown(t)
	w.Must(plugin.Add, w.attach("a1", ""))
	for _, none := range []string{"", `,"prevResult":null`} {
		c := w.attach("a1", "")
		c.Conf = `{"cniVersion":"1.0.0","name":"net0","type":"firewall"` + none + `}`
		for _, verb := range []string{plugin.Add, plugin.Check} {
			c.IfName = map[string]string{plugin.Add: "eth1"}[verb]
			if msg := w.Fails(verb, c, 7); msg != "missing prevResult from earlier plugin" {
				t.Errorf("%s, %s: %s", verb, none, msg)
			}
		}
	}
}

// TestGC removes what is not valid, records or not.
func TestGC(t *testing.T) {
	w := newTown(t)
	before := w.rules()
	w.Must(plugin.Add, w.attach("a1", `,"ingressPolicy":"same-bridge"`))
	w.Must(plugin.Add, w.attach("a2", `,"ingressPolicy":"same-bridge"`))
	gc := w.attach("", "")
	gc.Conf = `{"cniVersion":"1.1.0","name":"net0","type":"firewall","cni.dev/valid-attachments":[{"containerID":"a1","ifname":"eth0"}]}`
	w.Must(plugin.GC, gc)
	w.Must(plugin.Check, w.attach("a1", ""))
	if err := os.RemoveAll(string(w.Journal())); err != nil {
		t.Fatal(err)
	}
	gc.Conf = `{"cniVersion":"1.1.0","name":"net0","type":"firewall","cni.dev/valid-attachments":null}`
	w.Must(plugin.GC, gc)
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestGCBesideADD: GC leaves the rules of a container that came while it waited
// for its turn.
func TestGCBesideADD(t *testing.T) {
	w := newTown(t)
	c := w.attach("a1", "")
	w.Must(plugin.Add, c)
	record := w.Dir + "/journal/net0/a1:eth0:firewall"
	unlock, err := w.Journal().Lock(t.Context(), "firewall")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Rename(record, w.Dir+"/record"))
	ctx := nltest.Meanwhile(t.Context(), func() { must(errors.Join(os.Rename(w.Dir+"/record", record), unlock())) })
	must(firewall.Collect(ctx, nil, w.Journal(), "net0"))
	if _, err := os.Stat(record); err != nil {
		t.Fatalf("GC did not wait for its turn: %v", err)
	}
	w.Must(plugin.Check, c)
}

// TestStrangers: where the prefix is a LAN's, only the container's own address is
// let through: no machine gets through the host for having a neighbour's address.
func TestStrangers(t *testing.T) {
	const ips = `"ips":[{"interface":%d,"address":"192.0.2.77/24","gateway":"%s"},{"interface":%[1]d,"address":"2001:db8::77/64","gateway":"%s"}]}}`
	for name, prev := range map[string]string{
		"macvlan":               `"interfaces":[{"name":"eth0","sandbox":"/x"}],` + fmt.Sprintf(ips, 0, "192.0.2.1", "2001:db8::1"),
		"bridge, not a gateway": `"interfaces":[{"name":"br0"},{"name":"veth0"},{"name":"eth0","sandbox":"/x"}],` + fmt.Sprintf(ips, 2, "192.0.2.254", "2001:db8::254"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			w.Run("iptables", "-P", "FORWARD", "DROP")
			w.Run("ip6tables", "-P", "FORWARD", "DROP")
			w.serve()
			before := w.rules()
			c := w.attach("a1", "")
			c.Conf = `{"cniVersion":"1.0.0","name":"net0","type":"firewall","prevResult":{"cniVersion":"1.0.0",` + prev
			w.Must(plugin.Add, c)
			w.Must(plugin.Check, c)
			for _, to := range []string{"10.1.0.2:80", "[fd01::2]:80"} {
				if w.Ask(w.lan, "tcp", to) != "" {
					t.Errorf("a machine of the LAN reaches %s:\n%s", to, w.rules())
				}
			}
			w.In(w.lan, func() {
				w.IP("addr", "del", "192.0.2.9/24", "dev", "eth0")
				w.IP("addr", "add", "192.0.2.77/24", "dev", "eth0")
				w.IP("route", "replace", "default", "via", "192.0.2.1")
			})
			if w.Ask(w.lan, "tcp", "10.1.0.2:80") == "" {
				t.Errorf("the container's own address is not let through:\n%s", w.rules())
			}
			w.Must(plugin.Del, c)
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestSecondPlace: with the legacy table loaded, a FORWARD of iptables-nft that comes
// later counts when it filters, not when another network has its accepts there.
func TestSecondPlace(t *testing.T) {
	w := newTown(t)
	w.Run("iptables-legacy", "-P", "FORWARD", "DROP")
	w.Run("ip6tables-legacy", "-P", "FORWARD", "DROP")
	w.serve()
	a1 := w.attach("a1", "")
	w.Must(plugin.Add, a1)
	w.Must(plugin.Add, w.attach("b1", `,"backend":"nftables"`))
	w.Must(plugin.Check, a1)
	reaches := func() bool { return w.reach()["container to LAN"] == "+" }
	if !reaches() {
		t.Errorf("beside the other network:\n%s", w.rules())
	}
	w.Run("iptables", "-P", "FORWARD", "DROP")
	w.Fails(plugin.Check, a1, 102)
	r, err := w.Journal().Read(journal.Key{Network: "net0", ContainerID: "a1", IfName: "eth0", Plugin: "firewall"})
	if err = errors.Join(err, firewall.Reconcile(t.Context(), nil, w.Journal(), r)); err != nil {
		t.Fatal(err)
	}
	w.Must(plugin.Check, a1)
	if !reaches() {
		t.Errorf("after reconcile:\n%s", w.rules())
	}
}

// TestSinglesComeAndGo: the rules of single addresses go with their containers, also
// beside ADDs that have just begun.
func TestSinglesComeAndGo(t *testing.T) {
	w := newTown(t)
	single := func(id string, last int) nltest.Call {
		c := w.attach("a1", "")
		c.ContainerID = id
		c.Conf = fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net0","type":"firewall","prevResult":{"cniVersion":"1.0.0",
		 "interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"192.0.2.%d/24","gateway":"192.0.2.254"}]}}`, last)
		return c
	}
	w.Must(plugin.Add, single("stays", 5))
	w.Must(plugin.Add, single("old", 6))
	w.Must(plugin.Add, single("new", 6)) // which got the address before the old one's DEL
	before := w.rules()
	e, err := w.Journal().Open(t.Context(), journal.Key{Network: "net0", ContainerID: "begun", IfName: "eth0", Plugin: "firewall"})
	if err = errors.Join(err, e.Begin()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			w.In(w.Host, func() {
				for round := range 4 {
					c := single(fmt.Sprintf("c%d-%d", i, round), 10+4*i+round)
					for _, verb := range []string{plugin.Add, plugin.Check, plugin.Del} {
						if a := w.Do(verb, c); a.Exit != 0 {
							t.Errorf("%s %s: %s", verb, c.ContainerID, a.Stdout)
						}
					}
				}
			})
		})
	}
	wg.Wait()
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
	w.Must(plugin.Del, single("old", 6))
	w.Must(plugin.Check, single("new", 6))
	w.Must(plugin.Check, single("stays", 5))
	if err := errors.Join(e.Abandon(), e.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestUndoFails: what a failed ADD could not take back has a record, by which DEL
// finds it.
func TestUndoFails(t *testing.T) {
	w := newTown(t)
	before := w.rules()
	c := w.attach("a1", `,"ingressPolicy":"same-bridge"`)
	c.Gate = (&nltest.Faults{At: 2, On: true}).Gate
	w.Fails(plugin.Add, c, 999)
	if w.rules() == before {
		t.Fatal("nothing was left to be found")
	}
	c.Gate = nil
	w.Must(plugin.Del, c)
	if diff := cmp.Diff(before, w.rules()); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestReference: DEL removes the rules that the reference made of an address,
// and leaves those of others.
func TestReference(t *testing.T) {
	bin := nltest.Reference(t)
	for _, legacy := range []bool{false, true} {
		t.Run(fmt.Sprintf("legacy %v", legacy), func(t *testing.T) {
			w := newTown(t)
			path := os.Getenv("PATH")
			if legacy {
				dir := t.TempDir()
				for _, name := range []string{"iptables", "ip6tables"} {
					if err := os.Symlink("/usr/sbin/"+name+"-legacy", filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
				}
				path = dir + ":" + path
			}
			for _, id := range []string{"a1", "a2"} {
				c := w.attach(id, `,"ingressPolicy":"same-bridge"`)
				cmd := exec.Command(bin + "/firewall")
				cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + id, "CNI_NETNS=" + w.Path, "CNI_IFNAME=eth0", "CNI_PATH=" + bin, "PATH=" + path}
				cmd.Stdin = strings.NewReader(c.Conf)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("reference: %v\n%s", err, out)
				}
			}
			w.Must(plugin.Add, w.attach("b1", ""))
			w.Must(plugin.Del, w.attach("a1", ""))
			out := w.rules()
			for ip, want := range map[string]bool{"10.1.0.2": false, "fd01::2": false, "10.1.0.3": true, "fd01::3": true, "10.2.0.0/16": true} {
				if strings.Contains(out, ip) != want {
					t.Errorf("%s: want %v\n%s", ip, want, out)
				}
			}
			w.Must(plugin.Del, w.attach("b1", ""))
			if out := w.rules(); !strings.Contains(out, `CNI-ISOLATION-STAGE-2`) {
				t.Errorf("the reference's last container is not isolated any more:\n%s", out)
			}
			w.Must(plugin.Del, w.attach("a2", ""))
			if out := w.rules(); strings.Contains(out, "CNI-") {
				t.Errorf("left behind:\n%s", out)
			}
		})
	}
}

// firewalld is a system bus with nothing but firewalld's zones behind it.
type firewalld struct {
	mu      sync.Mutex
	sources map[string]string // to their zones
}

// start listens where DBUS_SYSTEM_BUS_ADDRESS will say.
func (f *firewalld) start(t *testing.T) {
	t.Helper()
	f.sources = map[string]string{}
	path := filepath.Join(t.TempDir(), "bus")
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
}

// serve speaks D-Bus: authentication, then calls with strings as arguments.
func (f *firewalld) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for line := ""; !strings.HasPrefix(line, "BEGIN"); {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			return
		}
		switch {
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			_, _ = io.WriteString(c, "OK 1234deadbeef\r\n")
		case strings.Contains(line, "AUTH"):
			_, _ = io.WriteString(c, "REJECTED EXTERNAL\r\n")
		case !strings.HasPrefix(line, "BEGIN"):
			_, _ = io.WriteString(c, "ERROR\r\n")
		}
	}
	for {
		in, err := dbus.DecodeMessage(r)
		if err != nil {
			return
		}
		out := dbus.Message{Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(in.Serial())}}
		out.Type, out.Body = f.answer(in)
		if out.Type == dbus.TypeError {
			out.Headers[dbus.FieldErrorName] = dbus.MakeVariant("org.fedoraproject.FirewallD1.Exception")
		}
		out.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(out.Body...))
		if err := out.EncodeTo(c, binary.LittleEndian); err != nil {
			return
		}
	}
}

// answer returns the message's type and body.
func (f *firewalld) answer(in *dbus.Message) (dbus.Type, []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var args []string
	for _, a := range in.Body {
		args = append(args, a.(string))
	}
	zone, taken := "", false
	if len(args) == 2 {
		zone, taken = f.sources[args[1]]
	}
	switch in.Headers[dbus.FieldMember].Value() {
	case "querySource":
		return dbus.TypeMethodReply, []any{taken && zone == args[0]}
	case "addSource":
		if taken {
			return dbus.TypeError, []any{"ZONE_ALREADY_SET: " + args[1]}
		}
		f.sources[args[1]] = args[0]
	case "removeSource":
		if !taken {
			return dbus.TypeError, []any{"UNKNOWN_SOURCE: " + args[1]}
		}
		delete(f.sources, args[1])
	}
	return dbus.TypeMethodReply, []any{"ok"}
}

func (f *firewalld) list() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]string{}
	for s, z := range f.sources {
		all[s] = z
	}
	return all
}

// TestFirewalld: the network is a source of the zone from its first container to
// its last; it is told from the kernel's tables that firewalld runs.
func TestFirewalld(t *testing.T) {
	for _, tc := range []struct{ name, conf, zone string }{
		{"found", "", "trusted"},
		{"named", `,"backend":"firewalld","firewalldZone":"work"`, "work"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newTown(t)
			w.Run("nft", "add", "table", "inet", "firewalld")
			f := &firewalld{}
			f.start(t)
			before := w.rules()
			c, more := w.attach("a1", tc.conf), w.attach("a2", tc.conf)
			w.Must(plugin.Add, c)
			w.Must(plugin.Add, more)
			w.Must(plugin.Check, c)
			want := map[string]string{"10.1.0.0/16": tc.zone, "fd01::/64": tc.zone}
			if diff := cmp.Diff(want, f.list()); diff != "" {
				t.Errorf("sources (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, w.rules()); diff != "" {
				t.Errorf("rules beside firewalld's (-before +after):\n%s", diff)
			}
			f.mu.Lock()
			clear(f.sources) // firewall-cmd --reload
			f.mu.Unlock()
			w.Fails(plugin.Check, c, 102)
			records, err := w.Journal().Network("net0")
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				if err := firewall.Reconcile(t.Context(), nil, w.Journal(), r); err != nil {
					t.Fatal(err)
				}
			}
			w.Must(plugin.Del, c)
			if diff := cmp.Diff(want, f.list()); diff != "" {
				t.Errorf("sources after the first of two went (-want +got):\n%s", diff)
			}
			more.Netns = nltest.NoNetns
			more.Conf = `{"cniVersion":"1.0.0","name":"net0","type":"firewall"}`
			w.Must(plugin.Del, more)
			if got := f.list(); len(got) > 0 {
				t.Errorf("sources left behind: %v", got)
			}
			f.sources["10.1.0.0/16"] = "drop"
			w.Fails(plugin.Add, c, 102) // another zone has it
		})
	}
}
