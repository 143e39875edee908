package clusterd

import (
	"context"
	"errors"
	"log"
	"os"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/netcleat/netcleat/cmd/netcleat/names"
	"github.com/netcleat/netcleat/cmd/netcleat/socket"
	"github.com/netcleat/netcleat/pkg/journal"
)

// registry is the namer of a host: the records of dnsname, and files that the dns daemon
// reads.
type registry struct {
	records *names.Records
	line    *names.Line
	wanted  chan<- struct{}
}

func openRegistry(dir journal.Dir, wanted chan<- struct{}) (*registry, error) {
	records, err := names.Open(dir)
	return &registry{records, &names.Line{Dir: dir}, wanted}, err
}

func (r *registry) all(network string) (map[string]names.Local, error) { return r.records.All(network) }

func (r *registry) one(network, id string) (names.Local, bool) { return r.records.One(network, id) }

func (r *registry) hosts(network string) []string { return names.Hosts(r.line.Dir, network) }

func (r *registry) write(network, host string, all []names.Attachment) error {
	changed, err := names.Write(r.line.Dir, network, host, all)
	if changed && err == nil {
		r.line.Tell(network, host)
	}
	return err
}

func (r *registry) wantLease() {
	select {
	case r.wanted <- struct{}{}:
	default: // it is wanted already
	}
}

// lookAgain is how often the records are read while no dns daemon tells of changes.
const lookAgain = time.Second

// follow tells the daemon of changes of this host's names.
func (r *registry) follow(run *runner, logger *log.Logger) {
	said := ""
	for socket.Pause(run.life, lookAgain) == nil {
		if !run.named() {
			continue // where systemd has its socket, connecting starts a dns daemon
		}
		err := r.line.Follow(run.life, func() { run.post(run.d.namesUnknown) }, func(network, id string) {
			run.post(func() { run.d.nameChanged(network, id) })
		})
		if err != nil && err.Error() != said && !notRunning(err) {
			said = err.Error()
			logger.Print(err)
		}
	}
}

// named has all records read, and reports whether this host has names.
func (r *runner) named() bool {
	answer := make(chan bool, 1)
	r.post(func() {
		r.d.namesUnknown()
		answer <- r.d.named()
	})
	select {
	case is := <-answer:
		return is
	case <-r.life.Done():
		return false
	}
}

// notRunning reports whether there was no dns daemon, or it ended.
func notRunning(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// leaseTime is after how many seconds the names of a host end that etcd does not hear of.
const leaseTime = 20

// keepLease has a lease for this host's names from when it is wanted until the daemon
// ends, which does not revoke it: the next daemon writes the names again in time.
func (e *etcd) keepLease(d *daemon) {
	for e.life.Err() == nil {
		select {
		case <-e.wanted:
		case <-e.life.Done():
			return
		}
		if id, err := e.grant(); err == nil {
			if alive, err := e.client.KeepAlive(e.life, id); err == nil {
				e.post(func() { d.leased(int64(id)) })
				for range alive { // it ends with the lease
					continue
				}
			}
		}
		if socket.Pause(e.life, time.Second) != nil {
			return
		}
		e.post(func() { d.leased(0) }) // which wants another one
	}
}

func (e *etcd) grant() (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(e.life, requestTime)
	defer cancel()
	r, err := e.client.Grant(ctx, leaseTime)
	if err != nil {
		return 0, err
	}
	return r.ID, nil
}
