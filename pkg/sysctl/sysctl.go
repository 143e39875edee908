// Package sysctl reads and writes /proc/sys in a network namespace.
package sysctl

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/netns"
)

// A Setting is one sysctl: the path below /proc/sys (slashes, since interface
// names may hold dots) and the value.
type Setting struct {
	Key   string
	Value string
	// IfExists makes a key that the kernel does not have no error. Say why where
	// it is set.
	IfExists bool
	// Optional makes it no error that /proc/sys cannot be written, as in a nested
	// or rootless runtime: what the setting is for works without it, if less well.
	Optional bool
}

const (
	root     = "/proc/sys/"
	maxValue = 1 << 20 // bytes; ip_local_reserved_ports may have more than a page
)

// Set writes the settings in ns, in order, moving one thread there once; a nil
// ns is the calling thread's own namespace. A setting that cannot be written
// but already has the wanted value is success: rootless runtimes and read-only
// /proc/sys are no error as long as nothing is wrong.
func Set(ns *netns.NS, g gate.Gate, settings ...Setting) error {
	if len(settings) == 0 {
		return nil
	}
	return in(ns, func() error {
		for _, s := range settings {
			if err := set(g, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// Get returns the value of key in ns without its final newline.
func Get(ns *netns.NS, key string) (value string, err error) {
	err = in(ns, func() error {
		value, err = read(key)
		return err
	})
	return value, err
}

// Values returns the values of keys in ns, moving one thread there once. A key
// that only can be written (net/ipv4/route/flush) is left out; one that the
// kernel does not have is an error that satisfies errors.Is(err,
// fs.ErrNotExist).
func Values(ns *netns.NS, keys ...string) (map[string]string, error) {
	values := make(map[string]string, len(keys))
	err := in(ns, func() error {
		for _, k := range keys {
			v, err := read(k)
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
				continue
			}
			if err != nil {
				return err
			}
			values[k] = v
		}
		return nil
	})
	return values, err
}

func in(ns *netns.NS, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return ns.Do(fn)
}

func set(g gate.Gate, s Setting) error {
	err := g.Pass("sysctl " + s.Key + "=" + s.Value)
	if err == nil {
		err = write(s)
	}
	if err == nil {
		return nil
	}
	if s.IfExists && errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !refusedByFilesystem(err) {
		return fmt.Errorf("sysctl %s=%s: %w", s.Key, s.Value, err)
	}
	if now, rerr := read(s.Key); s.Optional || rerr == nil && Equal(now, s.Value) {
		return nil
	}
	return fmt.Errorf("sysctl %s=%s: %w (%s)", s.Key, s.Value, err, s.preset())
}

// preset is what helps where /proc/sys cannot be written now.
func (s Setting) preset() string {
	if p := strings.Split(s.Key, "/"); len(p) == 5 && p[2] == "conf" && p[3] != "all" {
		p[3] = "default" // which a link takes over when it is made
		return fmt.Sprintf("preset it there, where that can be written: `sysctl -w %s=%s`", strings.Join(p, "/"), s.Value)
	}
	return fmt.Sprintf("preset it, where that can be written: `sysctl -w %s=%s`", s.Key, s.Value)
}

func refusedByFilesystem(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// open opens the key's file. A key comes from the configuration and must not
// leave /proc/sys.
func open(key string, flags int) (int, error) {
	if slices.Contains(strings.Split(key, "/"), "..") {
		return -1, unix.EINVAL
	}
	return unix.Open(root+key, flags|unix.O_CLOEXEC, 0)
}

func write(s Setting) error {
	fd, err := open(s.Key, unix.O_WRONLY)
	if err != nil {
		return err
	}
	value := s.Value
	if value == "" {
		value = "\n" // writing nothing would change nothing
	}
	for err == nil && value != "" { // of a long bitmap the kernel takes a page at a time
		var n int
		n, err = unix.Write(fd, []byte(value))
		value = value[max(n, 0):]
	}
	return errors.Join(err, unix.Close(fd))
}

func read(key string) (string, error) {
	fd, err := open(key, unix.O_RDONLY)
	if err != nil {
		return "", fmt.Errorf("sysctl %s: %w", key, err)
	}
	buf := make([]byte, 512)
	n, err := unix.Read(fd, buf)
	for err == nil && n > len(buf)/2 && n < maxValue { // what does not fit one read, the kernel cuts where it likes
		buf = make([]byte, 8*len(buf))
		n, err = unix.Pread(fd, buf, 0)
	}
	if err != nil {
		err = fmt.Errorf("sysctl %s: %w", key, err)
	}
	return string(bytes.TrimRight(buf[:max(n, 0)], "\n")), errors.Join(err, unix.Close(fd))
}

// Equal compares two values as the kernel does: fields count, the blanks
// between do not.
func Equal(a, b string) bool {
	return strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ")
}
