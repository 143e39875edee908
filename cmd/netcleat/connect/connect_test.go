package connect

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

func TestMappings(t *testing.T) {
	for s, want := range map[string]string{
		"80:80":                   "[{80 80 tcp }]",
		"8080:80/udp":             "[{8080 80 udp }]",
		"8080:80/TCP":             "[{8080 80 tcp }]",
		"127.0.0.1:53:53/sctp":    "[{53 53 sctp 127.0.0.1}]",
		"[2001:db8::1]:53:53":     "[{53 53 tcp 2001:db8::1}]",
		"8000-8002:9000-9002/udp": "[{8000 9000 udp } {8001 9001 udp } {8002 9002 udp }]",
		"65535:1":                 "[{65535 1 tcp }]",
		"80":                      "no port is chosen for you",
		":80":                     `port "": want 1 to 65535`,
		"80:":                     `port "": want 1 to 65535`,
		"0:80":                    `port "0"`,
		"65536:80":                `port "65536"`,
		"9-8:1-2":                 `port "9-8"`,
		"1-3:1-2":                 "3 ports of the host for 2 of the container",
		"80:80/icmp":              `protocol "icmp": want tcp, udp or sctp`,
		"host:80:80":              `"host": want an address of the host`,
		"1.2.3:80:80":             `"1.2.3": want an address of the host`,
	} {
		got, err := mappings([]string{s})
		if err != nil {
			if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), fmt.Sprintf("publish %q: ", s)) {
				t.Errorf("%s: want %s, got %v", s, want, err)
			}
			continue
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: want %s, got %v", s, want, got)
		}
	}
}

// list reads a list that lacks what all lists have.
func list(t *testing.T, text string) *libcni.NetworkConfigList {
	t.Helper()
	l, err := libcni.NetworkConfFromBytes([]byte(`{"name":"net","cniVersion":"1.0.0",` + text[1:]))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func route(dst string, priority uint32) nl.Route {
	return nl.Route{Dst: netip.MustParsePrefix(dst), Priority: priority, Index: 2}
}

// What would give the container a second default route is not in the list that it
// is connected with, and all else is.
func TestKeepDefaults(t *testing.T) {
	r4, r6 := route("0.0.0.0/0", 0), route("::/0", 1024)
	host := func(more string) string {
		return `{"plugins":[{"type":"bridge"` + more + `,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/16"}],[{"subnet":"fd00::/64"}]]%s}}]}`
	}
	for _, c := range []struct {
		name string
		has  []nl.Route
		list string
		want string
	}{
		{"no default route", nil, fmt.Sprintf(host(`,"isDefaultGateway":true`), `,"routes":[{"dst":"0.0.0.0/0"}]`), "same"},
		{"a narrower route", []nl.Route{route("10.0.0.0/8", 0)}, fmt.Sprintf(host(""), `,"routes":[{"dst":"0.0.0.0/0"}]`), "same"},
		{
			"both families",
			[]nl.Route{r4, r6},
			fmt.Sprintf(host(`,"isDefaultGateway":true`), `,"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.1.0.1"},{"dst":"::/0"}]`),
			fmt.Sprintf(host(`,"isDefaultGateway":false,"isGateway":true`), `,"routes":[{"dst":"10.9.0.0/16","gw":"10.1.0.1"}]`),
		},
		{
			"IPv4 alone",
			[]nl.Route{r4},
			fmt.Sprintf(host(`,"isDefaultGateway":true`), ``),
			fmt.Sprintf(host(`,"isDefaultGateway":false,"isGateway":true`), `,"routes":[{"dst":"::/0"}]`),
		},
		{
			"IPv4 alone, and a route of IPv6",
			[]nl.Route{r4},
			fmt.Sprintf(host(`,"isDefaultGateway":true`), `,"routes":[{"dst":"::/0"}]`),
			fmt.Sprintf(host(`,"isDefaultGateway":false,"isGateway":true`), `,"routes":[{"dst":"::/0"}]`),
		},
		{
			"IPv6 alone",
			[]nl.Route{r6},
			fmt.Sprintf(host(`,"isDefaultGateway":true`), `,"routes":[{"dst":"::/0"}]`),
			fmt.Sprintf(host(`,"isDefaultGateway":false,"isGateway":true`), `,"routes":[{"dst":"0.0.0.0/0"}]`),
		},
		{
			"another table",
			[]nl.Route{r4},
			`{"plugins":[{"type":"x","ipam":{"routes":[{"dst":"0.0.0.0/0","table":100},{"dst":"0.0.0.0/0","table":254},{"dst":"::/0"}]}}]}`,
			`{"plugins":[{"type":"x","ipam":{"routes":[{"dst":"0.0.0.0/0","table":100},{"dst":"::/0"}]}}]}`,
		},
		{
			"static without IPv6",
			[]nl.Route{r4},
			`{"plugins":[{"type":"x","isDefaultGateway":true,"ipam":{"type":"static","addresses":[{"address":"10.1.0.2/24"}]}}]}`,
			`{"plugins":[{"type":"x","isDefaultGateway":false,"isGateway":true,"ipam":{"type":"static","addresses":[{"address":"10.1.0.2/24"}]}}]}`,
		},
		{"dhcp", []nl.Route{route("0.0.0.0/0", 100), route("0.0.0.0/0", 600)}, `{"plugins":[{"type":"x","ipam":{"type":"dhcp"}}]}`, `{"plugins":[{"type":"x","ipam":{"type":"dhcp","priority":101}}]}`},
		{"dhcp that comes later", []nl.Route{r4}, `{"plugins":[{"type":"x","ipam":{"type":"dhcp","priority":7}}]}`, "same"},
		{"what nobody knows", []nl.Route{r4, r6}, `{"x":12345678901234567890,"plugins":[{"type":"x","y":[1.5,null]},{"type":"z"}]}`, "same"},
	} {
		d, err := parse(list(t, c.list))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		d.keepDefaults(&state{routes: c.has})
		got, err := d.text()
		if err != nil {
			t.Fatal(err)
		}
		want := c.want
		if want == "same" {
			want = c.list
		}
		want = `{"name":"net","cniVersion":"1.0.0",` + want[1:]
		if diff := cmp.Diff(canonical(t, want), canonical(t, string(got))); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.name, diff)
		}
	}
}

// canonical orders members, and keeps numbers as they are written.
func canonical(t *testing.T, text string) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAsk(t *testing.T) {
	plain := `{"plugins":[{"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":%v}}]}`
	d, err := parse(list(t, fmt.Sprintf(plain, true)))
	if err != nil {
		t.Fatal(err)
	}
	args := map[string]any{}
	if err := (Request{IPs: []string{"10.1.0.9", "fd00::9/64"}, Publish: []string{"80:80"}}).ask(d, args); err != nil {
		t.Fatal(err)
	}
	if want, got := "map[ips:[10.1.0.9 fd00::9/64] portMappings:[{80 80 tcp }]]", fmt.Sprint(args); want != got {
		t.Errorf("want %s, got %s", want, got)
	}
	if !d.offers("ips") {
		t.Error("ips is asked for, but not offered")
	}
	for _, c := range []struct {
		r    Request
		has  bool
		want string
	}{
		{Request{IPs: []string{"ten"}}, true, `ip "ten": want an address`},
		{Request{IPs: []string{"10.0.0.1/99"}}, true, `ip "10.0.0.1/99"`},
		{Request{Publish: []string{"80:80"}}, false, "publishes no ports"},
		{Request{Publish: []string{"80"}}, true, `publish "80"`},
	} {
		d, err := parse(list(t, fmt.Sprintf(plain, c.has)))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.r.ask(d, map[string]any{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: want %s, got %v", c.r, c.want, err)
		}
	}
}

func TestChoose(t *testing.T) {
	st := &state{names: []string{"lo", "eth0", "eth2", "net1"}}
	for name, want := range map[string]string{
		"":                  "eth1",
		"back0":             "back0",
		"eth2":              `ifname "eth2": the container has an interface of that name already`,
		"a/b":               `ifname "a/b"`,
		"longer-than-15-by": `ifname "longer-than-15-by"`,
		"..":                `ifname ".."`,
	} {
		got, err := st.choose(name)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%q: want %s, got %s", name, want, got)
		}
	}
}

// Whose namespace a path leads to is looked at, not what it is called.
func TestHostIsNoContainer(t *testing.T) {
	for name, open := range map[string]func() (*Sandbox, error){
		"path": func() (*Sandbox, error) { return At("/proc/self/ns/net") },
		"pid":  func() (*Sandbox, error) { return Of(os.Getpid()) },
	} {
		if s, err := open(); err == nil || !strings.Contains(err.Error(), "is the host's own network namespace") {
			t.Errorf("%s: want a refusal, got %v %v", name, s, err)
		}
	}
	if _, err := Of(0); err == nil {
		t.Error("pid 0: want a refusal")
	}
	s, err := At("no/such")
	if err != nil || !s.Gone() || s.ContainerID() != "" {
		t.Fatalf("want one that is gone, got %v %v", s, err)
	}
	if err := s.refuseTwice(show.Network{Name: "web"}); err == nil || !strings.Contains(err.Error(), "no network namespace there") {
		t.Errorf("want a refusal, got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// An attachment is found by the container's ID, or when the namespace has ended
// by its path; what a runtime has attached is the runtime's.
func TestFind(t *testing.T) {
	rows := []show.Row{
		{Container: "abc", Interface: "eth0", Netns: "/run/netns/a"},
		{Container: "net-1-2-00000001", Interface: "eth1", Netns: "/run/netns/a"},
		{Container: "net-3-4-00000001", Interface: "eth1", Netns: "/run/netns/b"},
		{Container: "net-3-4-00000001", Interface: "eth2", Netns: "/run/netns/b"},
	}
	for _, c := range []struct{ path, ifName, want string }{
		{"/run/netns/a", "", "net-1-2-00000001 eth1"},
		{"/run/netns/a", "eth0", "/run/netns/a is not connected to it"},
		{"/run/netns/b", "", "/run/netns/b has 2 attachments: name one by --ifname"},
		{"/run/netns/b", "eth2", "net-3-4-00000001 eth2"},
		{"/run/netns/c", "", "/run/netns/c is not connected to it"},
	} {
		r, err := (&Sandbox{Path: c.path}).find(rows, c.ifName)
		got := r.Container + " " + r.Interface
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s %s: want %s, got %s", c.path, c.ifName, c.want, got)
		}
	}
}

// A list's plugins may be in files beside it (specification 1.1.0).
func TestPluginsInFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"net.conflist":     `{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"bridge"}]}`,
		"net/10-more.conf": `{"type":"portmap","capabilities":{"portMappings":true}}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rt := &libcni.RuntimeConf{CapabilityArgs: map[string]any{}}
	l, err := Request{Publish: []string{"80:80"}}.list(show.Network{Name: "net", File: filepath.Join(dir, "net.conflist")}, &state{}, rt)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Plugins) != 2 || l.Plugins[1].Network.Type != "portmap" || !strings.Contains(string(l.Bytes), "portmap") {
		t.Errorf("want bridge and portmap, got %s", l.Bytes)
	}
}

// That a process's path led to the sandbox all the time is looked at afterwards.
func TestProcessThatEnds(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: run make test as root")
	}
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other, err := At(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	if err != nil || other.ContainerID() != s.ContainerID() {
		t.Errorf("by its path: want %s, got %s %v", s.ContainerID(), other.ContainerID(), err)
	}
	if err := s.same(); err != nil {
		t.Errorf("it lives: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.same(); err == nil || !strings.Contains(err.Error(), "has ended meanwhile") {
		t.Errorf("want an error, got %v", err)
	}
	if err := other.same(); err == nil {
		t.Error("by its path: want an error")
	}
	s.Path, s.proc = "/proc/self/ns/net", nil
	if err := s.same(); err == nil || !strings.Contains(err.Error(), "has come to be another container's") {
		t.Errorf("want an error, got %v", err)
	}
	if err := errors.Join(s.Close(), other.Close()); err != nil {
		t.Error(err)
	}
}

// What is known of a container after a boot is its ID.
func TestJudge(t *testing.T) {
	own, err := netns.Open(netns.Own)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(own.Cookie(), own.Close()); err != nil {
		t.Fatal(err)
	}
	j, err := evidence.New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	id := attached.ConnectID(own.ID)
	later := own.ID
	later.Cookie++
	elsewhere := netns.ID{Ino: 7, Cookie: 7}
	for name, c := range map[string]struct {
		row  show.Row
		want evidence.State
	}{
		"its path leads there": {show.Row{Container: id, Netns: "/proc/self/ns/net"}, evidence.Alive},
		"a later namespace":    {show.Row{Container: attached.ConnectID(later), Netns: "/proc/self/ns/net"}, evidence.Dead},
		"held, and no path":    {show.Row{Container: id, Netns: "/no/such"}, evidence.Alive},
		"another boot":         {show.Row{Container: id[:len(id)-8] + "0badb007", Netns: "/proc/self/ns/net"}, evidence.Dead},
		"another namespace":    {show.Row{Container: attached.ConnectID(elsewhere), Netns: "/proc/self/ns/net"}, evidence.Dead},
	} {
		if v := judge(j, c.row); v.State != c.want {
			t.Errorf("%s: want %s, got %v", name, c.want, v)
		}
	}
}
