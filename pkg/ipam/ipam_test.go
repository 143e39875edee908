package ipam

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/undo"
)

// delegateOf makes an IPAM plugin of a shell script. It notes its calls in the
// file "calls" beside it.
func delegateOf(t *testing.T, script string) (*plugin.Call, func() string) {
	t.Helper()
	dir := t.TempDir()
	text := "#!/bin/sh\necho -n \"$CNI_COMMAND \" >> " + dir + "/calls\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &plugin.Call{Verb: plugin.Add, ContainerID: "c1", IfName: "eth0", Netns: "/none", Path: "/none:" + dir, Stdin: []byte(`{"name":"net"}`)}
	c.Conf.CNIVersion, c.Conf.IPAM.Type = "1.0.0", "script"
	return c, func() string {
		b, _ := os.ReadFile(dir + "/calls")
		return strings.TrimSpace(string(b))
	}
}

func result(ips string) string {
	return `[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.0.0","ips":[` + ips + `]}'; true`
}

// What a delegate may answer, who then is told what, and what becomes of it.
func TestAdd(t *testing.T) {
	const good = `{"address":"10.1.0.2/16","gateway":"10.1.0.1"}`
	for name, c := range map[string]struct {
		script, calls, err string
		code               uint
		incomplete         bool
	}{
		"good":               {script: result(good), calls: "ADD"},
		"both families":      {script: result(good + `,{"address":"fd00::2/64"}`), calls: "ADD"},
		"old version":        {script: `echo '{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.2/16"}}'`, calls: "ADD"},
		"no version":         {script: `echo '{"ips":[` + good + `]}'`, calls: "ADD"},
		"wrong index":        {script: result(`{"address":"10.1.0.2/16","interface":77}`), calls: "ADD"},
		"no address":         {script: result(""), calls: "ADD DEL", err: "ipam script: IPAM plugin returned missing IP config", code: 999},
		"null":               {script: result("null"), calls: "ADD DEL", err: "ipam script: result holds an address that is none", code: 999},
		"null route":         {script: `echo '{"cniVersion":"1.0.0","ips":[` + good + `],"routes":[null]}'`, calls: "ADD DEL", err: "result holds a route that is none", code: 999},
		"length 0":           {script: result(`{"address":"10.1.0.2/0"}`), calls: "ADD DEL", err: "address 10.1.0.2: prefix length 0", code: 999},
		"twice":              {script: result(good + "," + good), calls: "ADD DEL", err: "address 10.1.0.2: given twice", code: 999},
		"multicast":          {script: result(`{"address":"224.0.0.1/24"}`), calls: "ADD DEL", err: "address 224.0.0.1: not one that an interface can have", code: 999},
		"gateway's family":   {script: result(`{"address":"10.1.0.2/16","gateway":"fd00::1"}`), calls: "ADD DEL", err: "gateway fd00::1 is of another family", code: 999},
		"garbage":            {script: `echo oops`, calls: "ADD DEL", err: "ipam script: result: ", code: 999},
		"nothing":            {script: `true`, calls: "ADD DEL", err: "ipam script: result: ", code: 999},
		"unknown version":    {script: `echo '{"cniVersion":"7.0.0"}'`, calls: "ADD DEL", err: "ipam script: result: ", code: 999},
		"its own error":      {script: `[ $CNI_COMMAND = DEL ] || { echo '{"code":11,"msg":"pool is busy","details":"by me"}'; exit 1; }`, calls: "ADD DEL", err: "ipam script: pool is busy", code: 11},
		"an error, exit 0":   {script: `[ $CNI_COMMAND = DEL ] || echo '{"cniVersion":"1.0.0","code":11,"msg":"pool is busy"}'`, calls: "ADD DEL", err: "ipam script: pool is busy", code: 11},
		"scope of a route":   {script: `echo '{"cniVersion":"1.1.0","ips":[` + good + `],"routes":[{"dst":"10.3.0.0/16","scope":509}]}'`, calls: "ADD DEL", err: "route to 10.3.0.0/16: scope 509", code: 999},
		"table of a route":   {script: `echo '{"cniVersion":"1.1.0","ips":[` + good + `],"routes":[{"dst":"10.3.0.0/16","table":-1}]}'`, calls: "ADD DEL", err: "route to 10.3.0.0/16: table -1", code: 999},
		"route to nowhere":   {script: `echo '{"cniVersion":"1.1.0","ips":[` + good + `],"routes":[{"dst":"10.3.0.0/16","gw":"fd00::1"}]}'`, calls: "ADD DEL", err: "route to 10.3.0.0/16: gateway fd00::1 is of another family", code: 999},
		"no words":           {script: `[ $CNI_COMMAND = DEL ] || exit 3`, calls: "ADD DEL", err: "ipam script: exit status 3", code: 999},
		"killed":             {script: `[ $CNI_COMMAND = DEL ] || kill -9 $$`, calls: "ADD DEL", err: "ipam script: signal: killed", code: 999},
		"many words":         {script: `[ $CNI_COMMAND = DEL ] || { head -c 100000 /dev/zero | tr '\0' x; exit 1; }`, calls: "ADD DEL", err: "ipam script: exit status 1: xxx", code: 999},
		"endless":            {script: `[ $CNI_COMMAND = DEL ] || exec cat /dev/zero`, calls: "ADD DEL", err: "answer of more than 16777216 bytes", code: 999},
		"endless words":      {script: `[ $CNI_COMMAND = DEL ] || exec cat /dev/zero >&2`, calls: "ADD DEL", err: "answer of more than 16777216 bytes", code: 999},
		"DEL fails, too":     {script: `exit 3`, calls: "ADD DEL", err: "undo: release addresses: ipam script: exit status 3", code: 999, incomplete: true},
		"unsound, DEL fails": {script: `[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.0.0"}'`, calls: "ADD DEL", err: "undo: release addresses", code: 999, incomplete: true},
		"its descriptors":    {script: `ls -l /proc/self/fd | grep -E 'socket:|net:|pending' && exit 9;` + result(good), calls: "ADD"},
		"its child holds on": {script: `sleep 1000 & ` + result(good) + `; echo $! > ${0%/*}/child`, calls: "ADD"},
		"its environment":    {script: `[ "$CNI_CONTAINERID$CNI_NETNS$CNI_IFNAME$CNI_ARGS" = c1/noneeth0 ] && [ "$(cat)" = '{"name":"net"}' ] || exit 9;` + result(good), calls: "ADD"},
		"it does not read":   {script: `exec <&-;` + result(good), calls: "ADD"},
		"words on the side":  {script: `echo note >&2;` + result(good), calls: "ADD"},
	} {
		t.Run(name, func(t *testing.T) {
			call, calls := delegateOf(t, c.script)
			hold(t)
			t.Cleanup(func() { endChild(t, strings.TrimPrefix(call.Path, "/none:")) })
			_, err := Add(t.Context(), call)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if err != nil && (cnierr.Code(err) != c.code || undo.Incomplete(err) != c.incomplete || len(err.Error()) > 3*maxWords) {
				t.Errorf("code %d, incomplete %v, %d bytes of words", cnierr.Code(err), undo.Incomplete(err), len(err.Error()))
			}
			if got := calls(); got != c.calls {
				t.Errorf("called %q, want %q", got, c.calls)
			}
		})
	}
}

// hold opens what a main plugin has open when it calls its delegate.
func hold(t *testing.T) {
	t.Helper()
	e, err := journal.Dir(t.TempDir()).Open(t.Context(), journal.Key{Network: "n", ContainerID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(e.Close(), ns.Close(), c.Close()) })
}

// endChild ends the process that a delegate left running.
func endChild(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "child"))
	if err != nil {
		return
	}
	pid := 0
	for _, d := range strings.TrimSpace(string(b)) {
		pid = 10*pid + int(d-'0')
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

// A delegate that cannot be started did nothing: it is not told DEL.
func TestNotStarted(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(path string) error
		code    uint
	}{
		"being replaced": {func(p string) error { _, err := os.OpenFile(p, os.O_WRONLY, 0); return err }, cnierr.TryAgain},
		"no executable":  {func(p string) error { return os.Chmod(p, 0o644) }, cnierr.Internal},
		"no interpreter": {func(p string) error { return os.WriteFile(p, []byte("#!/none\n"), 0o755) }, cnierr.Internal},
		"gone":           {os.Remove, cnierr.InvalidEnvironment},
		"a directory":    {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, cnierr.InvalidEnvironment},
	} {
		t.Run(name, func(t *testing.T) {
			call, calls := delegateOf(t, "true")
			if err := c.breakIt(filepath.Join(strings.TrimPrefix(call.Path, "/none:"), "script")); err != nil {
				t.Fatal(err)
			}
			_, err := Add(t.Context(), call)
			if err == nil || cnierr.Code(err) != c.code || undo.Incomplete(err) || calls() != "" {
				t.Errorf("%v, code %d, calls %q", err, cnierr.Code(err), calls())
			}
		})
	}
}

func TestName(t *testing.T) {
	for name, code := range map[string]uint{"": 7, "../bash": 7, "a/b": 7, "..": 7, ".": 7, "none": 4} {
		call, _ := delegateOf(t, "true")
		call.Conf.IPAM.Type = name
		if err := Del(t.Context(), call); cnierr.Code(err) != code {
			t.Errorf("%q: %v, want code %d", name, err, code)
		}
	}
	call, _ := delegateOf(t, "true")
	call.Conf.IPAM.Type, call.Path = "none", "/a:/b"
	if err := Del(t.Context(), call); err == nil || err.Error() != `failed to find plugin "none" in path [/a /b]` {
		t.Error(err)
	}
}

// The other verbs are passed on as they are; Release only to dhcp.
func TestVerbs(t *testing.T) {
	call, calls := delegateOf(t, "true")
	ctx := t.Context()
	if err := errors.Join(forward(ctx, call, plugin.Check), Status(ctx, call), GC(ctx, call), Release(ctx, call), Del(ctx, call)); err != nil {
		t.Error(err)
	}
	if got := calls(); got != "CHECK STATUS GC DEL" {
		t.Errorf("called %q", got)
	}
}

// A result of this process may be written in other ways than JSON allows.
func TestSound(t *testing.T) {
	mapped := net.IPNet{IP: net.ParseIP("10.1.0.2"), Mask: net.CIDRMask(112, 128)}
	for _, c := range []struct {
		n  net.IPNet
		ok bool
	}{
		{net.IPNet{IP: net.ParseIP("10.1.0.2"), Mask: net.CIDRMask(16, 32)}, true},
		{mapped, false},
		{net.IPNet{IP: mapped.IP, Mask: net.CIDRMask(96, 128)}, false},
		{net.IPNet{IP: mapped.IP, Mask: net.CIDRMask(64, 128)}, false},
		{net.IPNet{IP: net.ParseIP("fd00::2"), Mask: net.CIDRMask(24, 32)}, false},
		{net.IPNet{IP: mapped.IP}, false},
		{net.IPNet{}, false},
	} {
		if err := sound(&current.Result{IPs: []*current.IPConfig{{Address: c.n}}}); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.n, err)
		}
	}
}
