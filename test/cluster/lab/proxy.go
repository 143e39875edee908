package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Proxy stands between daemons and etcd: it delays, drops, repeats and reorders
// single requests, and loses answers.
type Proxy struct {
	etcdserverpb.UnimplementedKVServer
	etcdserverpb.UnimplementedWatchServer
	kv    etcdserverpb.KVClient
	watch etcdserverpb.WatchClient
	up    *grpc.ClientConn
	down  *grpc.Server

	Calm atomic.Bool  // requests pass
	Late atomic.Int64 // those that were sent on after their sender had given up
}

// asEtcd is how often clients may ask whether a connection is there: as of etcd.
var asEtcd = keepalive.EnforcementPolicy{MinTime: 5 * time.Second}

// NewProxy makes a proxy of the member at an address.
func NewProxy(member string) (*Proxy, error) {
	conn, err := grpc.NewClient(member, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	p := &Proxy{kv: etcdserverpb.NewKVClient(conn), watch: etcdserverpb.NewWatchClient(conn), up: conn, down: grpc.NewServer(grpc.KeepaliveEnforcementPolicy(asEtcd))}
	etcdserverpb.RegisterKVServer(p.down, p)
	etcdserverpb.RegisterWatchServer(p.down, p)
	return p, nil
}

// Serve serves until Stop.
func (p *Proxy) Serve(l net.Listener) error { return p.down.Serve(l) }

// Stop ends the proxy.
func (p *Proxy) Stop() {
	p.down.Stop()
	_ = p.up.Close() // nothing is sent any more
}

// forward carries a request: at once, later, twice or never. The caller's patience
// does not end it.
func forward[Q, A any](ctx context.Context, p *Proxy, q Q, send func(context.Context, Q, ...grpc.CallOption) (A, error)) (A, error) {
	type outcome struct {
		a   A
		err error
	}
	got := make(chan outcome, 3)
	once := func(delay time.Duration) {
		time.AfterFunc(delay, func() {
			if ctx.Err() != nil {
				p.Late.Add(1)
			}
			own, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			a, err := send(own, q)
			got <- outcome{a, err}
		})
	}
	lost := false
	if p.Calm.Load() {
		once(0)
	} else {
		switch n := rand.IntN(12); {
		case n < 5:
			once(0)
		case n < 9:
			once(time.Duration(rand.IntN(5000)) * time.Millisecond)
		case n == 9:
			once(0)
			once(time.Duration(rand.IntN(5000)) * time.Millisecond)
		case n == 10:
			lost = true
			once(time.Duration(rand.IntN(1000)) * time.Millisecond)
		}
	}
	var none A
	if lost {
		<-ctx.Done()
		return none, status.FromContextError(ctx.Err()).Err()
	}
	select {
	case o := <-got:
		return o.a, o.err
	case <-ctx.Done():
		return none, status.FromContextError(ctx.Err()).Err()
	}
}

// Txn carries a change.
func (p *Proxy) Txn(ctx context.Context, q *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	return forward(ctx, p, q, p.kv.Txn)
}

// Range carries a read.
func (p *Proxy) Range(ctx context.Context, q *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	return forward(ctx, p, q, p.kv.Range)
}

// Watch carries a watch, as it is.
func (p *Proxy) Watch(down etcdserverpb.Watch_WatchServer) error {
	ctx, cancel := context.WithCancel(down.Context())
	defer cancel()
	up, err := p.watch.Watch(ctx)
	if err != nil {
		return err
	}
	go func() {
		defer cancel()
		for {
			q, err := down.Recv()
			if err != nil || up.Send(q) != nil {
				return
			}
		}
	}()
	for {
		r, err := up.Recv()
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		if err := down.Send(r); err != nil {
			return err
		}
	}
}

// Proxies runs proxies until in ends, each given as ADDRESS=MEMBER. The line "calm" has
// all requests pass. In the end it prints how many were late.
func Proxies(in io.Reader, out io.Writer, all []string) error {
	var proxies []*Proxy
	for _, one := range all {
		address, member, _ := strings.Cut(one, "=")
		p, err := NewProxy(member)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() { _ = p.Serve(l) }() // until the process ends
		proxies = append(proxies, p)
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		for _, p := range proxies {
			p.Calm.Store(true)
		}
	}
	var late int64
	for _, p := range proxies {
		late += p.Late.Load()
	}
	_, err := fmt.Fprintln(out, late)
	return err
}
