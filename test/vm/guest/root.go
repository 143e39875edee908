package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// Where the parts of the root are put together; nothing of it is visible after enterRoot.
const (
	host  = "/host"  // the host's root, read-only
	layer = "/layer" // what the guest writes over it
	repo  = "/repo"
	root  = "/root"
)

// deviceLinks are the links in /dev that udev makes on other machines.
var deviceLinks = map[string]string{
	"fd":     "/proc/self/fd",
	"stdin":  "fd/0",
	"stdout": "fd/1",
	"stderr": "fd/2",
}

// mount is one call of mount(2); a missing target is made.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

// enterRoot makes the host's root, covered by a writable layer in memory, the root of the guest.
func enterRoot(j *job.Job) error {
	if err := mountHost(); err != nil {
		return err
	}
	for _, m := range mounts(j) {
		if err := m.do(); err != nil {
			return err
		}
	}
	for name, target := range deviceLinks {
		if err := os.Symlink(target, filepath.Join(root, "dev", name)); err != nil {
			return err
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", root, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot %s: %w", root, err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// Real hosts share their mounts: systemd does it at boot.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share /: %w", err)
	}
	return nil
}

// mountHost mounts the host's files and the layer, and joins them at root.
func mountHost() error {
	const upper, work = layer + "/upper", layer + "/work"
	for _, m := range []mount{
		{"root", host, "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,msize=1048576,cache=loose"},
		{"layer", layer, "tmpfs", 0, "mode=755,size=75%"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return mount{"overlay", root, "overlay", 0, "lowerdir=" + host + ",upperdir=" + upper + ",workdir=" + work}.do()
}

// mounts lists what lies on the root, in order. The repository is held aside while memory covers /tmp and the like, so that
// it is visible wherever it lies.
func mounts(j *job.Job) []mount {
	const apart = unix.MS_NOSUID | unix.MS_NODEV
	at := func(path string) string { return filepath.Join(root, path) }
	modules := "/usr/lib/modules/" + filepath.Base(j.ModuleDir)
	return []mount{
		{at(j.ModuleDir), at(modules), "", unix.MS_BIND, ""},
		{at(j.Repo), repo, "", unix.MS_BIND, ""},
		{"proc", at("/proc"), "proc", apart, ""},
		{"sysfs", at("/sys"), "sysfs", apart, ""},
		{"cgroup2", at("/sys/fs/cgroup"), "cgroup2", apart, ""},
		{"bpf", at("/sys/fs/bpf"), "bpf", apart, ""},
		{"devtmpfs", at("/dev"), "devtmpfs", 0, "mode=755"},
		{"devpts", at("/dev/pts"), "devpts", 0, "gid=5,mode=620,ptmxmode=666"},
		{"shm", at("/dev/shm"), "tmpfs", apart, "mode=1777"},
		{"run", at("/run"), "tmpfs", apart, "mode=755"},
		{"tmp", at("/tmp"), "tmpfs", apart, "mode=1777"},
		{"cni", at("/var/lib/cni"), "tmpfs", apart, "mode=755"},
		{repo, at(j.Repo), "", unix.MS_MOVE, ""},
	}
}

// loadModule loads a module from the initramfs.
func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("module %s: %w", file, err)
	}
	return nil
}
