// Package dbus calls methods on the system bus: what talking to firewalld and
// systemd takes.
package dbus

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Bus is the name of the bus itself, and of its interface.
const Bus = "org.freedesktop.DBus"

// Conn is a connection to a bus.
type Conn struct{ bus *dbus.Conn }

// Method is a method of an object.
type Method struct{ Dest, Path, Interface, Name string }

// Reply is what a method returned.
type Reply []any

// Bool reports whether the reply's first argument is true.
func (r Reply) Bool() bool { return len(r) > 0 && r[0] == true }

// Text returns the reply's first argument, if it is a string.
func (r Reply) Text() string {
	if len(r) == 0 {
		return ""
	}
	text, _ := r[0].(string)
	return text
}

// timeout bounds a whole conversation: the caller waits for it.
const timeout = 10 * time.Second

// System connects to the system bus.
func System() (_ *Conn, err error) {
	c, err := net.DialTimeout("unix", address(), timeout)
	if err != nil {
		return nil, fmt.Errorf("system bus: %w", err)
	}
	bus, err := dbus.DialUnix(c.(*net.UnixConn))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("system bus: %w", err), c.Close())
	}
	user := dbus.AuthExternal(strconv.Itoa(os.Getuid()))
	if err = errors.Join(c.SetDeadline(time.Now().Add(timeout)), bus.Auth([]dbus.Auth{user})); err == nil {
		err = bus.Hello()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("system bus: %w", err), bus.Close())
	}
	return &Conn{bus}, nil
}

func address() string {
	for a := range strings.SplitSeq(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), ";") {
		path, ok := strings.CutPrefix(a, "unix:path=")
		path, _, _ = strings.Cut(path, ",")
		if ok {
			return path
		}
	}
	return "/run/dbus/system_bus_socket"
}

// Close ends the connection.
func (c *Conn) Close() error { return c.bus.Close() }

// Call calls the method and waits for its answer.
func (c *Conn) Call(m Method, args ...any) (Reply, error) {
	call := c.bus.Object(m.Dest, dbus.ObjectPath(m.Path)).Call(m.Interface+"."+m.Name, 0, args...)
	if call.Err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, call.Err)
	}
	return call.Body, nil
}
