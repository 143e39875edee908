package dhcpd

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func TestParseFlags(t *testing.T) {
	s, err := parseFlags(nil)
	want := settings{socketPath: "/run/cni/dhcp.sock", timeout: 4 * time.Second, resendMax: 62 * time.Second, resendTimeout: 208 * time.Second}
	if err != nil || s != want {
		t.Errorf("defaults: %+v, %v", s, err)
	}
	s, err = parseFlags(strings.Fields("-pidfile /p -hostprefix /host -socketpath /s -broadcast -timeout 1s --resendmax=2s -resendtimeout 3s"))
	want = settings{pidfile: "/p", hostPrefix: "/host", socketPath: "/s", broadcast: true, timeout: time.Second, resendMax: 2 * time.Second, resendTimeout: 3 * time.Second}
	if err != nil || s != want {
		t.Errorf("all flags: %+v, %v", s, err)
	}
	for _, bad := range []string{"-pidfile p", "-timeout 0s", "-resendmax -1s", "-nope", "daemon"} {
		if _, err := parseFlags(strings.Fields(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestSocketIsPrivate(t *testing.T) {
	l := newLAN(t)
	l.fake()
	pidfile := filepath.Join(l.Dir, "pid")
	d := l.daemon("-pidfile", pidfile)
	for path, want := range map[string]os.FileMode{l.socket: 0o600, filepath.Dir(l.socket): 0o700, l.socket + ".leases": 0o700} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (%v)", path, st.Mode(), want, err)
		}
	}
	if b, err := os.ReadFile(pidfile); err != nil || string(b) != strconv.Itoa(d.cmd.Process.Pid) {
		t.Errorf("pidfile: %q, %v", b, err)
	}
	// A socket that somebody has opened to all is no way in either.
	for _, path := range []string{l.Dir, filepath.Dir(l.Dir), filepath.Dir(filepath.Dir(l.Dir)), filepath.Dir(l.socket), l.socket} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(path, st.Mode()) })
	}
	out, err := asNobody(l.socket)
	if err != nil || strings.Contains(out, "200") {
		t.Errorf("nobody was told %q (%v)", out, err)
	}
	d.waitFor("of user 65534 may not use the daemon", 0, time.Second)
	l.Must(plugin.Add, l.call(""))

	d.kill(syscall.SIGTERM)
	for _, path := range []string{l.socket, pidfile} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}

// asNobody asks for RPC as an unprivileged user and returns the answer. The test
// binary is where only root may go, so a copy of it asks.
func asNobody(socket string) (string, error) {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "", err
	}
	copied := filepath.Join(filepath.Dir(socket), "knock")
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command(copied)
	cmd.Env = []string{knock + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// knock makes the test binary connect to the socket it names and print what it
// is told.
const knock = "NETCLEAT_TEST_DHCP_KNOCK"

func knockAt(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	// The daemon hangs up, perhaps before this is written.
	_, _ = conn.Write([]byte("CONNECT /_goRPC_ HTTP/1.0\n\n"))
	b := make([]byte, 100)
	n, _ := conn.Read(b)
	_, err = os.Stdout.Write(b[:n])
	return err
}

func TestOneDaemonASocket(t *testing.T) {
	l := newLAN(t)
	first := l.daemon()
	second := l.spawnDaemon()
	second.waitFor("another dhcp daemon", 0, 8*time.Second)
	first.kill(syscall.SIGTERM)

	other, err := net.Listen("unix", l.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l.spawnDaemon().waitFor("another daemon listens on it", 0, 5*time.Second)
}

func TestHostPrefix(t *testing.T) {
	l := newLAN(t)
	l.fake()
	host := filepath.Join(l.Dir, "host")
	if err := os.MkdirAll(host, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"proc", "tmp"} { // the daemon sees the host's root there
		if err := os.Symlink("/"+dir, filepath.Join(host, dir)); err != nil {
			t.Fatal(err)
		}
	}
	l.daemon("-hostprefix", host)
	l.Must(plugin.Add, l.call(""))
	l.Must(plugin.Del, l.call(""))
}

func TestSocketActivation(t *testing.T) {
	l := newLAN(t)
	l.fake()
	if err := os.MkdirAll(filepath.Dir(l.socket), 0o700); err != nil {
		t.Fatal(err)
	}
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: l.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := ul.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// LISTEN_PID has to be the daemon's own: a shell sets it and becomes the daemon.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -socketpath "$1"`, self, l.socket)
	cmd.Env = append(os.Environ(), asDaemon+"=1", "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.Must(plugin.Add, l.call(""))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.socket); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
}

// A plain file in the place of a namespace, or a namespace of another kind, is
// not entered.
func TestNotANamespace(t *testing.T) {
	l := newLAN(t)
	l.daemon()
	c := l.call("")
	for _, path := range []string{filepath.Join(l.Dir, "none"), "/etc/passwd", "/proc/self/ns/mnt"} {
		c.Netns = path
		if a := l.Do(plugin.Add, c); a.Exit == 0 {
			t.Errorf("%s: %s", path, a.Stdout)
		}
	}
	c.Netns = ""
	c.IfName = "eth7"
	if msg := l.Fails(plugin.Add, c, cnierr.Internal); !strings.Contains(msg, `error looking up "eth7"`) {
		t.Error(msg)
	}
}
