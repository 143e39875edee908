// Command peer is both ends of the traffic in the stories with real runtimes: the
// server in a container, which answers who asked, and who asks.
//
//	peer serve PORT…         answer HTTP and UDP on the ports, and echo on port 7
//	peer ask tcp|udp ADDRESS print the answer
//	peer talk ADDRESS:7      keep one connection busy until standard input ends
//	peer trips ADDRESS:7 N   print the median of N round trips, one after the other, in nanoseconds
//	peer dns udp|tcp NAME [SERVER]   print the answer of the server, or else of the first in resolv.conf, as it comes
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// patience is how long an answer may take.
const patience = 3 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 1 && args[0] == "serve":
		return serve(args[1:])
	case len(args) == 3 && args[0] == "ask":
		return ask(args[1], args[2])
	case len(args) == 2 && args[0] == "talk":
		return talk(args[1])
	case len(args) == 3 && args[0] == "trips":
		return trips(args[1], args[2])
	case len(args) == 3 && args[0] == "dns":
		server, err := firstServer()
		if err != nil {
			return err
		}
		return lookUp(args[1], args[2], server)
	case len(args) == 4 && args[0] == "dns":
		return lookUp(args[1], args[2], args[3])
	}
	return errors.New("usage: peer serve PORT… | ask tcp|udp ADDRESS | talk ADDRESS | trips ADDRESS N | dns udp|tcp NAME [SERVER]")
}

// serve answers on all ports until the first error.
func serve(ports []string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	echo, err := net.Listen("tcp", ":7")
	if err != nil {
		return err
	}
	ended := make(chan error)
	go func() { ended <- echoes(echo) }()
	for _, port := range ports {
		packets, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			return err
		}
		go func() { ended <- answers(packets, name) }()
		server := http.Server{Addr: ":" + port, ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, "%s saw %s\n", name, host(r.RemoteAddr))
		})}
		go func() { ended <- server.ListenAndServe() }()
	}
	return <-ended
}

// answers tells each sender of a datagram who it is.
func answers(c net.PacketConn, name string) error {
	buf := make([]byte, 1500)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(to{c, from}, "%s saw %s\n", name, host(from.String())); err != nil {
			return err
		}
	}
}

// to writes datagrams to one address.
type to struct {
	net.PacketConn
	addr net.Addr
}

func (t to) Write(b []byte) (int, error) { return t.WriteTo(b, t.addr) }

func echoes(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
	}
}

// host is an address without the port; IPv4 as such.
func host(addr string) string {
	h, _, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(h).To4(); ip != nil {
		return ip.String()
	}
	return h
}

// ask prints what the server at the address answers.
func ask(network, addr string) error {
	if network == "tcp" {
		return get(addr)
	}
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "who am I"); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err == nil {
		_, err = os.Stdout.Write(buf[:n])
	}
	return err
}

func get(addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}

// dial connects, and waits for the server to be up.
func dial(addr string) (net.Conn, error) {
	for deadline := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err == nil || time.Now().After(deadline) {
			return c, err
		}
	}
}

// talk sends a line, waits for its echo, and so on until standard input ends. A
// connection that breaks, or an echo that does not come, is an error.
func talk(addr string) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		done <- err
	}()
	echo := bufio.NewReader(c)
	for n := 0; ; n++ {
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		if _, err := fmt.Fprintln(c, n); err != nil {
			return err
		}
		if got, err := echo.ReadString('\n'); err != nil || got != fmt.Sprintln(n) {
			return fmt.Errorf("echo %d: %q, %w", n, got, err)
		}
		if n == 0 {
			fmt.Println("talking")
		}
		select {
		case err := <-done:
			fmt.Println("echoes:", n+1)
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
