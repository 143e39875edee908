package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/journal"
)

// A record keeps what its plugin knows of a configuration, and is bounded.
func TestKept(t *testing.T) {
	type conf struct {
		Wanted bool `json:"wanted"`
	}
	junk := strings.Repeat("x", 1_400_000)
	many := make([]string, 0, 10_000)
	for i := range 10_000 {
		many = append(many, fmt.Sprintf(`"a%d":1`, i))
	}
	for name, more := range map[string]string{
		"small": `"more":1`, "large": `"junk":"` + junk + `"`, "in ipam": `"ipam":{"type":"host-local","dataDir":"/d","junk":"` + junk + `"}`,
		"many": strings.Join(many, ","),
	} {
		got := kept[conf](json.RawMessage(`{"name":"n","type":"toy","wanted":true,` + more + `}`))
		var o struct {
			Name, Type string
			Wanted     bool
			IPAM       struct{ Type, DataDir string }
		}
		if err := json.Unmarshal(got, &o); err != nil || o.Name != "n" || o.Type != "toy" || !o.Wanted {
			t.Errorf("%s: %.200s: %v", name, got, err)
		}
		if name == "in ipam" && (o.IPAM.Type != "host-local" || o.IPAM.DataDir != "/d") {
			t.Errorf("%s: %.200s", name, got)
		}
		if len(got) > maxKeptConf {
			t.Errorf("%s: %d bytes are kept", name, len(got))
		}
	}
	args := bounded("K8S_POD_NAME=p;JUNK=" + junk)
	if args != "K8S_POD_NAME=p" {
		t.Errorf("args: %.200s", args)
	}
}

// What the suite tells its plugins is no key of a configuration: such a key does
// not keep a DEL from removing. The variable does.
func TestCreatedIsNoKey(t *testing.T) {
	dels := 0
	p := toy(nothing)
	p.HasRecord = func(toyConf) bool { return true }
	p.Del = func(context.Context, *Call, toyConf) error { dels++; return nil }
	dir := journal.Dir(t.TempDir())
	for i, env := range []string{"", EnvCreated + "=2001-01-01T00:00:00Z"} {
		vars := map[string]string{}
		for _, e := range append(attachEnv(Del), env) {
			k, v, _ := strings.Cut(e, "=")
			vars[k] = v
		}
		proc := Process{
			Name: "toy", Getenv: func(k string) string { return vars[k] }, Journal: dir, Stdout: &strings.Builder{}, Stderr: &strings.Builder{},
			Stdin: strings.NewReader(`{"cniVersion":"1.0.0","name":"net","netcleat.dev/created":"x"}`),
		}
		if exit := proc.Run(t.Context(), Table{"toy": p}); exit != 0 || dels != 1 {
			t.Errorf("DEL %d: exit %d, %d removals", i, exit, dels)
		}
	}
}

// GC finds attachments by interface names that are not UTF-8, and knows the valid
// ones by what JSON makes of them; a file that cannot be read goes with its
// attachment.
func TestGCOfOddRecords(t *testing.T) {
	dir := journal.Dir(t.TempDir())
	record := func(id, ifName string) {
		e, err := dir.Open(t.Context(), journal.Key{Network: "net", ContainerID: id, IfName: ifName, Plugin: "toy"})
		if err != nil {
			t.Fatal(err)
		}
		e.Created, e.Netns, e.Args = time.Now(), "/n\xff", "A=\xfe"
		for _, err := range []error{e.Begin(), e.Done(), e.Close()} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	record("valid", "eth\xff")
	record("dead", "eth\xff\xfe")
	var gone []string
	p := toy(nothing)
	p.HasRecord = func(toyConf) bool { return true }
	p.Del = func(_ context.Context, c *Call, _ toyConf) error {
		gone = append(gone, c.ContainerID+" "+c.IfName+" "+c.Netns+" "+c.Args)
		return nil
	}
	vars := map[string]string{"CNI_COMMAND": GC, "CNI_PATH": "/none"}
	proc := Process{
		Name: "toy", Getenv: func(k string) string { return vars[k] }, Journal: dir, Stdout: &strings.Builder{}, Stderr: &strings.Builder{},
		Stdin: strings.NewReader(`{"cniVersion":"1.1.0","name":"net","type":"toy","cni.dev/valid-attachments":[{"containerID":"valid","ifname":"eth\ufffd"}]}`),
	}
	if exit := proc.Run(t.Context(), Table{"toy": p}); exit != 0 {
		t.Errorf("GC: exit %d", exit)
	}
	if want := "dead eth\xff\xfe /n\xff A=\xfe"; len(gone) != 1 || gone[0] != want {
		t.Errorf("removed %q, want %q", gone, want)
	}
	if left, err := dir.Network("net"); err != nil || len(left) != 1 || left[0].IfName != "eth\xff" {
		t.Errorf("left %v, %v", left, err)
	}
}
