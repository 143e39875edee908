package hostlocal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// The test binary is host-local itself where this variable names the journal.
const journalEnv = "HOSTLOCAL_TEST_JOURNAL"

// marker is a system call that nothing else makes: what is traced begins there.
const marker = unix.SYS_GETSID

func TestMain(m *testing.M) {
	if dir := os.Getenv(journalEnv); dir != "" {
		_, _, _ = unix.Syscall(marker, 0, 0, 0)
		p := plugin.Process{
			Name: "host-local", Getenv: os.Getenv, Journal: journal.Dir(dir),
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		}
		os.Exit(p.Run(context.Background(), table))
	}
	os.Exit(m.Run())
}

// host is a data directory and a journal, on which processes work.
type host struct {
	t    testing.TB
	dir  string
	ipam string // keys of the ipam section
	ref  string // the reference's binary
	wrap []string
}

func newHost(t testing.TB, ipam string) *host {
	t.Helper()
	return &host{t: t, dir: t.TempDir(), ipam: ipam}
}

func (h *host) leases() string { return filepath.Join(h.dir, "leases", "net") }

// command returns the process that answers verb.
func (h *host) command(verb, id string, more ...string) *exec.Cmd {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	args := append(slices.Clone(h.wrap), self)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append([]string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + id, "CNI_IFNAME=eth0", "CNI_NETNS=/nonexistent", "CNI_PATH=/nonexistent",
		journalEnv + "=" + filepath.Join(h.dir, "journal"), "PATH=" + os.Getenv("PATH"),
	}, more...)
	conf := strings.ReplaceAll(conf(h.ipam), "DATADIR", h.dir)
	if verb == plugin.GC {
		conf = strings.TrimSuffix(conf, "}") + `,"cni.dev/valid-attachments":[` + id + `]}`
	}
	cmd.Stdin = strings.NewReader(conf)
	return cmd
}

// answer is what a process made of a call.
type answer struct {
	ip   string // the first address of the result
	code uint
	msg  string
}

func (h *host) run(cmd *exec.Cmd) answer {
	h.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	var o struct {
		Code uint
		Msg  string
		IPs  []struct{ Address string }
	}
	if out.Len() > 0 {
		if jerr := json.Unmarshal(out.Bytes(), &o); jerr != nil {
			h.t.Fatalf("%v\n%s\n%s", jerr, out.Bytes(), errs.Bytes())
		}
	}
	if err != nil && o.Code == 0 {
		h.t.Fatalf("%v\n%s\n%s", err, out.Bytes(), errs.Bytes())
	}
	a := answer{code: o.Code, msg: o.Msg}
	if len(o.IPs) > 0 {
		a.ip, _, _ = strings.Cut(o.IPs[0].Address, "/")
	}
	return a
}

// do runs the verb for the container, which must succeed.
func (h *host) do(verb, id string, more ...string) string {
	h.t.Helper()
	a := h.run(h.command(verb, id, more...))
	if a.code != 0 {
		h.t.Fatalf("%s %s: code %d: %s", verb, id, a.code, a.msg)
	}
	return a.ip
}

// reference runs the reference's host-local instead.
func (h *host) reference(verb, id string) answer {
	h.t.Helper()
	cmd := h.command(verb, id)
	if h.ref == "" {
		h.ref = referenceBinary(h.t)
	}
	cmd.Path, cmd.Args = h.ref, []string{h.ref}
	return h.run(cmd)
}

func referenceBinary(t testing.TB) string {
	t.Helper()
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(repo, "scripts", "reference")).CombinedOutput(); err != nil {
		t.Fatalf("install the reference: %v\n%s", err, out)
	}
	return filepath.Join(repo, "build", "reference", "bin", "host-local")
}

// files returns the lease directory as a map of address to content.
func (h *host) files() map[string]string {
	h.t.Helper()
	entries, err := os.ReadDir(h.leases())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		if e.Name() == "lock" || strings.HasPrefix(e.Name(), "last_reserved_ip.") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(h.leases(), e.Name()))
		if err != nil {
			h.t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

// fill writes leases of the reference for n containers, from the address on.
func (h *host) fill(format string, n, from int) {
	h.t.Helper()
	if err := os.MkdirAll(h.leases(), 0o755); err != nil {
		h.t.Fatal(err)
	}
	for i := range n {
		name := fmt.Sprintf(format, (from+i)/256, (from+i)%256)
		if err := os.WriteFile(filepath.Join(h.leases(), name), fmt.Appendf(nil, "fill%d\r\neth0", i), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
}

// inProcess runs the verb in this process and returns how long it took, decoding
// and printing included.
func (h *host) inProcess(t testing.TB, verb, dir string) time.Duration {
	t.Helper()
	env := map[string]string{"CNI_COMMAND": verb, "CNI_CONTAINERID": "bench", "CNI_IFNAME": "eth0", "CNI_NETNS": "/nonexistent"}
	var out bytes.Buffer
	p := plugin.Process{
		Name: "host-local", Getenv: func(k string) string { return env[k] }, Journal: journal.Dir(dir),
		Stdin: strings.NewReader(strings.ReplaceAll(conf(h.ipam), "DATADIR", h.dir)), Stdout: &out, Stderr: &out,
	}
	start := time.Now()
	exit := p.Run(t.Context(), table)
	took := time.Since(start)
	if exit != 0 {
		t.Fatal(out.String())
	}
	return took
}
