package bed

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const list = `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},{"type":"b","capabilities":{"portMappings":true}}]}`

// calls records what a chain starts, and answers each ADD with its plugin's name.
type calls []string

func (c *calls) start(cmd command) ([]byte, Cost, error) {
	*c = append(*c, filepath.Base(cmd.path)+" "+string(cmd.stdin))
	return []byte(`{"from":"` + filepath.Base(cmd.path) + `"}`), Cost{Wall: 1, Execs: 1, PeakKiB: len(*c)}, nil
}

func TestChain(t *testing.T) {
	c, err := newChain(Setup{List: json.RawMessage(list), Ports: 1})
	if err != nil {
		t.Fatal(err)
	}
	var did calls
	a := &attachment{slot: 3}
	for _, verb := range []string{"ADD", "DEL"} {
		cost, err := c.run(verb, a, did.start)
		if err != nil {
			t.Fatal(err)
		}
		if cost.Wall != 2 || cost.Execs != 2 || cost.PeakKiB != len(did) {
			t.Errorf("%s: want times and calls added, the peak kept, got %+v", verb, cost)
		}
	}
	ports := `"runtimeConfig":{"portMappings":[{"hostPort":10003,"containerPort":80,"protocol":"tcp"}]}`
	first := `a {"cniVersion":"1.0.0","name":"n",`
	second := `b {"capabilities":{"portMappings":true},"cniVersion":"1.0.0","name":"n",`
	want := calls{
		first + `"type":"a"}`,
		second + `"prevResult":{"from":"a"},` + ports + `,"type":"b"}`,
		second + `"prevResult":{"from":"b"},` + ports + `,"type":"b"}`,
		first + `"prevResult":{"from":"b"},"type":"a"}`,
	}
	if !slices.Equal(want, did) {
		t.Errorf("want\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(did, "\n"))
	}
}

func TestFloorAddresses(t *testing.T) {
	f := floor{Setup{Nets: []netip.Prefix{netip.MustParsePrefix("10.22.0.0/16"), netip.MustParsePrefix("fd22::/64")}}}
	addresses, gateways, result := f.addresses(300)
	for _, c := range [][2]string{
		{"0a16012e/16,fd22000000000000000000000000012e/64", addresses},
		{"0a160001,fd220000000000000000000000000001", gateways},
		{
			`{"ips":[{"address":"10.22.1.46/16","gateway":"10.22.0.1"},{"address":"fd22::12e/64","gateway":"fd22::1"}]}`,
			string(result),
		},
	} {
		if c[0] != c[1] {
			t.Errorf("want %s, got %s", c[0], c[1])
		}
	}
}

func TestPortsAreOneSlotsOnly(t *testing.T) {
	seen := map[int]bool{}
	for slot := range 101 {
		for _, p := range portMappings(slot, 10) {
			if seen[p.HostPort] || p.HostPort > 65535 {
				t.Fatalf("slot %d: port %d", slot, p.HostPort)
			}
			seen[p.HostPort] = true
		}
	}
}

func TestTimed(t *testing.T) {
	out, cost, err := timed(command{path: "/bin/sh", stdin: []byte("echo it says")})
	if string(out) != "it says\n" || err != nil || cost.Wall <= 0 {
		t.Errorf("want what it says and a time, got %q, %+v, %v", out, cost, err)
	}
	_, _, err = timed(command{path: "/bin/sh", stdin: []byte("echo why; exit 3")})
	if want := "sh: exit status 3: why"; err == nil || err.Error() != want {
		t.Errorf("want %s, got %v", want, err)
	}
}

func TestTraced(t *testing.T) {
	out, cost, err := traced(command{path: "/bin/sh", stdin: []byte("/bin/true; /bin/true; /no/such; echo done"), errors: false})
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != "done\n" || cost.Execs != 3 || cost.PeakKiB == 0 {
		t.Errorf("want sh and true twice, and a peak, got %q, %+v", out, cost)
	}
	if _, _, err = traced(command{path: "/bin/sh", stdin: []byte("exit 3")}); err == nil {
		t.Error("want an error for status 3")
	}
}

func TestInputThatDoesNotFit(t *testing.T) {
	if _, _, err := timed(command{path: "/bin/true", stdin: make([]byte, pipeSize+1)}); err == nil {
		t.Error("want an error, not a wait for ever")
	}
}

func TestFilesNaming(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"bench-1": "", "10.0.0.2": "bench-1\r\neth0", "10.0.0.3": "bench-2\r\neth0"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := filesNaming("bench-1", dir)
	want := []string{"file " + dir + "/10.0.0.2", "file " + dir + "/bench-1"}
	if err != nil || !slices.Equal(want, got) {
		t.Errorf("want %q, got %q, %v", want, got, err)
	}
}
