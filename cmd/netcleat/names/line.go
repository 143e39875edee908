package names

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// What the cluster daemon and the dns daemon say to each other on one connection, a line
// each, after "follow" and its answer. Files are what counts: a line says which to read
// again, and who connects reads all.
const (
	// Follow begins the connection.
	Follow = "follow"
	// Changed says that a record of this host has: changed NETWORK CONTAINER IFNAME.
	Changed = "changed"
	// Remote says that another host's names have: remote NETWORK HOST.
	Remote = "remote"
)

// Line is the cluster daemon's connection with the dns daemon, while one runs.
type Line struct {
	Dir  journal.Dir
	mu   sync.Mutex
	conn net.Conn
}

// patience bounds how long the dns daemon may take to read a line.
const patience = time.Second

// Tell has the dns daemon read another host's names again. One that does not run reads
// them when it starts.
func (l *Line) Tell(network, host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return
	}
	if err := l.say(Remote + " " + network + " " + host); err != nil {
		_ = l.conn.Close() // the next connection tells of everything
		l.conn = nil
	}
}

// say writes a line; l.mu is held.
func (l *Line) say(line string) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := io.WriteString(l.conn, line+"\n")
	return err
}

// connect connects. What is written to files from here on is told.
func (l *Line) connect(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "unix", dnsname.SocketOf(l.Dir))
	if err != nil {
		return nil, err
	}
	l.conn = conn
	return conn, l.say(Follow)
}

// Follow stays connected with the dns daemon until one of them ends. It calls connected
// when all records are to be read, and then changed for each that has changed.
func (l *Line) Follow(ctx context.Context, connected func(), changed func(network, id string)) error {
	conn, err := l.connect(ctx)
	if conn != nil {
		defer l.hangUp(conn)
	}
	if err != nil {
		return err
	}
	end := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer end()
	lines := bufio.NewScanner(conn)
	if !lines.Scan() || lines.Text() != "ok" {
		return errors.Join(fmt.Errorf("dns daemon: %.80q", lines.Text()), lines.Err())
	}
	connected()
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if len(w) != 4 || w[0] != Changed {
			return fmt.Errorf("dns daemon: %.80q", lines.Text())
		}
		changed(w[1], ID(w[2], w[3]))
	}
	return lines.Err()
}

func (l *Line) hangUp(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = conn.Close() // there is no one to tell
	if l.conn == conn {
		l.conn = nil
	}
}
