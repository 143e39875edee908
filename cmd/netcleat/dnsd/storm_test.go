package dnsd

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// The storm: so many containers at once, so often each.
const (
	stormSize   = 64
	stormRounds = 3
)

// TestStorm attaches and detaches 64 containers at once, by the plugin's own
// processes, while the daemon is killed all the time. An asker never sees a name
// of a container whose DEL has returned, nor another's address.
func TestStorm(t *testing.T) {
	w := newTown(t)
	w.add(named("asker", 2))
	done, killed := make(chan struct{}), 0
	var kills sync.WaitGroup
	kills.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Second):
				if pid := w.pid(); pid > 1 {
					p, err := os.FindProcess(pid)
					if err == nil && p.Kill() == nil {
						killed++
					}
				}
			}
		}
	})
	var workers sync.WaitGroup
	var seen atomic.Int32
	for i := range stormSize {
		var conn net.Conn
		w.In(w.sandbox[named("asker", 2).id], func() {
			var err error
			conn, err = net.Dial("udp", "10.1.0.1:53")
			must(t, err)
		})
		workers.Go(func() {
			defer func() { _ = conn.Close() }()
			for r := range stormRounds {
				if err := w.gust(i, r, conn, &seen); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	close(done)
	kills.Wait()
	t.Logf("daemon killed %d times, %d of %d names seen between ADD and DEL", killed, seen.Load(), stormSize*stormRounds)
	if seen.Load() == 0 {
		t.Error("no name was ever answered")
	}
	w.add(named("last", 3))
	w.want(asks{id: named("last", 3).id, name: "asker"}, "10.1.0.2")
	for i := range stormSize {
		w.want(asks{id: named("last", 3).id, name: fmt.Sprint("n", i)}, "NXDOMAIN")
	}
}

// gust attaches one container, asks for it, detaches it and asks again. Silence is
// no lie: the daemon may be dead.
func (w *town) gust(i, round int, conn net.Conn, seen *atomic.Int32) error {
	host := 10 + (i+round*stormSize)%240
	c := on{network: 1, host: host, id: fmt.Sprintf("c%d-%d", i, round), args: fmt.Sprintf("K8S_POD_NAME=n%d", i)}
	call := w.callOf(c, w.PathOf(w.Sandbox))
	name, addr := fmt.Sprintf("n%d.", i), fmt.Sprintf("10.1.0.%d", host)
	if err := w.process("ADD", call); err != nil {
		return err
	}
	switch got := quick(conn, name); got {
	case addr:
		seen.Add(1)
	case "silence":
	default:
		return fmt.Errorf("%s after ADD: want %s, got %s", name, addr, got)
	}
	if err := w.process("DEL", call); err != nil {
		return err
	}
	if got := quick(conn, name); got != "NXDOMAIN" && got != "silence" {
		return fmt.Errorf("%s after DEL: got %s", name, got)
	}
	return nil
}

// process runs the plugin's verb in a process of its own.
func (w *town) process(verb string, c nltest.Call) error {
	path := w.program
	if path == "" {
		var err error
		if path, err = os.Executable(); err != nil {
			return err
		}
	}
	var out, errs bytes.Buffer
	cmd := &exec.Cmd{Path: path, Args: []string{dnsname.Name}, Stdin: bytes.NewReader([]byte(c.Conf)), Stdout: &out, Stderr: &errs}
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "TEST_JOURNAL=" + string(w.Journal()), "CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + c.ContainerID,
		"CNI_IFNAME=eth0", "CNI_NETNS=" + c.Netns, "CNI_ARGS=" + c.Args, "CNI_PATH=/nowhere",
	}
	if err := errors.Join(w.Host.Do(cmd.Start)); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s of %s: %w: %s%s", verb, c.ContainerID, err, &out, &errs)
	}
	return nil
}

// quick asks once, over a connected socket.
func quick(conn net.Conn, name string) string {
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	b, err := q.Pack()
	if err != nil {
		return err.Error()
	}
	if _, err := conn.Write(b); err != nil {
		return "silence" // the port was closed when the last query came
	}
	_ = conn.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
	answer := make([]byte, 4096)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return "silence"
		}
		m := new(dns.Msg)
		if m.Unpack(answer[:n]) == nil && m.Id == q.Id {
			return short(m)
		}
	}
}
