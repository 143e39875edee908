package dhcpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/netcleat/netcleat/cmd/netcleat/socket"
)

// errRefused says that the server took the lease back (DHCPNAK).
var errRefused = errors.New("server refused the lease")

// exchange is a conversation with servers over one link.
type exchange struct {
	*wire
	rec       *record
	broadcast bool // ask for answers by broadcast
	started   time.Time
	wait, max time.Duration
}

// open starts a conversation. The caller closes it.
func (l *lease) open(s *sandbox) (*exchange, error) {
	xid, err := dhcpv4.GenerateTransactionID()
	if err != nil {
		return nil, err
	}
	w, err := openWire(s, xid)
	if err != nil {
		return nil, err
	}
	l.rec.MAC = s.link.MAC.String() // another plugin may have set it since
	return &exchange{
		wire: w, rec: &l.rec, started: time.Now(), wait: l.d.timeout, max: l.d.resendMax,
		// The kernel gives an ipvlan link the unicast messages to its addresses, and
		// it has none yet.
		broadcast: l.d.broadcast || s.link.Kind == "ipvlan",
	}, nil
}

// message builds a message with what all have: the client's identity, by which
// the server knows it in every state.
func (x *exchange) message(typ dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	// New fails only where crypto/rand does, which ends the program by itself.
	m, _ := dhcpv4.New(dhcpv4.WithHwAddr(x.mac), dhcpv4.WithMessageType(typ), dhcpv4.WithTransactionID(x.xid))
	m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, x.rec.clientID()))
	return m
}

// clientID is the reference's: type 0, then the attachment, cut to fit; a
// provided option 61 takes its place.
func (r *record) clientID() []byte {
	for _, o := range slices.Backward(r.Provide) {
		if o.Code == dhcpv4.OptionClientIdentifier.Code() {
			return o.Value
		}
	}
	id := r.ContainerID + "/" + r.Network + "/" + r.IfName
	return append([]byte{0}, id[:min(len(id), 254)]...)
}

// request builds a DISCOVER or REQUEST with the configured options.
func (x *exchange) request(typ dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	m := x.message(typ)
	for _, o := range x.rec.Provide {
		if o.Code != 0 && o.Code != 53 && o.Code != 54 && o.Code != 255 { // the protocol's own
			m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(o.Code), o.Value))
		}
	}
	if len(x.rec.Request) > 0 {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionParameterRequestList, x.rec.Request))
	}
	m.NumSeconds = uint16(min(time.Since(x.started)/time.Second, 0xffff))
	return m
}

// early is how long after each other the first messages for a lease are sent,
// before the usual schedule begins. The link has come up a moment ago: the kernel
// sends nothing out of a bridge's port before it has noticed, and the first
// answer is lost more often than not.
func early() []time.Duration {
	return []time.Duration{50 * time.Millisecond, 150 * time.Millisecond, 800 * time.Millisecond}
}

// requestTries is how often a REQUEST is sent for one offer before the search
// starts over.
const requestTries = 5

// acquire gets a new lease, preferably for the address wanted, until ctx ends.
func (x *exchange) acquire(ctx context.Context, wanted netip.Addr) (*binding, error) {
	for ctx.Err() == nil {
		offer, err := x.discover(ctx, wanted)
		if err != nil {
			return nil, err
		}
		b, err := x.take(ctx, offer)
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, errRefused) && !errors.Is(err, errNoAnswer) {
			return nil, err
		}
		if err := socket.Pause(ctx, min(time.Second, x.wait)); err != nil { // a server that refuses what it offers
			return nil, err
		}
	}
	return nil, context.Cause(ctx)
}

func (x *exchange) discover(ctx context.Context, wanted netip.Addr) (answer, error) {
	m := x.request(dhcpv4.MessageTypeDiscover)
	if x.broadcast {
		m.SetBroadcast()
	}
	if wanted.IsValid() {
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(wanted.AsSlice()))
	}
	return x.ask(ctx, query{msg: m, to: everyone, early: early(), wait: x.wait, max: x.max, want: func(a answer) bool {
		return a.MessageType() == dhcpv4.MessageTypeOffer && sound(a)
	}})
}

// sound reports whether an answer names an address and the server it is from.
func sound(a answer) bool {
	ip, ok := addr(a.YourIPAddr)
	server, from := addr(a.ServerIdentifier())
	return ok && from && usable(ip) && usable(server)
}

func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != broadcastIP
}

func addr(ip net.IP) (netip.Addr, bool) { return netip.AddrFromSlice(ip.To4()) }

// take asks for what was offered.
func (x *exchange) take(ctx context.Context, offer answer) (*binding, error) {
	m := x.request(dhcpv4.MessageTypeRequest)
	if x.broadcast {
		m.SetBroadcast()
	}
	m.UpdateOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))
	m.UpdateOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
	server, _ := addr(offer.ServerIdentifier())
	return x.confirm(ctx, query{msg: m, to: everyone, early: early(), wait: x.wait, max: x.max, tries: requestTries}, server)
}

// renew asks the server to extend the lease; where unicast to it fails it may
// have another hardware address by now, which rebinding finds.
func (x *exchange) renew(ctx context.Context, b *binding) (*binding, error) {
	m := x.extension(b)
	return x.confirm(ctx, query{msg: m, src: b.Address.Addr(), to: b.server(), wait: x.wait, max: x.max, tries: 1}, b.Server)
}

// rebind asks any server to extend the lease.
func (x *exchange) rebind(ctx context.Context, b *binding) (*binding, error) {
	m := x.extension(b)
	if x.broadcast {
		m.SetBroadcast()
	}
	return x.confirm(ctx, query{msg: m, src: b.Address.Addr(), to: everyone, wait: x.wait, max: x.max, tries: 1}, netip.Addr{})
}

// extension is a REQUEST for the address that the client has: without options 50
// and 54, as RFC 2131 (4.3.2) wants it.
func (x *exchange) extension(b *binding) *dhcpv4.DHCPv4 {
	m := x.request(dhcpv4.MessageTypeRequest)
	m.DeleteOption(dhcpv4.OptionRequestedIPAddress)
	m.ClientIPAddr = b.Address.Addr().AsSlice()
	return m
}

func (b *binding) server() peer {
	mac, err := net.ParseMAC(b.ServerMAC)
	if err != nil {
		mac = broadcastMAC
	}
	return peer{ip: b.Server, mac: mac}
}

// confirm waits for ACK or NAK, from one server where that is valid.
func (x *exchange) confirm(ctx context.Context, q query, server netip.Addr) (*binding, error) {
	q.want = func(a answer) bool {
		from, _ := addr(a.ServerIdentifier())
		ours := !server.IsValid() || from == server
		return ours && (a.MessageType() == dhcpv4.MessageTypeNak || a.MessageType() == dhcpv4.MessageTypeAck && sound(a))
	}
	asked := now() // RFC 2131 (4.4.1): a lease's time runs from the request
	a, err := x.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	if a.MessageType() == dhcpv4.MessageTypeNak {
		return nil, fmt.Errorf("%w: %s", errRefused, a.Message())
	}
	b, err := bind(a, x.rec.Request, asked)
	if err != nil {
		ip, _ := addr(a.YourIPAddr)
		from, _ := addr(a.ServerIdentifier())
		unusable := &binding{Address: netip.PrefixFrom(ip, 32), Server: from, ServerMAC: a.from.String()}
		return nil, errors.Join(err, x.release(unusable))
	}
	return b, nil
}

// release tells the server that the address is free. There is no answer, and the
// server's hardware address may have changed since its last (a bridge's does with
// its ports), so a server on the link is told by broadcast, too. It takes no
// harm: to the second message it knows no lease.
func (x *exchange) release(b *binding) error {
	m := x.releaseMessage(b)
	err := x.send(m, b.Address.Addr(), b.server())
	if b.Address.Contains(b.Server) {
		err = errors.Join(err, x.send(m, b.Address.Addr(), peer{ip: b.Server, mac: broadcastMAC}))
	}
	return err
}

func (x *exchange) releaseMessage(b *binding) *dhcpv4.DHCPv4 {
	m := x.message(dhcpv4.MessageTypeRelease)
	m.ClientIPAddr = b.Address.Addr().AsSlice()
	m.UpdateOption(dhcpv4.OptServerIdentifier(b.Server.AsSlice()))
	return m
}

// releaseFromHost releases a lease whose link is gone: servers go by what the
// message says, not by where it is from. It needs a way from the host to the
// server.
func releaseFromHost(ctx context.Context, r *record) (err error) {
	mac, err := net.ParseMAC(r.MAC)
	if err != nil {
		return fmt.Errorf("hardware address %q: %w", r.MAC, err)
	}
	xid, err := dhcpv4.GenerateTransactionID()
	if err != nil {
		return err
	}
	x := &exchange{wire: &wire{mac: mac, xid: xid}, rec: r}
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "udp4", netip.AddrPortFrom(r.Binding.Server, serverPort).String())
	if err != nil {
		return err
	}
	_, err = conn.Write(x.releaseMessage(r.Binding).ToBytes())
	return errors.Join(err, conn.Close())
}

const (
	defaultLease = time.Hour
	minLease     = 3 * time.Second // below it a client would do nothing but renew
)

// bind turns an ACK into a binding.
func bind(a answer, requested []byte, asked time.Duration) (*binding, error) {
	ip, _ := addr(a.YourIPAddr)
	server, _ := addr(a.ServerIdentifier())
	bits, width := a.SubnetMask().Size()
	if width != 32 || bits == 0 {
		return nil, errors.New("DHCP option Subnet Mask not found in DHCPACK")
	}
	b := &binding{Address: netip.PrefixFrom(ip, bits), Server: server, ServerMAC: a.from.String()}
	for _, r := range a.Router() {
		if gw, ok := addr(r); ok && usable(gw) {
			b.Gateway = gw
			break
		}
	}
	b.Routes = routes(a, b.Gateway)
	b.DNS = dns(a, requested)
	b.times(a, asked)
	return b, nil
}

// times sets when to renew, to rebind and to stop; times that contradict each
// other are replaced by the usual shares of the lease.
func (b *binding) times(a answer, asked time.Duration) {
	lease := max(a.IPAddressLeaseTime(defaultLease), minLease)
	t1, t2 := a.IPAddressRenewalTime(lease/2), a.IPAddressRebindingTime(lease/8*7)
	if t1 < time.Second || t1 >= t2 || t2 >= lease {
		t1, t2 = lease/2, lease/8*7
	}
	b.Renew, b.Rebind, b.Expire = asked+t1, asked+t2, asked+lease
	b.Until = time.Now().Add(lease - (now() - asked)).UTC().Truncate(time.Second)
}

// routes are those of option 121, or else those of option 33 and the default
// route (RFC 3442).
func routes(a answer, gateway netip.Addr) (all []route) {
	if classless := a.ClasslessStaticRoute(); len(classless) > 0 {
		for _, r := range classless {
			dst, _ := addr(r.Dest.IP)
			bits, _ := r.Dest.Mask.Size()
			if gw, ok := addr(r.Router); ok && dst.IsValid() {
				if gw.IsUnspecified() {
					gw = netip.Addr{}
				}
				all = append(all, route{netip.PrefixFrom(dst, bits).Masked(), gw})
			}
		}
		return all
	}
	for opt := a.Options.Get(dhcpv4.OptionStaticRoutingTable); len(opt) >= 8; opt = opt[8:] {
		dst, gw := netip.AddrFrom4([4]byte(opt)), netip.AddrFrom4([4]byte(opt[4:]))
		if !usable(gw) || dst.IsMulticast() {
			continue
		}
		bits, _ := net.IP(opt[:4]).DefaultMask().Size()
		all = append(all, route{netip.PrefixFrom(dst, bits).Masked(), gw})
	}
	if gateway.IsValid() {
		all = append(all, route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway})
	}
	return all
}

// dns returns what the server says of DNS, as far as the configuration asks for
// it: the reference never returns any, and callers use what is there.
func dns(a answer, requested []byte) (d types.DNS) {
	asked := func(c dhcpv4.OptionCode) bool { return slices.Contains(requested, c.Code()) }
	if asked(dhcpv4.OptionDomainNameServer) {
		for _, ip := range a.DNS() {
			d.Nameservers = append(d.Nameservers, ip.String())
		}
	}
	if asked(dhcpv4.OptionDomainName) {
		d.Domain = a.DomainName()
	}
	if labels := a.DomainSearch(); labels != nil && asked(dhcpv4.OptionDNSDomainSearchList) {
		d.Search = labels.Labels
	}
	return d
}
