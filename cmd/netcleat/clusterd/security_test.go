package clusterd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/slot"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	ca   string // file
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key = a.newKey()
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.ca = a.write("ca", a.cert, &a.key.PublicKey)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// sign makes a certificate and its key for an address or a name, and returns the files.
func (a *authority) sign(name string) (cert, key string) {
	a.t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		c.DNSNames, c.IPAddresses = nil, []net.IP{ip}
	}
	k := a.newKey()
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name, c, &k.PublicKey), a.pem(name+".key", "EC PRIVATE KEY", der)
}

func (a *authority) write(name string, c *x509.Certificate, public *ecdsa.PublicKey) string {
	a.t.Helper()
	der, err := x509.CreateCertificate(crand.Reader, c, a.cert, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.pem(name+".crt", "CERTIFICATE", der)
}

func (a *authority) pem(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// TestTLS accepts a member of etcd by the name in its certificate, and is accepted by
// its own.
func TestTLS(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	ours, ourKey := a.sign("host")
	other, otherKey := stranger.sign("host")
	for name, c := range map[string]struct {
		server  string
		s       Settings
		refused string
	}{
		"right":                  {"127.0.0.1", Settings{CA: a.ca, Cert: ours, Key: ourKey}, ""},
		"member of another name": {"etcd.example", Settings{CA: a.ca, Cert: ours, Key: ourKey}, "certificate"},
		"unknown authority":      {"127.0.0.1", Settings{CA: stranger.ca, Cert: ours, Key: ourKey}, "certificate"},
		"unknown host":           {"127.0.0.1", Settings{CA: a.ca, Cert: other, Key: otherKey}, "certificate"},
		"host without one":       {"127.0.0.1", Settings{CA: a.ca}, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cert, key := a.sign(c.server)
			m := startMembers(t, 1, "https://", "--client-cert-auth", "--trusted-ca-file", a.ca, "--cert-file", cert, "--key-file", key)[0]
			c.s.Endpoints, c.s.Prefix = []string{m.client}, "/t/"
			_, err := settled(t, &c.s, c.refused == "")
			switch {
			case c.refused == "" && err != nil:
				t.Error(err)
			case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
				t.Errorf("want %q, got %v", c.refused, err)
			}
		})
	}
}

// settled asks for the state, again while it must come and does not yet.
func settled(t *testing.T, s *Settings, must bool) (r *Report, err error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		if r, err = Status(t.Context(), s); err == nil || !must && !strings.Contains(err.Error(), "refused") || time.Now().After(end) {
			return r, err
		}
	}
}

const secret = "correct-horse-battery"

// restricted starts an etcd with a user whose role is limited to the prefix.
func restricted(t *testing.T) *Settings {
	t.Helper()
	m := startMembers(t, 1, "http://")[0]
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{m.client}, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all := clientv3.PermissionType(clientv3.PermReadWrite)
	for _, step := range []func() error{
		func() error { _, err := c.RoleAdd(ctx, "netcleat"); return err },
		func() error {
			_, err := c.RoleGrantPermission(ctx, "netcleat", "/netcleat/", clientv3.GetPrefixRangeEnd("/netcleat/"), all)
			return err
		},
		func() error { _, err := c.UserAdd(ctx, "netcleat", secret); return err },
		func() error { _, err := c.UserGrantRole(ctx, "netcleat", "netcleat"); return err },
		func() error { _, err := c.UserAdd(ctx, "root", "other-"+secret); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "clusterd") //nolint:usetesting // the path of a socket may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &Settings{
		Endpoints: []string{m.client}, Username: "netcleat", PasswordFile: password, Host: "h1", Prefix: "/netcleat/",
		Socket: filepath.Join(dir, "sock"), StateDir: filepath.Join(dir, "state"),
	}
}

// said is a log.
type said struct {
	mu sync.Mutex
	bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.String()
}

// runDaemon runs a daemon until the test ends.
func runDaemon(t *testing.T, s *Settings) *said {
	t.Helper()
	out := &said{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, s, journal.Dir(t.TempDir()), log.New(out, "", 0)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return out
}

// eventually waits for something.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestRole works as a user whose role is limited to the prefix, and cannot write
// elsewhere. The password is in no log and no error.
func TestRole(t *testing.T) {
	s := restricted(t)
	out := runDaemon(t, s)
	eventually(t, "the host is registered", func() bool {
		r, err := Status(t.Context(), s)
		return err == nil && len(r.Hosts) == 1
	})
	err := operate(t.Context(), s, func(e *etcd) error {
		e.prefix = "/other/"
		return e.do(txn{compare: compare{key: "key"}, value: "x"}).err
	})
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("outside of the prefix: want permission denied, got %v", err)
	}
	wrong := *s
	wrong.PasswordFile = filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(wrong.PasswordFile, []byte("not-"+secret), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Status(t.Context(), &wrong)
	if err == nil || !strings.Contains(err.Error(), "invalid user ID or password") {
		t.Errorf("want an error of the password, got %v", err)
	}
	if all := out.String() + err.Error(); strings.Contains(all, secret) {
		t.Errorf("the password is in:\n%s", all)
	}
}

// connectAs connects to a socket as another user, and returns what is read.
func connectAs(uid uintptr, path string) (answer []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); e != 0 {
			err = e
			return
		}
		fd, serr := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if serr != nil {
			err = serr
			return
		}
		defer func() { _ = unix.Close(fd) }()
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == nil {
			answer = make([]byte, 100)
			n, _ := unix.Read(fd, answer) // the daemon hangs up
			answer = answer[:max(n, 0)]
		}
	}()
	<-done
	return answer, err
}

// TestSocket has a socket that root alone can open. Another user is refused even if
// somebody has opened it to all.
func TestSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("another user takes root: run it as root (make test)")
	}
	s := restricted(t)
	out := runDaemon(t, s)
	eventually(t, "the daemon listens", func() bool { _, err := os.Stat(s.Socket); return err == nil })
	st, err := os.Stat(s.Socket)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st.Mode(), err)
	}
	const other = 65534
	if _, err := connectAs(other, s.Socket); !errors.Is(err, unix.EACCES) {
		t.Errorf("another user: want %v, got %v", unix.EACCES, err)
	}
	for path, mode := range map[string]os.FileMode{s.Socket: 0o666, filepath.Dir(s.Socket): 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := connectAs(other, s.Socket); err != nil || len(answer) > 0 {
		t.Errorf("the other user: %q, %v", answer, err)
	}
	eventually(t, "the daemon refuses it", func() bool { return strings.Contains(out.String(), "of user 65534 may not use the daemon") })
}

// TestClone starts a second host with the name of another: a new machine, and a copy
// with what the first has on disk.
func TestClone(t *testing.T) {
	s := newSim(t, 1, 2, simNets[0])
	s.calm = true
	s.settle(20_000)
	first := s.hosts[0]
	for i := range 3 {
		first.add(string(rune('a'+i)), s.anyAddr(first), 3)
	}
	s.run(s.now + 20_000)

	newcomer := s.hosts[1]
	newcomer.crash()
	newcomer.name, newcomer.disk, newcomer.files = first.name, memory{}, map[string]slot.Parts{}
	newcomer.start()
	s.run(s.now + 20_000)
	if d := newcomer.d; d.state != refused || !strings.Contains(d.why.Error(), "is not this installation") || len(newcomer.files["lan"]) > 0 {
		t.Errorf("a host with the name of another: %v, it uses %v", d.why, newcomer.files)
	}
	if first.d.state != running || len(first.files["lan"]) == 0 {
		t.Errorf("the first host: %v", first.d.why)
	}

	newcomer.crash()
	newcomer.disk, newcomer.starts = first.disk, 100
	newcomer.start()
	s.run(s.now + 20_000)
	if d := first.d; d.state != refused || !strings.Contains(d.why.Error(), "another daemon has taken this identity") || len(first.files["lan"]) > 0 {
		t.Errorf("the host that was copied: %v, it uses %v", d.why, first.files)
	}
}

// FuzzLearn gives the daemon any key with any value.
func FuzzLearn(f *testing.F) {
	for _, key := range []string{"host/h0", "host/x", "status/x", "stop", "reset", "net/lan/layout", "net/lan/slot/0000000000000000", "net/lan/need/x", "net/lan/deny/h0", "net//", "net/a/b/c/d"} {
		for _, value := range []string{"", "released", "reset", "4 10.0.0.0/26", "0/2 h0\n", "0/4 x\n", "t any", "t 0 1", "t h0 held"} {
			f.Add(key, value, int64(3))
		}
	}
	f.Fuzz(func(t *testing.T, key, value string, rev int64) {
		s := newSim(t, 1, 2, simNets[0])
		s.calm = true
		s.run(5_000)
		for _, h := range s.hosts {
			h.d.changed(change{kv{key, value, rev}, rev})
		}
		s.rev++
		s.keys[key] = kv{key, value, s.rev}
		s.run(s.now + 5_000)
		for _, h := range s.hosts {
			h.d.list(h.d.relist)
		}
		s.run(s.now + 5_000)
		for _, h := range s.hosts {
			for _, p := range h.files["lan"] {
				if p.Slot >= h.pool.Layout.Slots() || !h.pool.Layout.Whole(p.Slot).Contains(p) {
					t.Fatalf("%s uses %+v", h.name, p)
				}
			}
		}
		report(s.listing())
	})
}
