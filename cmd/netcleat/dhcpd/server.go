package dhcpd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/cmd/netcleat/socket"
	"github.com/netcleat/netcleat/pkg/netns"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
)

// handshake bounds how long a connection may take to say what it wants.
const handshake = 10 * time.Second

// answer serves one connection: RPC for those who may.
func (d *daemon) answer(conn net.Conn) {
	ctx, cancel := context.WithCancelCause(d.life)
	defer cancel(nil)
	if err := greet(conn); err != nil {
		if !errors.Is(err, io.EOF) { // STATUS only connects
			d.log.Printf("connection refused: %v", err)
		}
		_ = conn.Close() // there is nobody to tell
		return
	}
	srv := rpc.NewServer()
	// The names and types fit: the tests call each method.
	_ = srv.RegisterName("DHCP", &service{d: d, ctx: ctx})
	srv.ServeConn(&watched{Conn: conn, hungUp: cancel})
}

// greet looks at who is there and answers the HTTP CONNECT that net/rpc's
// clients begin with.
func greet(conn net.Conn) error {
	// Whoever may ask has the daemon enter any namespace and use any address.
	if err := socket.Authorised(conn); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(handshake)); err != nil {
		return err
	}
	// The client says no more until it is answered, so nothing is left in the
	// reader's buffer.
	req, err := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, 4096)))
	if err != nil {
		return err
	}
	if req.Method != http.MethodConnect {
		_, err := io.WriteString(conn, "HTTP/1.0 405 Method Not Allowed\r\n\r\n405 must CONNECT\n")
		return errors.Join(fmt.Errorf("method %q", req.Method), err)
	}
	if _, err := io.WriteString(conn, "HTTP/1.0 200 Connected to Go RPC\n\n"); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// errHungUp says that the plugin is gone, and with it whoever wanted the lease.
var errHungUp = errors.New("the plugin has hung up")

// watched is a connection that tells when the other end is gone.
type watched struct {
	net.Conn
	hungUp context.CancelCauseFunc
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil {
		w.hungUp(errHungUp)
	}
	return n, err
}

// service is the daemon as one connection sees it.
type service struct {
	d   *daemon
	ctx context.Context // ends when the connection does
}

// Allocate is ADD, and the CHECK of the reference's plugin.
func (s *service) Allocate(args *dhcp.CmdArgs, res *current.Result) error {
	r, err := s.d.request(args)
	if err != nil {
		return err
	}
	var b *binding
	if attached(args) {
		b, err = s.d.check(r)
	} else {
		b, err = s.d.allocate(s.ctx, r)
	}
	if err != nil {
		return err
	}
	*res = *b.result(r.Priority)
	return nil
}

// Check is CHECK: it answers with the lease that is there.
func (s *service) Check(args *dhcp.CmdArgs, res *current.Result) error {
	r, err := s.d.request(args)
	if err != nil {
		return err
	}
	b, err := s.d.check(r)
	if err != nil {
		return err
	}
	*res = *b.result(r.Priority)
	return nil
}

// Release is DEL.
func (s *service) Release(args *dhcp.CmdArgs, _ *struct{}) error {
	n, err := dhcp.ParseNetwork(args.StdinData)
	if n.Name == "" {
		return errors.Join(errors.New("missing network name"), err)
	}
	return s.d.release(s.ctx, dhcp.Key{Network: n.Name, ContainerID: args.ContainerID, IfName: args.IfName})
}

// request turns a call into the record that its lease would have.
func (d *daemon) request(args *dhcp.CmdArgs) (record, error) {
	n, err := dhcp.ParseNetwork(args.StdinData)
	if err != nil {
		return record{}, err
	}
	conf := dhcp.Config{}
	if n.IPAM != nil {
		conf = *n.IPAM
	}
	r := record{
		Key:   dhcp.Key{Network: n.Name, ContainerID: args.ContainerID, IfName: args.IfName},
		Netns: args.Netns, Priority: conf.Priority,
	}
	if r.Provide, r.Request, err = conf.Options(args.Args); err != nil {
		return record{}, err
	}
	open := func() (*netns.NS, error) { return d.at(r.Netns) }
	err = d.inSandbox(open, func(s *sandbox) error {
		link, err := s.conn.LinkByName(r.IfName)
		if err != nil {
			return fmt.Errorf("error looking up %q: %w", r.IfName, err)
		}
		r.NetnsID, r.Index, r.MAC = s.ns.ID, link.Index, link.MAC.String()
		return nil
	})
	return r, err
}

// attached reports whether the call is about an interface that exists already
// according to prevResult, which only CHECK's can be: the reference's plugin
// asks to allocate then, too.
func attached(args *dhcp.CmdArgs) bool {
	var conf struct {
		PrevResult struct {
			Interfaces []struct {
				Name    string `json:"name"`
				Sandbox string `json:"sandbox"`
			} `json:"interfaces"`
		} `json:"prevResult"`
	}
	if json.Unmarshal(args.StdinData, &conf) != nil {
		return false
	}
	for _, i := range conf.PrevResult.Interfaces {
		if i.Name == args.IfName && i.Sandbox != "" {
			return true
		}
	}
	return false
}
