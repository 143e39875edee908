package clusterd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/socket"
	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// answerTime bounds how long a plugin waits for a block.
const answerTime = 12 * time.Second

func (r *runner) answer(conn net.Conn) {
	defer func() { _ = conn.Close() }() // there is no one to tell
	if err := socket.Authorised(conn); err != nil {
		r.d.log.Printf("connection refused: %v", err)
		return
	}
	if err := conn.SetDeadline(time.Now().Add(answerTime + 5*time.Second)); err != nil {
		return
	}
	line, err := bufio.NewReader(io.LimitReader(conn, clusterlocal.MaxRequest)).ReadBytes('\n')
	if err != nil {
		return // STATUS only connects
	}
	var a clusterlocal.Answer
	if err := r.handle(line); err != nil {
		a.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(a) // as above
}

// handle is one request of a plugin.
func (r *runner) handle(line []byte) error {
	var q clusterlocal.Request
	if err := json.Unmarshal(line, &q); err != nil {
		return err
	}
	pool, err := clusterlocal.ReadPool(q.Config)
	if err != nil {
		return err
	}
	if !isNetwork(pool.Name) {
		return fmt.Errorf("network %.80q: not a name", pool.Name)
	}
	req := &request{any: q.Want == "" && !q.Uplink, uplink: q.Uplink}
	if q.Want != "" {
		p, err := wanted(pool, q.Want)
		if err != nil {
			return err
		}
		req.want = []slot.Part{p}
	}
	if err := r.files.register(pool.Name, q.Config); err != nil {
		return err
	}
	answered := make(chan error, 1)
	req.done = func(err error) { answered <- err }
	r.post(func() {
		if err := r.d.use(pool); err != nil {
			answered <- err
			return
		}
		r.d.ask(pool.Name, req)
	})
	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	select {
	case err := <-answered:
		return err
	case <-r.life.Done():
		return errors.New("the daemon is ending")
	case <-timer.C:
	}
	r.post(func() {
		err := r.d.shortage(pool.Name, req)
		r.d.forget(pool.Name, req)
		select {
		case answered <- err:
		default: // it was answered after all
		}
	})
	return <-answered
}

func wanted(pool *clusterlocal.Pool, text string) (slot.Part, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return slot.Part{}, err
	}
	p, ok := pool.Find(a)
	if !ok {
		return p, fmt.Errorf("address %s: in no block of the network", a)
	}
	return p, nil
}
