package fault

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/fault/stepper"
)

// lies are answers of an IPAM plugin to ADD that are wrong, or odd: what becomes
// of the ADD, and a part of the error's text.
var lies = []struct {
	what, script string
	code         uint // of the error; 0: there is none
	text         string
	or           uint   // the code of a plugin that looks closer
	believe      string // the plugins that take it, which has its use there
}{
	{what: "wrong interface index", script: answer(`"interfaces":[{"name":"evil0","sandbox":"/x"}],"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1","interface":7}]`)},
	{what: "interfaces of its own", script: answer(`"interfaces":[{"name":"eth0"},{"name":"../../x","mac":"zz"}],"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1","interface":-1}]`)},
	{what: "no address", script: answer(`"ips":[]`), code: 999, text: "missing IP config"},
	{what: "address that is none", script: answer(`"ips":[{"address":"hello"}]`), code: 999, text: "ipam liar: result:"},
	{what: "null address", script: answer(`"ips":[null]`), code: 999, text: "address that is none"},
	{what: "prefix length 0", script: answer(`"ips":[{"address":"10.7.0.2/0","gateway":"10.7.0.1"}]`), code: 999, text: "prefix length 0"},
	{what: "duplicate", script: answer(`"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1"},{"address":"10.7.0.2/16","gateway":"10.7.0.1"}]`), code: 999, text: "given twice"},
	{what: "the gateway's own", script: answer(`"ips":[{"address":"10.7.0.1/24","gateway":"10.7.0.1"}]`), code: 7, text: "gateway", believe: "macvlan tap host-device dummy vlan ipvlan"},
	{what: "multicast", script: answer(`"ips":[{"address":"ff02::1/64","gateway":"fd00::1"}]`), code: 999, text: "not one that an interface can have"},
	{what: "loopback", script: answer(`"ips":[{"address":"127.0.0.1/8","gateway":"127.0.0.2"}]`), code: 999, text: "127.0.0.1: not one that"},
	{what: "gateway of the other family", script: answer(`"ips":[{"address":"10.7.0.2/24","gateway":"fd00::1"}]`), code: 999, text: "another family"},
	{what: "gateway outside", script: answer(`"ips":[{"address":"10.7.0.2/24","gateway":"192.168.9.1"}],"routes":[{"dst":"0.0.0.0/0"}]`), code: 999, or: 7, text: "192.168.9.1", believe: "ptp"},
	{what: "route through nobody", script: answer(`"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1"}],"routes":[{"dst":"10.0.0.0/8","gw":"192.168.9.1"}]`), code: 999, text: "10.0.0.0/8 via 192.168.9.1", believe: "ptp"},
	{what: "scope out of range", script: answer(`"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1"}],"routes":[{"dst":"10.0.0.0/8","scope":300}]`), code: 999, text: "scope 300"},
	{what: "unknown version", script: `echo '{"cniVersion":"9.9.9","ips":[{"address":"10.7.0.2/24"}]}'`, code: 999, text: "9.9.9"},
	{what: "version that is no text", script: `echo '{"cniVersion":1,"ips":[]}'`, code: 999, text: "cniVersion"},
	{what: "nothing", script: `true`, code: 999, text: "ipam liar: result:"},
	{what: "null", script: `echo null`, code: 999, text: "ipam liar: result:"},
	{what: "cut short", script: `echo '{"cniVersion":"1.0.0","ips":[{"addr'`, code: 999, text: "ipam liar: result:"},
	{what: "garbage before", script: `echo 'WARNING: low disk'; ` + answer(`"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1"}]`), code: 999, text: "ipam liar: result:"},
	{what: "garbage after", script: answer(`"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1"}]`) + `; echo done`, code: 999, text: "ipam liar: result:"},
	{what: "two answers", script: answer(`"ips":[]`) + ";" + answer(`"ips":[]`), code: 999, text: "ipam liar: result:"},
	{what: "deeply nested", script: `echo "{\"cniVersion\":\"1.0.0\",\"ips\":$(head -c 200000 /dev/zero | tr '\0' '[')"`, code: 999, text: "ipam liar: result:"},
	{what: "endless", script: `exec cat /dev/zero`, code: 999, text: "answer of more than"},
	{what: "error with exit status 0", script: `echo '{"cniVersion":"1.0.0","code":11,"msg":"pool is busy"}'`, code: 11, text: "pool is busy"},
	{what: "exit status without error", script: `exit 7`, code: 999, text: "exit status 7"},
	{what: "code 0", script: `echo '{"code":0,"msg":"no"}'; exit 1`, code: 999, text: "exit status 1"},
	{what: "killed", script: `kill -9 $$`, code: 999, text: "killed"},
}

// answer is the script that prints a result.
func answer(keys string) string { return `echo '{"cniVersion":"1.1.0",` + keys + `}'` }

// liars are the plugins that make an interface and ask an IPAM plugin.
func liars() []object {
	return []object{
		{"type": "bridge", "bridge": "cni7", "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables"},
		{"type": "ptp", "ipMasq": true, "ipMasqBackend": "nftables"},
		{"type": "macvlan", "master": "lan0"},
		{"type": "tap"},
		{"type": "host-device", "device": "spare0"},
		{"type": "dummy"},
		{"type": "vlan", "master": "lan0", "vlanId": 7},
		{"type": "ipvlan", "master": "lan0"},
	}
}

// lyingTo is a container whose IPAM plugin runs the script for ADD, and notes
// which verbs it was told.
func lyingTo(t *testing.T, p object, script string) (a *attachment, dir string) {
	t.Helper()
	dir = t.TempDir()
	text := "#!/bin/sh\necho $CNI_COMMAND >>" + dir + "/told\n[ $CNI_COMMAND = ADD ] || exit 0\n" + script + "\n"
	must(t, os.WriteFile(filepath.Join(dir, "liar"), []byte(text), 0o755))
	p = with(p, object{"ipam": object{"type": "liar"}})
	tr := &trial{T: t, judged: suite(t), list: list{"lies", []object{p}}}
	a, s := tr.attachment("lied", 0)
	t.Cleanup(s.remove)
	return a, dir
}

// through runs plugins with dir before the others on CNI_PATH.
func through(dir string, run runner) runner {
	return func(c stepper.Command) (stepper.Outcome, error) {
		for i, e := range c.Env {
			if path, ok := strings.CutPrefix(e, "CNI_PATH="); ok {
				c.Env[i] = "CNI_PATH=" + dir + ":" + path
			}
		}
		return run(c)
	}
}

// Whatever a foreign IPAM plugin answers: either the container is attached with
// an address on its own interface, or the ADD fails with a code and what is wrong,
// the plugin is told DEL, and nothing is left.
func TestLyingIPAM(t *testing.T) {
	reset(t)
	defer reset(t)
	must(t, output("sh", "-c", "ip link add spare0 type veth peer name spare1"))
	lacks := 0
	for _, p := range liars() {
		// The plugin's own lasting things, as the bridge, are there before.
		a, dir := lyingTo(t, p, answer(`"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1"}]`))
		err := a.add(through(dir, plain))
		if f := (*failure)(nil); errors.As(err, &f) && lacking.MatchString(f.text) {
			t.Logf("%s: %s", p["type"], f.text)
			lacks++
			continue
		}
		must(t, errors.Join(err, a.del(through(dir, plain))))
		for _, l := range lies {
			t.Run(fmt.Sprintf("%s/%s", p["type"], l.what), func(t *testing.T) {
				before := snapshot(t)
				a, dir := lyingTo(t, p, l.script)
				err := a.add(through(dir, plain))
				if l.code == 0 || slices.Contains(strings.Fields(l.believe), p["type"].(string)) {
					believed(t, a, err)
				} else {
					disbelieved(t, dir, err, []uint{l.code, cmp.Or(l.or, l.code)}, l.text)
				}
				must(t, a.del(through(dir, plain)))
				for _, d := range residue(before, snapshot(t)) {
					t.Error(d)
				}
			})
		}
	}
	if lacks > 3 {
		t.Errorf("%d plugins could not be tried", lacks)
	}
}

func believed(t *testing.T, a *attachment, err error) {
	t.Helper()
	must(t, err)
	var r struct {
		Interfaces []struct{ Name, Sandbox string }
		IPs        []struct{ Interface int }
	}
	must(t, json.Unmarshal(a.result, &r))
	for _, ip := range r.IPs {
		if ip.Interface < 0 || ip.Interface >= len(r.Interfaces) || r.Interfaces[ip.Interface].Name != "eth0" || r.Interfaces[ip.Interface].Sandbox != a.netns {
			t.Errorf("the address is not on the container's interface: %s", a.result)
		}
	}
	if strings.Contains(string(a.result), "evil0") || strings.Contains(string(a.result), "../..") {
		t.Errorf("the lie is passed on: %s", a.result)
	}
}

func disbelieved(t *testing.T, dir string, err error, codes []uint, text string) {
	t.Helper()
	f := (*failure)(nil)
	if !errors.As(err, &f) {
		t.Errorf("taken: %v", err)
		return
	}
	if !slices.Contains(codes, f.code) || !strings.Contains(f.text, text) || strings.Contains(f.text, "panic") {
		t.Errorf("code %d: %s\nwant code %d: …%s…", f.code, f.text, codes, text)
	}
	told, _ := os.ReadFile(filepath.Join(dir, "told"))
	if got := strings.Fields(string(told)); !slices.Equal(got, []string{"ADD", "DEL"}) {
		t.Errorf("the IPAM plugin was told %v", got)
	}
}

// An IPAM plugin that hangs is waited for, as by the reference: only the runtime
// knows how long. It ends the call; DEL then leaves nothing.
func TestHangingIPAM(t *testing.T) {
	reset(t)
	defer reset(t)
	for _, p := range liars()[:4] {
		t.Run(p["type"].(string), func(t *testing.T) {
			a, dir := lyingTo(t, p, answer(`"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1"}]`))
			must(t, errors.Join(a.add(through(dir, plain)), a.del(through(dir, plain))))
			before := snapshot(t)
			spot := t.TempDir()
			a, dir = lyingTo(t, p, `mkfifo `+spot+`/never; echo $PPID >`+spot+`/parent; exec cat `+spot+`/never`)
			ended := make(chan error, 1)
			run := &process{}
			go func() { ended <- a.add(through(dir, run.run)) }()
			must(t, unix.Kill(writtenPID(t, filepath.Join(spot, "parent")), unix.SIGKILL))
			if err := <-ended; err == nil {
				t.Error("ADD succeeded")
			}
			must(t, a.del(through(dir, plain)))
			for _, d := range residue(before, snapshot(t)) {
				t.Error(d)
			}
			never, err := os.OpenFile(filepath.Join(spot, "never"), os.O_WRONLY, 0) // lets the IPAM plugin end
			must(t, errors.Join(err, never.Close()))
		})
	}
}

// writtenPID waits until somebody has written a process's number to a file.
func writtenPID(t *testing.T, path string) (pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && strings.HasSuffix(string(b), "\n") {
			_, err = fmt.Sscan(string(b), &pid)
			must(t, err)
			return pid
		}
	}
	t.Fatalf("%s: nobody wrote it", path)
	return 0
}
