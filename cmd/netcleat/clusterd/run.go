package clusterd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/socket"
	"github.com/netcleat/netcleat/pkg/journal"
)

// runner runs the core: its loop, its store, its socket.
type runner struct {
	d     *daemon
	files *files
	life  context.Context
	calls chan func()
}

// post has fn called in the loop.
func (r *runner) post(fn func()) {
	select {
	case r.calls <- fn:
	case <-r.life.Done():
	}
}

// Run is the daemon, until ctx ends or SIGTERM or SIGINT comes. It logs to standard
// error.
func Run(ctx context.Context, s *Settings, records journal.Dir) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	return serve(ctx, s, records, log.New(os.Stderr, "", log.LstdFlags))
}

// serve is the daemon until ctx ends.
func serve(ctx context.Context, s *Settings, records journal.Dir, logger *log.Logger) (err error) {
	f := &files{dir: s.StateDir, journal: records, note: logger.Printf}
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	client, err := dial(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreCancel(client.Close())) }()
	r := &runner{files: f, life: ctx, calls: make(chan func())}
	store := s.store(ctx, client, r.post)
	r.d = newDaemon(identity{s.Host, newSession()}, store, f, logger)
	k, err := openKernel()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	r.d.forwarder = k
	reg, err := r.equip(s, records, store.wanted)
	if err != nil {
		return err
	}
	l, err := socket.Listen(s.Socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, socket.IgnoreClosed(l.Close())) }()
	closed := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer closed()
	if err := r.d.begin(); err != nil {
		return err
	}
	logger.Printf("host %s: listening on %s", s.Host, s.Socket)
	go socket.Accept(ctx, l, logger, func(conn net.Conn) { go r.answer(conn) })
	go watchLinks(ctx, logger, func() { r.post(r.d.linksChanged) })
	go reg.follow(r, logger)
	store.start(r.d)
	return r.loop()
}

// equip gives the daemon this host's names and networks, also those that it used before.
func (r *runner) equip(s *Settings, records journal.Dir, leaseWanted chan<- struct{}) (*registry, error) {
	reg, err := openRegistry(records, leaseWanted)
	if err != nil {
		return nil, err
	}
	r.d.namer = reg
	if s.NetworkDir != "" {
		r.d.definitions.maker = newConflists(s, records, r)
	}
	for _, p := range r.files.registered() {
		if err := r.d.use(p); err != nil {
			r.d.log.Print(err)
		}
	}
	return reg, nil
}

// newConflists makes the networks of the cluster in the directory that the settings name.
func newConflists(s *Settings, records journal.Dir, r *runner) *conflists {
	places := show.Defaults()
	places.NetConf, places.Journal = s.NetworkDir, records
	return &conflists{places: places, underlay: overlay.Underlay{Dev: s.Dev, Port: s.Port}, life: r.life, post: r.post}
}

// tickTime is one tick.
const tickTime = time.Second

func (r *runner) loop() error {
	t := time.NewTicker(tickTime)
	defer t.Stop()
	for {
		select {
		case <-r.life.Done():
			return nil
		case fn := <-r.calls:
			fn()
		case <-t.C:
			if err := r.d.retry(); err != nil {
				r.d.log.Print(err)
			}
			r.d.tick()
		}
	}
}

// newSession names this start of the daemon.
func newSession() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func ignoreCancel(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
