package dhcpd

import (
	"context"
	"errors"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
)

// fake is a DHCP server that does as it is told: dnsmasq keeps no lease under
// two minutes, and never misbehaves.
type fake struct {
	conn net.PacketConn
	mu   sync.Mutex
	seen []*dhcpv4.DHCPv4
	mods []dhcpv4.Modifier // what its answers say
	typ  dhcpv4.MessageType
	mute bool
	// pool, where set, holds the address of each client ID.
	pool map[string]net.IP
	// raw, where set, is sent instead of each answer.
	raw func(reply *dhcpv4.DHCPv4) []byte
}

// fake starts the server on the bridge.
func (l *lan) fake(mods ...dhcpv4.Modifier) *fake {
	l.t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			err = unix.BindToDevice(int(fd), "br0")
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
			}
		})
		if err == nil {
			err = cerr
		}
		return err
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", ":67")
	if err != nil {
		l.t.Fatal(err)
	}
	f := &fake{conn: conn, mods: mods, typ: dhcpv4.MessageTypeAck}
	done := make(chan struct{})
	go func() { defer close(done); f.serve() }()
	l.t.Cleanup(func() { _ = conn.Close(); <-done })
	return f
}

func (f *fake) serve() {
	buf := make([]byte, 2048)
	for {
		n, _, err := f.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		m, err := dhcpv4.FromBytes(buf[:n])
		if err == nil {
			f.answer(m)
		}
	}
}

func (f *fake) answer(m *dhcpv4.DHCPv4) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, m)
	typ := f.typ
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		typ = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
	default:
		return
	}
	if f.mute {
		return
	}
	mods := append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(typ), dhcpv4.WithYourIP(net.IP{10, 77, 5, 5}), dhcpv4.WithServerIP(net.IP{10, 77, 0, 1}),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 77, 0, 1})), dhcpv4.WithNetmask(net.CIDRMask(16, 32)), dhcpv4.WithLeaseTime(60),
	}, f.mods...)
	if f.pool != nil {
		mods = append(mods, dhcpv4.WithYourIP(f.addressOf(string(m.Options.Get(dhcpv4.OptionClientIdentifier)))))
	}
	r, err := dhcpv4.NewReplyFromRequest(m, mods...)
	if err != nil {
		panic(err)
	}
	b := r.ToBytes()
	if f.raw != nil {
		b = f.raw(r)
	}
	_, _ = f.conn.WriteTo(b, &net.UDPAddr{IP: net.IPv4bcast, Port: clientPort})
}

func (f *fake) addressOf(client string) net.IP {
	if f.pool[client] == nil {
		n := len(f.pool) + 1<<8
		f.pool[client] = net.IP{10, 77, byte(n >> 8), byte(n)}
	}
	return f.pool[client]
}

// set changes how the server answers.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// messages returns the types of what has come so far.
func (f *fake) messages() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.seen {
		all = append(all, m.MessageType().String())
	}
	return all
}

// last returns the last message of a type.
func (f *fake) last(typ dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.seen) - 1; i >= 0; i-- {
		if f.seen[i].MessageType() == typ {
			return f.seen[i]
		}
	}
	return &dhcpv4.DHCPv4{}
}

// seconds are an option's value in the protocol's form.
func seconds(n byte) []byte { return []byte{0, 0, 0, n} }

func TestExpiry(t *testing.T) {
	l := newLAN(t)
	f := l.fake(dhcpv4.WithLeaseTime(3), dhcpv4.WithRouter(net.IP{10, 77, 0, 1}))
	d := l.daemon("-timeout", "500ms", "-resendmax", "1s")
	l.addTo(l.Must(plugin.Add, l.call("")))
	f.set(func() { f.mute = true })
	d.waitFor("ends (expired)", 0, 6*time.Second)
	l.eventually(time.Second, "address removed", func() bool { return len(l.addresses()) == 0 })
	msg := l.Fails(plugin.Check, l.call(""), cnierr.CheckFailed)
	if !strings.Contains(msg, "lease of 10.77.5.5/16: expired") {
		t.Error(msg)
	}
	// The server is back: so is the address, with its route.
	f.set(func() { f.mute = false; f.mods = append(f.mods, dhcpv4.WithLeaseTime(60)) })
	l.eventually(5*time.Second, "address back", func() bool { return len(l.addresses()) == 1 })
	if got := f.last(dhcpv4.MessageTypeDiscover).RequestedIPAddress().String(); got != "10.77.5.5" {
		t.Errorf("asked for %s again", got)
	}
	l.eventually(time.Second, "route back", func() bool {
		return strings.Contains(l.SandboxIP("route"), "default via 10.77.0.1 dev eth0")
	})
	l.Must(plugin.Check, l.call(""))
}

// TestPathLost is a path that comes to lead elsewhere, which does not prove that the
// container has ended: its lease is renewed wherever its sandbox is.
func TestPathLost(t *testing.T) {
	for what, replace := range map[string]func(*lan, string) error{
		"it leads nowhere":            func(*lan, string) error { return nil },
		"it leads to another sandbox": func(l *lan, path string) error { return os.Symlink(l.PathOf(l.NewSandbox()), path) },
	} {
		t.Run(what, func(t *testing.T) {
			l := newLAN(t)
			f := l.fake(dhcpv4.WithLeaseTime(4))
			d := l.daemon("-timeout", "500ms")
			c := l.call("")
			c.Netns = filepath.Join(l.Dir, "sandbox")
			if err := os.Symlink(l.Path, c.Netns); err != nil {
				t.Fatal(err)
			}
			l.addTo(l.Must(plugin.Add, c))
			if err := errors.Join(os.Remove(c.Netns), replace(l, c.Netns)); err != nil {
				t.Fatal(err)
			}
			l.eventually(10*time.Second, "lease renewed twice", func() bool { return f.renewals() > 1 })
			l.Must(plugin.Del, c)
			d.waitFor("ends: released", 0, time.Second)
			if strings.Contains(d.output(), errGone.Error()) {
				t.Error(d.output())
			}
		})
	}
}

// renewals is the number of requests for an address that the client has.
func (f *fake) renewals() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.seen {
		if m.MessageType() == dhcpv4.MessageTypeRequest && !m.ClientIPAddr.IsUnspecified() {
			n++
		}
	}
	return n
}

func TestAddressChanges(t *testing.T) {
	l := newLAN(t)
	f := l.fake(dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRenewTimeValue, seconds(1))), dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRebindingTimeValue, seconds(30))), dhcpv4.WithRouter(net.IP{10, 77, 0, 1}))
	d := l.daemon("-timeout", "300ms")
	l.addTo(l.Must(plugin.Add, l.call(`"priority":5`)))
	// The server takes it back and gives another.
	f.set(func() { f.typ = dhcpv4.MessageTypeNak })
	d.waitFor("address removed", 0, 4*time.Second)
	f.set(func() {
		f.typ = dhcpv4.MessageTypeAck
		f.mods = append(f.mods, dhcpv4.WithYourIP(net.IP{10, 77, 5, 6}), dhcpv4.WithRouter(net.IP{10, 77, 0, 2}))
	})
	l.eventually(5*time.Second, "another address", func() bool { return cmp.Equal(l.addresses(), []string{"10.77.5.6"}) })
	l.eventually(time.Second, "another route", func() bool { return strings.Contains(l.SandboxIP("route"), "default via 10.77.0.2") })
	// It extends the lease with yet another.
	f.set(func() { f.mods = append(f.mods, dhcpv4.WithYourIP(net.IP{10, 77, 5, 7})) })
	d.waitFor("address changes from 10.77.5.6/16 to 10.77.5.7/16", 0, 5*time.Second)
	l.eventually(time.Second, "a third address", func() bool { return cmp.Equal(l.addresses(), []string{"10.77.5.7"}) })
	if routes := l.SandboxIP("route"); !strings.Contains(routes, "default via 10.77.0.2 dev eth0 metric 5") {
		t.Errorf("routes:\n%s", routes)
	}
}

func TestMessages(t *testing.T) {
	l := newLAN(t)
	f := l.fake(dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IP{10, 9, 0, 0}, Mask: net.CIDRMask(16, 32)}, Router: net.IP{10, 77, 0, 9}},
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IP{10, 8, 0, 0}, Mask: net.CIDRMask(16, 32)}, Router: net.IPv4zero.To4()},
	)), dhcpv4.WithRouter(net.IP{10, 77, 0, 1}))
	l.daemon("-broadcast")
	c := l.call(`"request":[{"skipDefault":true},{"option":"1"},{"option":"121"}]`)
	res := l.Must(plugin.Add, c)
	discover, request := f.last(dhcpv4.MessageTypeDiscover), f.last(dhcpv4.MessageTypeRequest)
	for _, m := range []*dhcpv4.DHCPv4{discover, request} {
		if !m.IsBroadcast() {
			t.Errorf("no broadcast flag: %s", m.Summary())
		}
		if id := string(m.Options.Get(dhcpv4.OptionClientIdentifier)); id != "\x00c1/lan/eth0" {
			t.Errorf("client ID %q", id)
		}
		if diff := cmp.Diff([]byte{1, 121}, m.Options.Get(dhcpv4.OptionParameterRequestList)); diff != "" {
			t.Errorf("requested options (-want +got):\n%s", diff)
		}
	}
	var routes []string
	for _, r := range res.Routes {
		s := r.Dst.String() + " " + r.GW.String()
		if r.Scope != nil && *r.Scope == unix.RT_SCOPE_LINK {
			s += " link"
		}
		routes = append(routes, s)
	}
	if diff := cmp.Diff([]string{"10.9.0.0/16 10.77.0.9", "10.8.0.0/16 0.0.0.0 link"}, routes); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	l.Must(plugin.Del, c)
	l.eventually(time.Second, "RELEASE", func() bool { return f.last(dhcpv4.MessageTypeRelease).OpCode != 0 })
	release := f.last(dhcpv4.MessageTypeRelease)
	if release.ClientIPAddr.String() != "10.77.5.5" || release.ServerIdentifier().String() != "10.77.0.1" ||
		string(release.Options.Get(dhcpv4.OptionClientIdentifier)) != "\x00c1/lan/eth0" {
		t.Errorf("release: %s", release.Summary())
	}
}

func TestNoServer(t *testing.T) {
	l := newLAN(t)
	f := l.fake()
	f.set(func() { f.mute = true })
	l.daemon("-timeout", "100ms", "-resendtimeout", "700ms")
	start := time.Now()
	if msg := l.Fails(plugin.Add, l.call(""), cnierr.TryAgain); !strings.Contains(msg, "no more tries") {
		t.Error(msg)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("ADD took %s", took)
	}
	if n := len(f.messages()); n < 3 {
		t.Errorf("%d messages: %v", n, f.messages())
	}
	l.Fails(plugin.Check, l.call(""), cnierr.CheckFailed)
	if n := l.leaseFiles(); n != 0 {
		t.Errorf("%d lease files", n)
	}
}

// Several ADDs at a time for one attachment acquire once.
func TestAllocateOnce(t *testing.T) {
	l := newLAN(t)
	f := l.fake()
	f.set(func() { f.mute = true })
	l.daemon("-timeout", "1s")
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if a := l.Do(plugin.Add, l.call("")); a.Exit != 0 {
				t.Error(a.Stdout)
			}
		}()
	}
	l.eventually(2*time.Second, "first DISCOVER", func() bool { return len(f.messages()) > 0 })
	f.set(func() { f.mute = false })
	wg.Wait()
	requests := 0
	for _, m := range f.messages() {
		if m == "REQUEST" {
			requests++
		}
	}
	if requests != 1 {
		t.Errorf("%d requests: %v", requests, f.messages())
	}
}

// An ADD whose plugin is killed leaves no lease that nobody asked for.
func TestPluginKilled(t *testing.T) {
	l := newLAN(t)
	f := l.fake()
	f.set(func() { f.mute = true })
	d := l.daemon("-timeout", "100ms", "-resendmax", "100ms")
	client, err := rpc.DialHTTP("unix", l.socket)
	if err != nil {
		t.Fatal(err)
	}
	args := dhcp.CmdArgs{ContainerID: "c1", Netns: l.Path, IfName: "eth0", StdinData: []byte(l.call("").Conf)}
	client.Go("DHCP.Allocate", args, &current.Result{}, nil)
	l.eventually(2*time.Second, "DISCOVER", func() bool { return len(f.messages()) > 0 })
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	d.waitFor("no lease: nobody waits for it", 0, time.Second)
	f.set(func() { f.mute = false })
	l.Must(plugin.Add, l.call(""))
}

// A lease that cannot be remembered is not handed out.
func TestNoLeaseFile(t *testing.T) {
	l := newLAN(t)
	f := l.fake()
	l.daemon()
	inTheWay := dhcp.LeasesOf(l.socket).Path(dhcp.Key{Network: "lan", ContainerID: "c1", IfName: "eth0"})
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if msg := l.Fails(plugin.Add, l.call(""), cnierr.Internal); !strings.Contains(msg, "lease file") {
		t.Error(msg)
	}
	l.eventually(time.Second, "RELEASE", func() bool { return f.last(dhcpv4.MessageTypeRelease).OpCode != 0 })
	l.Fails(plugin.Check, l.call(""), cnierr.CheckFailed)
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	l.Must(plugin.Add, l.call(""))
}

// A server may send anything: the client goes by what makes sense.
func TestNonsense(t *testing.T) {
	l := newLAN(t)
	f := l.fake()
	at := 0
	nonsense := func(r *dhcpv4.DHCPv4) []byte {
		at++
		if at > 12 {
			return r.ToBytes()
		}
		switch at % 6 {
		case 0:
			return []byte("rubbish")
		case 1:
			r.YourIPAddr = net.IPv4zero
		case 2:
			r.YourIPAddr = net.IP{224, 0, 0, 1}
		case 3:
			r.Options.Del(dhcpv4.OptionServerIdentifier)
		case 4:
			r.TransactionID = dhcpv4.TransactionID{1, 2, 3, 4}
		case 5:
			r.ClientHWAddr = net.HardwareAddr{2, 0, 0, 0, 0, 9}
		}
		return r.ToBytes()
	}
	f.set(func() { f.raw = nonsense })
	l.daemon("-timeout", "100ms", "-resendmax", "100ms")
	if got := l.Must(plugin.Add, l.call("")).IPs[0].Address.String(); got != "10.77.5.5/16" {
		t.Errorf("got %s", got)
	}
}

// A lease without a mask is no use; it is given back.
func TestNoMask(t *testing.T) {
	l := newLAN(t)
	f := l.fake(dhcpv4.WithoutOption(dhcpv4.OptionSubnetMask))
	l.daemon()
	if msg := l.Fails(plugin.Add, l.call(""), cnierr.Internal); !strings.Contains(msg, "DHCP option Subnet Mask not found in DHCPACK") {
		t.Error(msg)
	}
	l.eventually(time.Second, "RELEASE", func() bool { return f.last(dhcpv4.MessageTypeRelease).OpCode != 0 })
}
