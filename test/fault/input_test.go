package fault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// names returns the plugins that the judged binary holds.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	if len(all) < 15 {
		t.Fatalf("plugins %v", all)
	}
	return all
}

// said is how a plugin answered.
type said struct {
	exit   int
	code   uint
	msg    string
	memory int64 // bytes at most in use
}

// say runs a plugin with an environment and a configuration that nobody has
// looked at.
func say(t *testing.T, path string, stdin []byte, env ...string) (s said) {
	t.Helper()
	cmd := exec.Command(path)
	var out, errs bytes.Buffer
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=" + filepath.Dir(path)}, env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	_ = cmd.Run() // its answer says more
	if strings.Contains(errs.String()+out.String(), "goroutine ") {
		t.Errorf("%s %v: panic: %s%s", filepath.Base(path), env, &out, &errs)
	}
	s.exit, s.memory = cmd.ProcessState.ExitCode(), 1024*int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) //nolint:unconvert // 32 bits on some platforms
	if s.exit == 0 {
		return s
	}
	var e struct {
		Code uint
		Msg  string
	}
	if err := json.Unmarshal(out.Bytes(), &e); err != nil || e.Code == 0 {
		t.Errorf("%s %v: exit %d without an error object: %s%s", filepath.Base(path), env, s.exit, &out, &errs)
	}
	s.code, s.msg = e.Code, e.Msg
	return s
}

// confOf is a configuration of the plugin that would do, with what all need.
func confOf(name, network string, more object) []byte {
	conf := object{
		"cniVersion": "1.1.0", "name": network, "type": name, "bridge": "cni8", "master": "lan0", "vlanId": 8, "vrfname": "vrf8", "device": "spare8",
		"ipam":          object{"type": "host-local", "subnet": "10.88.0.0/24"},
		"sysctl":        object{"net.ipv4.conf.IFNAME.arp_filter": "1"},
		"prevResult":    object{"cniVersion": "1.1.0", "interfaces": []any{object{"name": "eth0", "sandbox": "/x"}}, "ips": []any{object{"address": "10.88.0.2/24", "interface": 0}}},
		"runtimeConfig": object{"portMappings": []any{object{"hostPort": 8088, "containerPort": 80, "protocol": "tcp"}}},
	}
	if name == "host-local" || name == "static" || name == "dhcp" {
		conf["ipam"] = object{"type": name, "subnet": "10.88.0.0/24", "addresses": []any{object{"address": "10.88.0.2/24"}}}
	}
	b, err := json.Marshal(with(conf, more))
	if err != nil {
		panic(err)
	}
	return b
}

// No name that a runtime or a configuration gives leads out of the directories
// that files are named in after it, whichever plugin and verb it is for.
func TestNamesStayInside(t *testing.T) {
	reset(t)
	defer reset(t)
	suite := suite(t)
	outside := t.TempDir()
	up := strings.Repeat("../", 16) + strings.TrimPrefix(outside, "/") + "/evil"
	sb := newSandbox(t)
	defer sb.remove()
	long := strings.Repeat("x", 5000)
	tries := 0
	for _, name := range names(t, suite.dir) {
		path := filepath.Join(suite.dir, name)
		before := snapshot(t)
		for what, c := range map[string]struct {
			env  []string
			conf []byte
			code uint
		}{
			"container ID":       {[]string{"CNI_CONTAINERID=" + up}, confOf(name, "net", nil), 4},
			"container ID ..":    {[]string{"CNI_CONTAINERID=.."}, confOf(name, "net", nil), 4},
			"container ID, NL":   {[]string{"CNI_CONTAINERID=a\nb"}, confOf(name, "net", nil), 4},
			"interface":          {[]string{"CNI_IFNAME=../evil"}, confOf(name, "net", nil), 4},
			"interface ..":       {[]string{"CNI_IFNAME=.."}, confOf(name, "net", nil), 4},
			"interface, NL":      {[]string{"CNI_IFNAME=a\nb"}, confOf(name, "net", nil), 4},
			"long interface":     {[]string{"CNI_IFNAME=" + long}, confOf(name, "net", nil), 4},
			"network":            {nil, confOf(name, up, nil), 7},
			"network ..":         {nil, confOf(name, "..", nil), 7},
			"network, absolute":  {nil, confOf(name, outside+"/evil", nil), 7},
			"network, hidden":    {nil, confOf(name, ".locks", nil), 7},
			"network, NUL":       {nil, confOf(name, "a\x00b", nil), 7},
			"network, no object": {nil, []byte(`["` + up + `"]`), 6},
		} {
			for _, verb := range []string{"ADD", "CHECK", "DEL", "GC", "STATUS"} {
				if what[0] != 'n' && (verb == "GC" || verb == "STATUS") {
					continue // which are not about an attachment
				}
				env := append([]string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c", "CNI_IFNAME=eth0", "CNI_NETNS=" + sb.path}, c.env...)
				tries++
				if s := say(t, path, bytes.Replace(c.conf, []byte(`{`), []byte(`{"cni.dev/valid-attachments":[],`), 1), env...); s.exit == 0 || s.code != c.code {
					t.Errorf("%s %s of %s: exit %d, code %d, want %d: %s", verb, what, name, s.exit, s.code, c.code, s.msg)
				}
			}
		}
		for _, d := range residue(before, snapshot(t)) {
			t.Errorf("%s: %s", name, d)
		}
	}
	if got := linksOf(t, sb.path); len(got) > 0 {
		t.Errorf("left in the sandbox: %v", got)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("written outside: %v %v", left, err)
	}
	t.Logf("%d calls", tries)
}

// A name that is long but right is shortened where files are named after it, and
// is found again.
func TestLongNames(t *testing.T) {
	reset(t)
	defer reset(t)
	for _, l := range lists() {
		before := snapshot(t)
		l.name = strings.Repeat("n", 250)
		tr := &trial{T: t, judged: suite(t), list: l}
		a, s := tr.attachment(strings.Repeat("c", 900), 8090)
		err := a.add(plain)
		if err == nil {
			must(t, a.check(plain))
		}
		must(t, a.del(plain))
		if err != nil {
			t.Errorf("%s: %v", l.plugins[0]["type"], err)
		}
		for _, d := range residue(before, snapshot(t)) {
			if !strings.HasPrefix(d, "left: file ") || !strings.Contains(d, "/nnnn") { // the lock and the counter of its leases
				t.Errorf("%s: %s", l.plugins[0]["type"], d)
			}
		}
		s.remove()
	}
}

// maxMemory is what a plugin may need for a configuration of the size that it
// takes, in bytes. There is no other bound on what a runtime hands it.
const maxMemory = 512 << 20

// Input without end, of any depth or size, is refused with a code, in bounded
// memory, and not repeated. What all plugins read alike is tried with one.
func TestGiantInput(t *testing.T) {
	reset(t)
	defer reset(t)
	suite := suite(t)
	mega := func(n int, s string) string { return strings.Repeat(s, n<<20/len(s)) }
	wrap := func(key, value string) []byte {
		return []byte(`{"cniVersion":"1.1.0","name":"net","type":"x","` + key + `":` + value + `}`)
	}
	for _, name := range names(t, suite.dir) {
		for what, c := range map[string]struct {
			conf []byte
			code uint // 0: any, or none
		}{
			"too large":            {wrap("x", `"`+mega(17, "x")+`"`), 6},
			"endless array":        {[]byte(mega(4, "[")), 6},
			"endless objects":      {[]byte(mega(4, `{"a":`)), 6},
			"deep where unknown":   {wrap("x", strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), 0},
			"deep prevResult":      {wrap("prevResult", strings.Repeat(`{"ips":[`, 20000)), 6},
			"deep ipam":            {wrap("ipam", strings.Repeat(`{"type":`, 9000)+"1"+strings.Repeat("}", 9000)), 0},
			"many keys":            {wrap("x", `1,`+strings.TrimSuffix(mega(4, `"k":1,`), ",")+`,"y":1`), 0},
			"large prevResult":     {wrap("prevResult", `{"cniVersion":"1.0.0","ips":[`+strings.TrimSuffix(mega(4, `{"address":"10.0.0.1/24"},`), ",")+`]}`), 0},
			"large attachments":    {wrap("cni.dev/valid-attachments", `[`+strings.TrimSuffix(mega(4, `{"containerID":"a","ifname":"b"},`), ",")+`]`), 0},
			"number without end":   {wrap("mtu", strings.Repeat("9", 100_000)), 0},
			"not UTF-8":            {wrap("x", "\"\xff\xfe\""), 0},
			"nothing":              {nil, 6},
			"zeros":                {make([]byte, 1<<20), 6},
			"two values":           {append(confOf(name, "net", nil), confOf(name, "net", nil)...), 6},
			"what is no JSON here": {[]byte(`{"cniVersion":"1.1.0","name":"net",'type':"x"}`), 6},
		} {
			if len(c.conf) > 256<<10 && name != "bridge" {
				continue
			}
			for _, verb := range []string{"ADD", "DEL", "GC"} {
				s := say(t, filepath.Join(suite.dir, name), c.conf, "CNI_COMMAND="+verb, "CNI_CONTAINERID=c", "CNI_IFNAME=eth0", "CNI_NETNS=/nonexistent")
				if c.code != 0 && s.code != c.code {
					t.Errorf("%s of %s, %s: exit %d, code %d, want %d: %.200s", verb, name, what, s.exit, s.code, c.code, s.msg)
				}
				if s.memory > maxMemory {
					t.Errorf("%s of %s, %s: %d MiB of memory", verb, name, what, s.memory>>20)
				}
				if len(s.msg) > 64<<10 {
					t.Errorf("%s of %s, %s: a message of %d bytes", verb, name, what, len(s.msg))
				}
			}
		}
	}
	if left := fmt.Sprint(os.ReadDir("/run/netcleat")); strings.Contains(left, "net") && !strings.Contains(left, "no such file") {
		t.Errorf("left in /run/netcleat: %s", left)
	}
}
