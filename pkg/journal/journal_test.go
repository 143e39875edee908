package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("JOURNAL_KILL_IN"); dir != "" {
		killed(Dir(dir), os.Getenv("JOURNAL_KILL_AT"))
	}
	os.Exit(m.Run())
}

func open(t *testing.T, d Dir, k Key) *Entry {
	t.Helper()
	e, err := d.Open(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// steps are what an ADD and its DEL do, in order.
var steps = []struct {
	name string
	do   func(*Entry) error
	// found and args are what the next call comes upon after a kill just after
	// this step.
	found Found
	args  string
}{
	{"open", func(*Entry) error { return nil }, Nothing, ""},
	{"begin", func(e *Entry) error { e.Args = "one"; return e.Begin() }, Pending, "one"},
	{"begin again", func(e *Entry) error { e.Args = "two"; return e.Begin() }, Pending, "two"},
	{"done", func(e *Entry) error { e.Args = "three"; return e.Done() }, Done, "three"},
	{"reopen", func(e *Entry) error { return reopen(e) }, Done, "three"},
	{"leave", leave, Done, "three"},
	{"remove", (*Entry).Remove, Nothing, ""},
}

func all(string) bool { return true }

func leave(e *Entry) error { return e.dir.Leave(e.Key) }

func reopen(e *Entry) error {
	if err := e.Close(); err != nil {
		return err
	}
	next, err := e.dir.Open(context.Background(), e.Key)
	if err == nil {
		*e = *next
	}
	return err
}

// killed takes the steps up to the named one and dies as by kill -9.
func killed(d Dir, at string) {
	e, err := d.Open(context.Background(), restartKey)
	for _, s := range steps {
		if err == nil {
			err = s.do(e)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if s.name == at {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	}
}

// Whatever step the kill comes after, the next call finds what was there, is not
// kept waiting, and can end it.
func TestKill(t *testing.T) {
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{"JOURNAL_KILL_IN=" + dir, "JOURNAL_KILL_AT=" + s.name}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != -1 {
				t.Fatalf("not killed: %v %s", err, out)
			}
			e := open(t, Dir(dir), restartKey)
			if e.Found != s.found || e.Args != s.args {
				t.Errorf("found %v %q, want %v %q", e.Found, e.Args, s.found, s.args)
			}
			must(t, e.Remove(), e.Close())
			if left := files(t, dir); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

func files(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if path != dir {
			all = append(all, strings.TrimPrefix(path, dir))
		}
		return err
	}))
	return strings.Join(all, " ")
}

// Fifty calls on one attachment, of all kinds: never two at a time, none is kept
// waiting for ever, and nothing is left.
func TestOneAtATime(t *testing.T) {
	d := Dir(t.TempDir())
	var inside atomic.Int32
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			e, err := d.Open(t.Context(), restartKey)
			if err != nil {
				t.Error(err)
				return
			}
			if n := inside.Add(1); n != 1 {
				t.Errorf("%d inside", n)
			}
			e.Args = fmt.Sprint(i)
			if i%5 == 1 {
				err = leave(e)
			} else {
				err = errors.Join(e.Restart(), e.Begin(), e.Begin())
			}
			end := []func() error{e.Done, e.Remove, e.Abandon, e.Close, e.Close}[i%5]
			inside.Add(-1)
			if err = errors.Join(err, end(), e.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	e := open(t, d, restartKey)
	must(t, e.Remove(), e.Close())
	if left := files(t, string(d)); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// A call that may not wait is told so, and takes nothing with it.
func TestBusy(t *testing.T) {
	d := Dir(t.TempDir())
	e := begin(t, d, "x")
	at, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Open(at, restartKey); !errors.Is(err, ErrBusy) {
		t.Errorf("open: %v, want busy", err)
	}
	unlock, err := d.Lock(t.Context(), "masquerade of n")
	must(t, err)
	if _, err := d.Lock(at, "masquerade of n"); !errors.Is(err, ErrBusy) {
		t.Errorf("lock: %v, want busy", err)
	}
	must(t, unlock())
	unlock, err = d.Lock(at, "masquerade of n")
	must(t, err, unlock())
	must(t, e.Remove())
}

// mountTmpfs puts a small file system of its own over a directory, which only
// this test's thread sees.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Skipf("needs CAP_SYS_ADMIN: %v", err)
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// On a full file system the call fails with a clear error, nothing is written by
// half, and what is there can be removed.
func TestFull(t *testing.T) {
	dir := mountTmpfs(t, "size=16k")
	d := Dir(dir)
	e := open(t, d, restartKey)
	e.Args = "small"
	must(t, e.Begin())
	e.Args = strings.Repeat("x", 64<<10)
	if err := e.Begin(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("begin: %v", err)
	}
	if r, err := d.Read(restartKey); err != nil || r.Args != "small" {
		t.Errorf("record %q, %v; want the one before", r.Args, err)
	}
	if err := e.Done(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("done: %v", err)
	}
	must(t, e.Close())
	if e = open(t, d, restartKey); e.Found != Done || e.Args != "small" {
		t.Errorf("found %v %q; want a finished attachment", e.Found, e.Args)
	}
	other := restartKey
	other.ContainerID = "other"
	o := open(t, d, other)
	o.Args = strings.Repeat("x", 64<<10)
	if err := o.Begin(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("begin: %v", err)
	}
	must(t, o.Close(), e.Remove(), e.Close())
	if left := files(t, dir); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestReadOnly(t *testing.T) {
	dir := mountTmpfs(t, "")
	d := Dir(dir)
	e := begin(t, d, "x")
	must(t, e.Done(), e.Close(), unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if _, err := d.Open(t.Context(), restartKey); !errors.Is(err, unix.EROFS) {
		t.Errorf("open: %v", err)
	}
	p, err := d.Peek(restartKey)
	must(t, err)
	if p.Found != Done || p.Args != "x" {
		t.Errorf("found %v %q", p.Found, p.Args)
	}
	if err := p.Remove(); !errors.Is(err, unix.EROFS) {
		t.Errorf("remove: %v", err)
	}
	must(t, p.Close())
}

// A record that cannot be read stops nobody; one of a later version is kept.
func TestUnreadable(t *testing.T) {
	for content, want := range map[string]struct {
		found Found
		open  error // of an ADD
		kept  bool  // by a DEL
	}{
		``:                              {Nothing, nil, false},
		`{"version":1,"netw`:            {Nothing, nil, false},
		`[]`:                            {Nothing, nil, false},
		`{"version":2,"args":"x"}`:      {Done, nil, false},
		`{"version":2,"netnsID":"new"}`: {Nothing, errLater, true},
	} {
		t.Run(content, func(t *testing.T) {
			d := Dir(t.TempDir())
			must(t, os.MkdirAll(d.network("n"), 0o700), os.WriteFile(d.path(restartKey), []byte(content), 0o600))
			e, err := d.Open(t.Context(), restartKey)
			if !errors.Is(err, want.open) {
				t.Fatalf("open: %v, want %v", err, want.open)
			}
			if err != nil {
				e, err = d.Peek(restartKey)
				must(t, err)
			}
			if e.Found != want.found {
				t.Errorf("found %v, want %v", e.Found, want.found)
			}
			if want.found == Done && e.Begin() == nil {
				t.Error("a later version's record was begun anew")
			}
			must(t, e.Remove(), e.Close())
			if _, err := os.Stat(d.path(restartKey)); (err == nil) != want.kept {
				t.Errorf("after DEL: %v, want kept %v", err, want.kept)
			}
		})
	}
}

// Names have no limit but the file system's, and no two share a file.
func TestLongNames(t *testing.T) {
	d := Dir(t.TempDir())
	long := func(network, id string) Key {
		return Key{Network: strings.Repeat("n", 250) + network, ContainerID: strings.Repeat("c", 300) + id, IfName: "fifteen-bytes-x", Plugin: "host-device"}
	}
	keys := []Key{long("a", "a"), long("a", "b"), long("b", "a")}
	for i, k := range keys {
		e := open(t, d, k)
		if e.Found != Nothing {
			t.Errorf("%d found another's record", i)
		}
		must(t, e.Begin(), e.Done(), e.Close())
	}
	networks, err := d.Networks()
	must(t, err)
	if len(networks) != 2 {
		t.Errorf("networks %q", networks)
	}
	records, err := d.Network(keys[0].Network)
	must(t, err)
	if len(records) != 2 {
		t.Errorf("%d records", len(records))
	}
}

// What two names are written one after the other for is found in all networks, and
// nothing else.
func TestJoined(t *testing.T) {
	d := Dir(t.TempDir())
	long := strings.Repeat("n", 250)
	for _, k := range []Key{
		{Network: "ab", ContainerID: "c"},
		{Network: "a", ContainerID: "bc"},
		{Network: "a", ContainerID: "b"},
		{Network: "abcd", ContainerID: "c"},
		{Network: "b", ContainerID: "c"},
		{Network: long + "a", ContainerID: "b"},
		{Network: long, ContainerID: "ab"},
		{Network: long + "b", ContainerID: "b"},
	} {
		k.IfName, k.Plugin = "eth0", "bridge"
		e := open(t, d, k)
		must(t, e.Begin(), e.Done(), e.Close())
	}
	for _, k := range []Key{{Network: "ab", ContainerID: "c"}, {Network: long + "a", ContainerID: "b"}} {
		all, err := d.Joined(k)
		must(t, err)
		if len(all) != 2 || all[0].Network+all[0].ContainerID != all[1].Network+all[1].ContainerID {
			t.Errorf("%s and %s: %d records", k.Network, k.ContainerID, len(all))
		}
	}
}

// Any and Network see pending and finished records, each once.
func TestSeen(t *testing.T) {
	d := Dir(t.TempDir())
	for i := range 100 {
		e := open(t, d, Key{Network: "n", ContainerID: fmt.Sprint("c", i), IfName: "eth0", Plugin: "p"})
		must(t, e.Begin())
		if i%2 == 0 {
			must(t, e.Done())
		}
		must(t, e.Close())
	}
	again := open(t, d, Key{Network: "n", ContainerID: "c0", IfName: "eth0", Plugin: "p"})
	must(t, again.Begin()) // beside the finished one
	all, err := d.Network("n")
	if len(all) != 100 || err != nil {
		t.Errorf("%d records, %v", len(all), err)
	}
	for id, want := range map[string]bool{"c4": true, "c5": true, "c100": false} {
		got, err := d.Any("n", func(p string) bool { return p == "p" }, func(r Record) bool { return r.ContainerID == id })
		if got != want || err != nil {
			t.Errorf("any %s: %v %v", id, got, err)
		}
	}
	if got, _ := d.Any("n", func(p string) bool { return p == "q" }, func(Record) bool { return true }); got {
		t.Error("another plugin's records matched")
	}
	must(t, again.Close())
}

// TestNeverMissed: whoever reads the journal sees each attachment from when it
// has begun, also while its record takes its final name.
func TestNeverMissed(t *testing.T) {
	const many = 400
	dir := Dir(t.TempDir())
	begun, look := make(chan Key), make(chan bool)
	go func() {
		defer close(begun)
		for i := range many {
			k := Key{Network: "n", ContainerID: fmt.Sprintf("a-name-that-fills-the-directory-%d", i), IfName: "eth0", Plugin: "p"}
			e, err := dir.Open(t.Context(), k)
			if err == nil {
				err = e.Begin()
			}
			begun <- k
			if <-look; err == nil {
				err = errors.Join(e.Done(), e.Close())
			}
			if err != nil {
				t.Error(err)
			}
		}
	}()
	n := 0
	for k := range begun {
		n++
		look <- true // it is Done while these look
		records, err := dir.Network("n")
		if err != nil || len(records) < n {
			t.Errorf("%d records of at least %d, %v", len(records), n, err)
		}
		if _, err := dir.Read(k); err != nil {
			t.Errorf("attachment %d: %v", n, err)
		}
	}
}

// No operation leaves a descriptor open.
func TestNoDescriptorLeaks(t *testing.T) {
	d := Dir(t.TempDir())
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(fds)
	}
	before := count()
	for range 20 {
		e := open(t, d, restartKey)
		must(t, e.Begin(), e.Begin(), e.Done(), e.Close())
		e = open(t, d, restartKey)
		must(t, leave(e), e.Remove(), e.Close(), e.Close())
		unlock, err := d.Lock(t.Context(), "x")
		must(t, err, unlock())
	}
	if after := count(); after > before+1 {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

// What a kill before the first change or after the last leaves, Sweep removes;
// what says something it leaves alone, and what an operation holds.
func TestSweep(t *testing.T) {
	d := Dir(t.TempDir())
	key := func(id string) Key { return Key{"net", id, "eth0", "bridge"} }
	kept := open(t, d, key("kept"))
	must(t, kept.Begin(), kept.Done(), kept.Close())
	must(t, d.Leave(key("kept")))
	held := open(t, d, key("held"))
	for _, orphan := range []string{"a:eth0:bridge.pending", "b:eth0:bridge.leaving", "c:eth0:bridge.new", "held:eth0:bridge.leaving"} {
		must(t, os.WriteFile(filepath.Join(string(d), "net", orphan), nil, 0o600))
	}
	must(t, os.WriteFile(filepath.Join(string(d), "net", "d:eth0:bridge.pending"), []byte(`{"version":1,"net`), 0o600))
	must(t, d.Sweep("net", all), d.Sweep("none", all))
	var left []string
	files, err := os.ReadDir(filepath.Join(string(d), "net"))
	must(t, err)
	for _, f := range files {
		left = append(left, f.Name())
	}
	want := "held:eth0:bridge.leaving held:eth0:bridge.pending kept:eth0:bridge kept:eth0:bridge.leaving"
	if got := strings.Join(left, " "); got != want {
		t.Errorf("want %s\n got %s", want, got)
	}
	must(t, held.Close())
}

// A comment that anybody may have written is compared with names of any length.
func TestIsCut(t *testing.T) {
	long := strings.Repeat("pod", 40)
	for _, c := range []struct {
		cut, name string
		want      bool
	}{
		{"web", "web", true},
		{"web", "webshop", false},
		{"gone", "guarded", false},
		{"~", long, false},
		{"a~b", "a~b", true},
		{"a~b", long, false},
		{"~0123456789abcdef", long, false},
		{Cut(long, 17), long, true},
		{Cut(long, 32), long, true},
		{Cut(long, 32), long + "d", false},
	} {
		if got := IsCut(c.cut, c.name); got != c.want {
			t.Errorf("%q of %q: got %v", c.cut, c.name, got)
		}
	}
}

// The records of one plugin are all that can be read, whatever lies next to them.
func TestOf(t *testing.T) {
	d := Dir(t.TempDir())
	key := func(container, plugin string) Key {
		return Key{Network: "n", ContainerID: container, IfName: "eth0", Plugin: plugin}
	}
	for _, k := range []Key{key("c1", "dnsname"), key("c2", "dnsname"), key("c3", "dnsname"), key("c1", "bridge"), key("going", "dnsname")} {
		e, err := d.Open(t.Context(), k)
		must(t, err)
		e.Record = Record{Key: k}
		must(t, e.Begin(), e.Done(), e.Close())
	}
	must(t, d.Leave(key("going", "dnsname")))
	for _, name := range []string{"a:eth0:dnsname", "m:eth0:dnsname", "z:eth0:dnsname"} {
		must(t, os.WriteFile(filepath.Join(d.network("n"), name), []byte(`{"version":2,"netnsID":"new"}`), 0o600))
	}
	all, bad, err := d.Of("n", "dnsname")
	must(t, err)
	var ids []string
	for _, r := range all {
		ids = append(ids, r.ContainerID)
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"c1", "c2", "c3"}) || len(bad) != 3 {
		t.Errorf("records of %v, and %d that cannot be read", ids, len(bad))
	}
}
