package clusterd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/netcleat/netcleat/cmd/netcleat/socket"
)

// requestTime is after which the outcome of a request counts as unknown.
const requestTime = 3 * time.Second

// etcd is the store. Requests run on their own; answers are posted to the loop.
type etcd struct {
	client *clientv3.Client
	prefix string
	tls    *tls.Config // of the client
	life   context.Context
	post   func(func())
	again  chan struct{} // to end the watch
	wanted chan struct{} // that there is a lease
}

func (e *etcd) rewatch() {
	select {
	case e.again <- struct{}{}:
	default: // it is about to end
	}
}

func (e *etcd) txn(t txn, done func(answer)) {
	go func() {
		a := e.do(t)
		e.post(func() { done(a) })
	}()
}

func (e *etcd) do(t txn) (a answer) {
	ctx, cancel := context.WithTimeout(e.life, requestTime)
	defer cancel()
	var conditions []clientv3.Cmp
	var reads []clientv3.Op
	for _, c := range append([]compare{t.compare}, t.guards...) {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(e.prefix+c.key), "=", c.rev))
		reads = append(reads, clientv3.OpGet(e.prefix+c.key))
		a.now = append(a.now, kv{key: c.key})
	}
	change := clientv3.OpPut(e.prefix+t.key, t.value, clientv3.WithLease(clientv3.LeaseID(t.lease)))
	if t.value == "" {
		change = clientv3.OpDelete(e.prefix + t.key)
	}
	r, err := e.client.Txn(ctx).If(conditions...).Then(change).Else(reads...).Commit()
	if err != nil {
		return answer{err: e.reason(err)}
	}
	a.ok, a.rev = r.Succeeded, r.Header.Revision
	if a.ok {
		a.now = nil
		return a
	}
	if len(r.Responses) != len(a.now) {
		return answer{err: errors.New("etcd: an answer of another form")}
	}
	for i, one := range r.Responses {
		for _, k := range one.GetResponseRange().GetKvs() {
			a.now[i].value, a.now[i].rev = string(k.Value), k.ModRevision
		}
	}
	return a
}

func (e *etcd) list(done func(listing)) {
	go func() {
		l := e.read()
		e.post(func() { done(l) })
	}()
}

// pageSize is how many keys are read at a time.
const pageSize = 2000

// read reads all keys as of one revision, in pages: an answer of etcd is bounded.
func (e *etcd) read() (l listing) {
	from, end := e.prefix, clientv3.GetPrefixRangeEnd(e.prefix)
	for {
		ctx, cancel := context.WithTimeout(e.life, requestTime)
		ops := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize)}
		if l.rev != 0 {
			ops = append(ops, clientv3.WithRev(l.rev))
		}
		r, err := e.client.Get(ctx, from, ops...)
		cancel()
		if err != nil {
			return listing{err: e.reason(err)}
		}
		if l.rev == 0 {
			l.rev, l.cluster = r.Header.Revision, r.Header.ClusterId
		}
		for _, k := range r.Kvs {
			l.keys = append(l.keys, kv{strings.TrimPrefix(string(k.Key), e.prefix), string(k.Value), k.ModRevision})
		}
		if !r.More || len(r.Kvs) == 0 {
			return l
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// start does what lasts until the daemon ends.
func (e *etcd) start(d *daemon) {
	go e.watch(d)
	go e.keepLease(d)
}

// watch tells the daemon of every change, until the daemon ends. Where changes were
// missed, because etcd was compacted or could not be reached, it reads everything.
func (e *etcd) watch(d *daemon) {
	for e.life.Err() == nil {
		at := make(chan int64, 1)
		e.post(func() {
			d.list(func(l listing) {
				if l.err == nil {
					d.relist(l)
				}
				at <- l.rev
			})
		})
		select {
		case rev := <-at:
			if rev > 0 {
				e.follow(d, rev+1)
			}
		case <-e.life.Done():
		}
		if socket.Pause(e.life, time.Second) != nil {
			return
		}
	}
}

func (e *etcd) follow(d *daemon, from int64) {
	// Cancelled where the member that is asked has lost the others.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(e.life))
	defer cancel()
	changes := e.client.Watch(ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithRev(from))
	for {
		var r clientv3.WatchResponse
		open := true
		select {
		case r, open = <-changes:
		case <-e.again:
			return
		}
		if !open || r.Err() != nil {
			return
		}
		all := make([]change, 0, len(r.Events))
		for _, ev := range r.Events {
			k := kv{strings.TrimPrefix(string(ev.Kv.Key), e.prefix), string(ev.Kv.Value), ev.Kv.ModRevision}
			at := k.rev
			if ev.Type == clientv3.EventTypeDelete {
				k.value, k.rev = "", 0
			}
			all = append(all, change{k, at})
		}
		e.post(func() { d.changed(all...) })
	}
}

// reason says why there was no answer in time: the client does not tell of errors of
// connections.
func (e *etcd) reason(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
		return fmt.Errorf("etcd: %w", err)
	}
	for _, endpoint := range e.client.Endpoints() {
		if cerr := e.connect(endpoint); cerr != nil {
			return fmt.Errorf("etcd %s: %w", endpoint, cerr)
		}
	}
	return errors.New("etcd: no answer in time: has it lost its majority?")
}

// connectTime bounds how long a connection is tried.
const connectTime = time.Second

// connect tries a connection. The member speaks first; with TLS 1.3 that is when it
// refuses a certificate.
func (e *etcd) connect(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{Timeout: connectTime}).DialContext(e.life, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // was only tried
	if u.Scheme != "https" {
		return nil
	}
	c := e.tls.Clone()
	c.ServerName = u.Hostname()
	c.NextProtos = []string{"h2"}
	secure := tls.Client(conn, c)
	if err := secure.SetDeadline(time.Now().Add(connectTime)); err != nil {
		return err
	}
	if _, err := secure.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// store is the store below the prefix.
func (s *Settings) store(ctx context.Context, client *clientv3.Client, post func(func())) *etcd {
	conf, _ := s.tls() // dial has read it
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &etcd{client: client, prefix: s.Prefix, tls: conf, life: ctx, post: post, again: make(chan struct{}, 1), wanted: make(chan struct{}, 1)}
}

// dial connects to etcd. It does not wait for an answer.
func dial(ctx context.Context, s *Settings) (*clientv3.Client, error) {
	conf := clientv3.Config{
		Context: ctx, Endpoints: s.Endpoints, Username: s.Username,
		DialTimeout: 5 * time.Second, DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		Logger: quiet(),
	}
	var err error
	if conf.Password, err = s.password(); err != nil {
		return nil, err
	}
	if conf.TLS, err = s.tls(); err != nil {
		return nil, err
	}
	c, err := clientv3.New(conf)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return c, nil
}
