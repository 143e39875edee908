package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
)

// run runs a plugin called "toy" and returns its exit status and output.
func run(t *testing.T, p Plugin, stdin string, env ...string) (exit int, stdout, stderr string) {
	t.Helper()
	vars := map[string]string{}
	for _, e := range env {
		k, v, _ := strings.Cut(e, "=")
		vars[k] = v
	}
	var out, errs bytes.Buffer
	proc := Process{
		Name: "toy", Getenv: func(k string) string { return vars[k] }, Stdin: strings.NewReader(stdin),
		Stdout: &out, Stderr: &errs, Journal: "/nonexistent/netcleat",
	}
	exit = proc.Run(context.Background(), Table{"toy": p})
	return exit, out.String(), errs.String()
}

type toyConf struct{}

// toy is a plugin that needs no sandbox.
func toy(add func(*Call) (*current.Result, error)) Spec[toyConf] {
	return Spec[toyConf]{
		Name:  "toy",
		Parse: func(*Call) (toyConf, error) { return toyConf{}, nil },
		Add:   func(_ context.Context, c *Call, _ toyConf) (*current.Result, error) { return add(c) },
	}
}

func attachEnv(verb string) []string {
	return []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/none", "CNI_PATH=/none"}
}

func nothing(*Call) (*current.Result, error) { return &current.Result{}, nil }

func TestAboutGoesToStderr(t *testing.T) {
	exit, stdout, stderr := run(t, toy(nothing), "")
	if exit != 0 || stdout != "" || !strings.HasPrefix(stderr, "CNI toy plugin v"+Version+"\n") {
		t.Errorf("exit %d, stdout %q, stderr %q", exit, stdout, stderr)
	}
}

func TestVersionEchoesTheVersionAsked(t *testing.T) {
	for stdin, want := range map[string]string{
		`{"cniVersion":"0.3.1"}`:                                     "0.3.1",
		`{"prevResult":{"cniVersion":"0.2.0"},"cniVersion":"1.0.0"}`: "1.0.0",
		`{"x":"a\"b,{","cniVersion" : "0.4.0"}`:                      "0.4.0",
		`{"x":"cniVersion","y":["cniVersion","0.1.0"]}`:              newestSpec,
		`{"cniVersion":"1\"2"}`:                                      newestSpec,
		``:                                                           newestSpec,
		`nonsense`:                                                   newestSpec,
	} {
		exit, stdout, _ := run(t, toy(nothing), stdin, "CNI_COMMAND=VERSION")
		var got struct {
			CNIVersion        string
			SupportedVersions []string
		}
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || exit != 0 {
			t.Fatalf("%s: exit %d, %q: %v", stdin, exit, stdout, err)
		}
		if diff := cmp.Diff(specVersions, got.SupportedVersions); got.CNIVersion != want || diff != "" {
			t.Errorf("%s: %s, want %s%s", stdin, got.CNIVersion, want, diff)
		}
	}
}

// What the environment or the configuration lacks has its code and its text.
func TestRefusals(t *testing.T) {
	const conf = `{"cniVersion":"1.1.0","name":"net","type":"toy"}`
	for name, c := range map[string]struct {
		conf string
		env  []string
		code uint
		msg  string
	}{
		"verb":            {conf, []string{"CNI_COMMAND=FOO"}, 4, "unknown CNI_COMMAND: FOO"},
		"missing":         {conf, []string{"CNI_COMMAND=ADD"}, 4, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"},
		"DEL, no sandbox": {conf, []string{"CNI_COMMAND=DEL", "CNI_CONTAINERID=c", "CNI_IFNAME=e"}, 0, ""},
		"container":       {conf, append(attachEnv("ADD"), "CNI_CONTAINERID=../x"), 4, `invalid characters in containerID`},
		"long interface":  {conf, append(attachEnv("ADD"), "CNI_IFNAME=sixteen-letters-"), 4, `interface name is too long`},
		"interface":       {conf, append(attachEnv("ADD"), "CNI_IFNAME=a/b"), 4, `interface name contains / or : or whitespace characters`},
		"percent sign":    {conf, append(attachEnv("ADD"), "CNI_IFNAME=eth%d"), 4, `interface name "eth%d": not one that an interface can have`},
		"control":         {conf, append(attachEnv("ADD"), "CNI_IFNAME=eth\x01"), 4, `interface name "eth\x01": not one that an interface can have`},
		"DEL of such":     {conf, append(attachEnv("DEL"), "CNI_IFNAME=eth%d"), 0, ""},
		"dots":            {conf, append(attachEnv("ADD"), "CNI_IFNAME=.."), 4, "interface name is . or .."},
		"not JSON":        {`{`, attachEnv("ADD"), 6, "configuration: unexpected end of JSON input"},
		"no name":         {`{"cniVersion":"1.0.0"}`, attachEnv("ADD"), 7, "missing network name"},
		"name":            {`{"cniVersion":"1.0.0","name":"../x"}`, attachEnv("DEL"), 7, `invalid characters found in network name "../x"`},
		"version":         {`{"cniVersion":"9.9.9","name":"net"}`, attachEnv("ADD"), 1, "incompatible CNI versions"},
		"CHECK too early": {`{"cniVersion":"0.3.1","name":"net"}`, attachEnv("CHECK"), 1, "config version does not allow CHECK"},
		"GC too early":    {`{"cniVersion":"1.0.0","name":"net"}`, attachEnv("GC"), 1, "config version does not allow GC"},
		"host's sandbox":  {conf, append(attachEnv("ADD"), "CNI_NETNS=/proc/self/ns/net"), 8, "plugin's netns and netns from CNI_NETNS should not be the same: /proc/self/ns/net is the host's namespace (CNI_NETNS_OVERRIDE=1 allows it)"},
		"override":        {conf, append(attachEnv("ADD"), "CNI_NETNS=/proc/self/ns/net", "CNI_NETNS_OVERRIDE=TRUE"), 0, ""},
		"DEL of the host": {conf, append(attachEnv("DEL"), "CNI_NETNS=/proc/self/ns/net"), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			exit, stdout, _ := run(t, toy(nothing), c.conf, c.env...)
			if c.code == 0 {
				if exit != 0 {
					t.Fatalf("exit %d: %s", exit, stdout)
				}
				return
			}
			var got errorObject
			if err := json.Unmarshal([]byte(stdout), &got); err != nil {
				t.Fatalf("%v in %q", err, stdout)
			}
			if exit != 1 || got.Code != c.code || got.Msg != c.msg || got.CNIVersion == "" {
				t.Errorf("exit %d, %+v, want code %d: %s", exit, got, c.code, c.msg)
			}
		})
	}
}

func TestTooMuchInput(t *testing.T) {
	_, stdout, _ := run(t, toy(nothing), strings.Repeat(" ", maxStdin+1), attachEnv("ADD")...)
	if !strings.Contains(stdout, `"code": 6`) {
		t.Error(stdout)
	}
}

// A panic is an error object, and what the call did is taken back.
func TestPanic(t *testing.T) {
	exit, stdout, _ := run(t, toy(func(*Call) (*current.Result, error) { panic("oh") }), `{"cniVersion":"1.0.0","name":"net"}`, attachEnv("ADD")...)
	if exit != 1 || !strings.Contains(stdout, `"code": 999`) || !strings.Contains(stdout, "panic: oh") {
		t.Errorf("exit %d: %s", exit, stdout)
	}
}

// A nil result is prevResult as it came, in any version.
func TestPassThrough(t *testing.T) {
	p := toy(func(*Call) (*current.Result, error) { return nil, nil })
	for prev, want := range map[string]string{
		`{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/8"}],"x":1}`: "{\n    \"cniVersion\": \"0.4.0\",\n    \"ips\": [\n        {\n            \"version\": \"4\",\n            \"address\": \"10.0.0.2/8\"\n        }\n    ],\n    \"x\": 1\n}",
		`{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/8"}]}`:                     "{\n    \"cniVersion\": \"0.4.0\",\n    \"ips\": [\n        {\n            \"version\": \"4\",\n            \"address\": \"10.0.0.2/8\"\n        }\n    ],\n    \"dns\": {}\n}",
	} {
		_, stdout, _ := run(t, p, `{"cniVersion":"0.4.0","name":"net","prevResult":`+prev+`}`, attachEnv("ADD")...)
		if diff := cmp.Diff(want, stdout); diff != "" {
			t.Error(diff)
		}
	}
}

// prevResult that names no version has the configuration's.
func TestPrevResultWithoutVersion(t *testing.T) {
	for prev, version := range map[string]string{
		`{"ips":[{"address":"10.0.0.2/8"}]}`:                       "1.1.0",
		`{"cniVersion":"","ips":[{"address":"10.0.0.2/8"}]}`:       "1.0.0",
		`{"ips":[{"version":"4","address":"10.0.0.2/8"}]}`:         "0.4.0",
		`{"cniVersion":null,"ip4":{"ip":"10.0.0.2/8"},"routes":7}`: "0.2.0",
	} {
		for _, p := range []Plugin{
			toy(func(c *Call) (*current.Result, error) { return c.PrevResult() }),
			toy(func(*Call) (*current.Result, error) { return nil, nil }),
		} {
			exit, stdout, _ := run(t, p, `{"cniVersion":"`+version+`","name":"net","prevResult":`+prev+`}`, attachEnv("ADD")...)
			if exit != 0 || !strings.Contains(stdout, `"cniVersion": "`+version+`"`) || !strings.Contains(stdout, "10.0.0.2/8") {
				t.Errorf("%s in %s: exit %d %s", prev, version, exit, stdout)
			}
		}
	}
}

// An ADD whose result nobody can read is taken back.
func TestUnwrittenResult(t *testing.T) {
	deleted := false
	p := toy(nothing)
	p.Del = func(context.Context, *Call, toyConf) error { deleted = true; return nil }
	vars := map[string]string{}
	for _, e := range attachEnv("ADD") {
		k, v, _ := strings.Cut(e, "=")
		vars[k] = v
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	proc := Process{
		Name: "toy", Getenv: func(k string) string { return vars[k] }, Stdin: strings.NewReader(`{"cniVersion":"1.0.0","name":"net"}`),
		Stdout: w, Stderr: io.Discard, Journal: journal.Dir(t.TempDir()),
	}
	if exit := proc.Run(t.Context(), Table{"toy": p}); exit != 1 || !deleted {
		t.Errorf("exit %d, taken back %v", exit, deleted)
	}
}

// A result that cannot be written leaves no file of the attachment.
func TestUnwrittenResultLeavesNoRecord(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it enters a namespace")
	}
	d := journal.Dir(t.TempDir())
	var log []string
	p := keeper(&log)
	p.Del = func(_ context.Context, c *Call, _ toyConf) error { return d.Leave(c.Entry.Key) }
	vars := map[string]string{}
	for _, e := range append(attachEnv("ADD"), "CNI_NETNS=/proc/self/ns/net", "CNI_NETNS_OVERRIDE=1") {
		k, v, _ := strings.Cut(e, "=")
		vars[k] = v
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	proc := Process{
		Name: "toy", Getenv: func(k string) string { return vars[k] }, Stdin: strings.NewReader(`{"cniVersion":"1.0.0","name":"net"}`),
		Stdout: full, Stderr: io.Discard, Journal: d,
	}
	if exit := proc.Run(t.Context(), Table{"toy": p}); exit != 1 || len(log) != 1 {
		t.Errorf("exit %d, calls %q", exit, log)
	}
	left, err := filepath.Glob(filepath.Join(string(d), "net", "*"))
	if err = errors.Join(err, full.Close()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// DEL and GC go on with a configuration that ADD would refuse.
func TestRemovingNeedsNoGoodConfiguration(t *testing.T) {
	ran := ""
	p := toy(nothing)
	p.Parse = func(*Call) (toyConf, error) { return toyConf{}, cnierr.Config("mtu -1: negative") }
	p.Del = func(_ context.Context, c *Call, _ toyConf) error { ran += c.Verb; return nil }
	p.GC = func(_ context.Context, c *Call, _ toyConf) error { ran += c.Verb; return nil }
	conf := `{"cniVersion":"1.1.0","name":"net","ipam":"none","dns":[],"cni.dev/valid-attachments":[]}`
	for _, verb := range []string{"DEL", "GC"} {
		if exit, stdout, stderr := run(t, p, conf, attachEnv(verb)...); exit != 0 || !strings.Contains(stderr, "mtu -1") {
			t.Errorf("%s: exit %d %s %s", verb, exit, stdout, stderr)
		}
	}
	if ran != "DELGC" {
		t.Errorf("ran %q", ran)
	}
	if exit, _, _ := run(t, p, conf, attachEnv("ADD")...); exit != 1 {
		t.Error("ADD accepted it")
	}
}

// The words of an error survive, whatever is in them.
func TestErrorObject(t *testing.T) {
	for _, err := range []error{
		errors.New("quote \" and \x00 and \xff"),
		errors.Join(cnierr.Config("first"), cnierr.Env("second")),
	} {
		var b bytes.Buffer
		printError(&b, "", err)
		var o errorObject
		if jerr := json.Unmarshal(b.Bytes(), &o); jerr != nil || o.Code != cnierr.Code(err) || o.Msg == "" {
			t.Errorf("%q: %v %+v", b.String(), jerr, o)
		}
	}
}

// A call's steps are in the log when asked for. They are not in its error, which a
// kubelet puts into the events of the pod.
func TestDebugLog(t *testing.T) {
	dir := t.TempDir()
	p := toy(func(c *Call) (*current.Result, error) {
		return nil, errors.Join(c.Gate.Pass("create veth veth0"), errors.New("no luck"))
	})
	vars := map[string]string{}
	for _, e := range attachEnv("ADD") {
		k, v, _ := strings.Cut(e, "=")
		vars[k] = v
	}
	var out bytes.Buffer
	proc := Process{
		Name: "toy", Getenv: func(k string) string { return vars[k] }, Stdin: strings.NewReader(`{"cniVersion":"1.0.0","name":"net","debug":true}`),
		Stdout: &out, Stderr: io.Discard, Journal: journal.Dir(dir),
	}
	proc.Run(t.Context(), Table{"toy": p})
	log, err := os.ReadFile(filepath.Join(dir, "debug.log"))
	if err != nil || !strings.Contains(string(log), "create veth veth0") || !strings.Contains(string(log), "no luck") {
		t.Errorf("log %q %v", log, err)
	}
	if strings.Contains(out.String(), "create veth veth0") || !strings.Contains(out.String(), "no luck") {
		t.Error(out.String())
	}
}

func FuzzCall(f *testing.F) {
	f.Add(`{"cniVersion":"1.1.0","name":"net","type":"toy","prevResult":{"cniVersion":"1.0.0"},"cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}]}`, "ADD", "c1", "eth0", "K=V;IP=10.0.0.1")
	p := toy(func(c *Call) (*current.Result, error) { _, err := c.PrevResult(); return nil, err })
	f.Fuzz(func(t *testing.T, conf, verb, id, ifname, args string) {
		exit, stdout, _ := run(t, p, conf, "CNI_COMMAND="+verb, "CNI_CONTAINERID="+id, "CNI_IFNAME="+ifname, "CNI_NETNS=/none", "CNI_ARGS="+args, "CNI_PATH=/none")
		if exit != 0 && !json.Valid([]byte(stdout)) {
			t.Errorf("exit %d with %q", exit, stdout)
		}
		if strings.Contains(stdout, "panic:") {
			t.Error(stdout)
		}
	})
}

// CNI_ARGS that are taken are taken as libcni's types take them.
func FuzzArgs(f *testing.F) {
	for _, args := range []string{"IP=10.0.0.1;MAC=02:00:00:00:00:01", "IgnoreUnknown=1;K8S_POD_NAME=a", "IP=", "=", ";", "IP", "IP=a=b", "IgnoreUnknown=true;x=", "ip=1;IP=2", "IP=10.7.0.50;IP=10.7.0.51"} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		c := &Call{Args: args}
		err := c.CheckArgs("IP")
		if err != nil && cnierr.Code(err) != cnierr.InvalidEnvironment {
			t.Errorf("%q: code %d", args, cnierr.Code(err))
		}
		var theirs struct {
			types.CommonArgs
			IP types.UnmarshallableString
		}
		if terr := types.LoadArgs(args, &theirs); err == nil && terr == nil && c.Arg("IP") != string(theirs.IP) {
			t.Errorf("%q: IP is %q, to libcni %q", args, c.Arg("IP"), theirs.IP)
		}
	})
}

func FuzzVersionOf(f *testing.F) {
	f.Add(`{"a":{"cniVersion":"x"},"cniVersion":"1.0.0"}`)
	f.Add("{\"cniVersion\":\"\x8d\"}")
	f.Fuzz(func(t *testing.T, conf string) {
		var want struct {
			V *string `json:"cniVersion"`
		}
		dec := json.NewDecoder(strings.NewReader(conf))
		if dec.Decode(&want) != nil || want.V == nil || strings.ContainsAny(conf, `\`) || strings.Count(strings.ToLower(conf), "cniversion") != 1 || !strings.Contains(conf, `"cniVersion"`) {
			t.Skip() // no object, or one whose meaning the short cut may miss
		}
		if !utf8.ValidString(conf) {
			return // which is no version either way
		}
		if got := versionOf([]byte(conf)); got != *want.V {
			t.Errorf("versionOf(%q): %q, want %q", conf, got, fmt.Sprint(*want.V))
		}
	})
}

// keeper is a plugin that keeps a record and notes what it is told.
func keeper(log *[]string) Spec[toyConf] {
	note := func(_ context.Context, c *Call, _ toyConf) error {
		*log = append(*log, c.Verb+" "+c.ContainerID)
		return nil
	}
	p := toy(nothing)
	p.HasRecord = func(toyConf) bool { return true }
	p.Add = func(_ context.Context, c *Call, _ toyConf) (*current.Result, error) {
		return &current.Result{}, note(context.Background(), c, toyConf{})
	}
	p.Del, p.GC = note, note
	return p
}

// attach writes the finished record of an attachment whose sandbox is gone.
func attach(t *testing.T, d journal.Dir, id string) {
	t.Helper()
	e, err := d.Open(t.Context(), journal.Key{Network: "net", ContainerID: id, IfName: "eth0", Plugin: "toy"})
	if err == nil {
		err = errors.Join(e.Begin(), e.Done(), e.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func runIn(t *testing.T, d journal.Dir, p Plugin, stdin string, env ...string) (exit int, stdout, stderr string) {
	t.Helper()
	vars := map[string]string{}
	for _, e := range env {
		k, v, _ := strings.Cut(e, "=")
		vars[k] = v
	}
	var out, errs bytes.Buffer
	proc := Process{
		Name: "toy", Getenv: func(k string) string { return vars[k] }, Stdin: strings.NewReader(stdin),
		Stdout: &out, Stderr: &errs, Journal: d,
	}
	return proc.Run(t.Context(), Table{"toy": p}), out.String(), errs.String()
}

// GC removes what has a record and is not valid; null says that none is, and
// without the key nothing is done.
func TestGCObeysItsList(t *testing.T) {
	for list, want := range map[string]string{
		`,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]`: "DEL b, GC ",
		`,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth1"}]`: "DEL a, DEL b, GC ",
		`,"cni.dev/valid-attachments":null`:                                  "DEL a, DEL b, GC ",
		`,"cni.dev/valid-attachments":[]`:                                    "DEL a, DEL b, GC ",
		`,"cni.dev/attachments":[{"containerID":"b","ifname":"eth0"}]`:       "DEL a, GC ",
		``: "",
	} {
		var log []string
		d := journal.Dir(t.TempDir())
		attach(t, d, "a")
		attach(t, d, "b")
		exit, stdout, stderr := runIn(t, d, keeper(&log), `{"cniVersion":"1.1.0","name":"net"`+list+`}`, "CNI_COMMAND=GC", "CNI_PATH=/none", "CNI_NETNS=/proc/self/ns/net")
		slices.Sort(log)
		if got := strings.Join(log, ", "); exit != 0 || got != want {
			t.Errorf("%s: %q, want %q (exit %d %s%s)", list, got, want, exit, stdout, stderr)
		}
		if records, err := d.Network("net"); len(records) != 2-strings.Count(want, "DEL") || err != nil {
			t.Errorf("%s: left %v %v", list, records, err)
		}
	}
}

// An entry that names no container or no interface may have been meant to keep any of
// the network's attachments.
func TestGCOfAnIncompleteList(t *testing.T) {
	for _, entry := range []string{`{"containerID":"a"}`, `{"ifname":"eth0"}`, `{}`, `null`} {
		var log []string
		d := journal.Dir(t.TempDir())
		attach(t, d, "a")
		list := `"cni.dev/valid-attachments":[{"containerID":"b","ifname":"eth0"},` + entry + `]`
		exit, stdout, _ := runIn(t, d, keeper(&log), `{"cniVersion":"1.1.0","name":"net",`+list+`}`, "CNI_COMMAND=GC", "CNI_PATH=/none")
		if exit == 0 || len(log) > 0 || !strings.Contains(stdout, `"code": 6`) || !strings.Contains(stdout, "entry 1") {
			t.Errorf("%s: %q, exit %d %s", entry, log, exit, stdout)
		}
	}
}

// recordOf writes the finished record of attachment c1, as change makes it.
func recordOf(t *testing.T, d journal.Dir, change func(*journal.Record)) {
	t.Helper()
	e, err := d.Open(t.Context(), journal.Key{Network: "net", ContainerID: "c1", IfName: "eth0", Plugin: "toy"})
	if err == nil {
		e.Netns, e.Boot = "/no/such", boot.ID()
		change(&e.Record)
		err = errors.Join(e.Begin(), e.Done(), e.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ADD over a record takes back what that speaks of where its sandbox has provably
// ended, and nowhere else: not where its path is not visible from here.
func TestAddOverARecord(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it enters a namespace")
	}
	own, err := netns.Identify(netns.Own)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		change func(*journal.Record)
		env    []string
		log    string
		says   string
	}{
		"of an earlier boot":            {func(r *journal.Record) { r.NetnsID, r.Boot = own, 1 }, []string{"CNI_NETNS=/proc/self/ns/net", "CNI_NETNS_OVERRIDE=1"}, "DEL c1, ADD c1", ""},
		"of a namespace that exists":    {func(r *journal.Record) { r.NetnsID, r.Netns = own, netns.Own }, nil, "", "already exists: attached since"},
		"that names no sandbox":         {func(*journal.Record) {}, nil, "", "may already exist: "},
		"with a path that is in a loop": {func(r *journal.Record) { r.NetnsID, r.Netns = netns.ID{Dev: own.Dev, Ino: 1}, loop(t) }, nil, "", "netcleat forget net c1 --force"},
	} {
		var log []string
		d := journal.Dir(t.TempDir())
		recordOf(t, d, c.change)
		exit, stdout, _ := runIn(t, d, keeper(&log), `{"cniVersion":"1.1.0","name":"net"}`, append(attachEnv("ADD"), c.env...)...)
		if got := strings.Join(log, ", "); got != c.log || (exit != 0) != (c.says != "") || !strings.Contains(stdout, c.says) {
			t.Errorf("a record %s: %q, want %q; exit %d: %s", what, got, c.log, exit, stdout)
		}
		if c.says != "" && !strings.Contains(stdout, `"code": 100`) {
			t.Errorf("a record %s: %s", what, stdout)
		}
	}
}

// loop is a path of which the kernel does not tell what it leads to.
func loop(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink(path, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// GC leaves what was attached from another host's namespace, which its list does not
// speak of, unless that has provably ended.
func TestGCLeavesOtherHosts(t *testing.T) {
	own, err := netns.Identify(netns.Own)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		change func(*journal.Record)
		log    string
	}{
		"this host":                 {func(r *journal.Record) { r.HostID = own }, "DEL c1, GC "},
		"a host in an earlier boot": {func(r *journal.Record) { r.HostID, r.Boot = netns.ID{Dev: own.Dev, Ino: 1}, 1 }, "DEL c1, GC "},
		"another host":              {func(r *journal.Record) { r.HostID = netns.ID{Dev: own.Dev + 1, Ino: own.Ino, Cookie: own.Cookie} }, "GC "},
	} {
		var log []string
		d := journal.Dir(t.TempDir())
		recordOf(t, d, c.change)
		exit, _, stderr := runIn(t, d, keeper(&log), `{"cniVersion":"1.1.0","name":"net","cni.dev/valid-attachments":[]}`, "CNI_COMMAND=GC", "CNI_PATH=/none")
		if got := strings.Join(log, ", "); exit != 0 || got != c.log {
			t.Errorf("of %s: %q, want %q (exit %d: %s)", what, got, c.log, exit, stderr)
		}
		if left := c.log == "GC "; left != strings.Contains(stderr, "netcleat forget net c1 --force") {
			t.Errorf("of %s: says %s", what, stderr)
		}
	}
}

// ValidAttachments has the owner of a record that cannot be read, and fails where the records
// cannot be listed.
func TestLivingOfUnreadableRecords(t *testing.T) {
	d := journal.Dir(t.TempDir())
	recordOf(t, d, func(*journal.Record) {})
	dir := filepath.Join(string(d), "net")
	if err := os.WriteFile(filepath.Join(dir, "c1:eth0:toy"), []byte(`{"version":9,"netns":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Call{Journal: d, Conf: Conf{Name: "net", Type: "toy"}}
	if living, err := c.ValidAttachments(); err != nil || !slices.Equal(living, []Attachment{{ContainerID: "c1", IfName: "eth0"}}) {
		t.Errorf("%v, %v", living, err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Symlink(dir, dir)); err != nil {
		t.Fatal(err)
	}
	if living, err := c.ValidAttachments(); err == nil {
		t.Errorf("records that cannot be listed: %v", living)
	}
}

// A record that cannot be read just now is none that does not exist: DEL fails, to be
// repeated, and CHECK says so.
func TestRecordThatCannotBeRead(t *testing.T) {
	for _, verb := range []string{"DEL", "CHECK"} {
		var log []string
		d := journal.Dir(t.TempDir())
		recordOf(t, d, func(*journal.Record) {})
		path := filepath.Join(string(d), "net", "c1:eth0:toy")
		if err := errors.Join(os.Remove(path), os.Symlink(path, path)); err != nil {
			t.Fatal(err)
		}
		exit, stdout, _ := runIn(t, d, keeper(&log), `{"cniVersion":"1.1.0","name":"net","prevResult":{"cniVersion":"1.1.0"}}`, attachEnv(verb)...)
		if exit == 0 || len(log) > 0 || !strings.Contains(stdout, `"code": 5`) {
			t.Errorf("%s: exit %d, %q: %s", verb, exit, log, stdout)
		}
	}
}

// Where the journal cannot be written ADD does nothing and says why, and DEL
// works all the same.
func TestJournalThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for verb, want := range map[string]struct {
		exit int
		log  string
	}{"ADD": {1, ""}, "DEL": {0, "DEL c1"}} {
		var log []string
		exit, stdout, stderr := runIn(t, journal.Dir(file), keeper(&log), `{"cniVersion":"1.1.0","name":"net"}`, attachEnv(verb)...)
		if exit != want.exit || strings.Join(log, ", ") != want.log {
			t.Errorf("%s: exit %d, %q", verb, exit, log)
		}
		if verb == "ADD" && (!strings.Contains(stdout, `"code": 5`) || !strings.Contains(stdout, "not a directory")) || verb == "DEL" && stderr == "" {
			t.Errorf("%s says %s %s", verb, stdout, stderr)
		}
	}
}

// prevResult may be anybody's.
func TestPrevResultWithHoles(t *testing.T) {
	for prev, want := range map[string]string{
		`null`: "",
		`{"cniVersion":"1.0.0","interfaces":[null]}`: `"code": 6`,
		`{"cniVersion":"1.0.0","ips":[null]}`:        `"code": 6`,
		`{"cniVersion":"1.0.0","routes":[null]}`:     `"code": 6`,
		`{"cniVersion":"9.0.0"}`:                     `"code": 6`,
		`[]`:                                         `"code": 6`,
	} {
		p := toy(func(c *Call) (*current.Result, error) { return c.PrevResult() })
		exit, stdout, _ := run(t, p, `{"cniVersion":"1.0.0","name":"net","prevResult":`+prev+`}`, attachEnv("ADD")...)
		if (exit == 0) != (want == "") || !strings.Contains(stdout, want) || strings.Contains(stdout, "panic") {
			t.Errorf("%s: exit %d %s", prev, exit, stdout)
		}
	}
}

// A reader of the output that has gone is an error, not the end of the process.
func TestMain(m *testing.M) {
	if os.Getenv("PIPE_TEST") != "" {
		os.Args[0] = "toy"
		p := toy(nothing)
		p.Del = func(context.Context, *Call, toyConf) error {
			return os.WriteFile(os.Getenv("PIPE_TEST"), []byte("taken back"), 0o600)
		}
		Main(Table{"toy": p})
	}
	os.Exit(m.Run())
}

func TestGoneReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer w.Close()
	mark := filepath.Join(t.TempDir(), "mark")
	cmd := exec.Command("/proc/self/exe")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(`{"cniVersion":"1.0.0","name":"net"}`), w, w
	cmd.Env = append(attachEnv("ADD"), "PIPE_TEST="+mark)
	_ = cmd.Run()
	if got, err := os.ReadFile(mark); string(got) != "taken back" || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v, %q %v", cmd.ProcessState, got, err)
	}
}
