package bed

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// OwnEtc gives the host an /etc of its own, a copy, with an empty /etc/cni/net.d,
// and finds the plugins in /opt/cni/bin: for runtimes that know no other places.
func (h *Host) OwnEtc() {
	h.t.Helper()
	h.Sh(`
		cp -a /etc /run/etc
		mount --bind /run/etc /etc
		rm -rf /etc/cni
		mkdir -p /etc/cni/net.d
		mount -t tmpfs tmpfs /opt
		mkdir -p /opt/cni/bin
		mount --bind ` + h.Plugins + ` /opt/cni/bin`)
}

// Cgroup is a control group for the story's containers. It goes when the story
// has ended, and its processes with it.
func (h *Host) Cgroup() string {
	name := filepath.Base(h.Dir)
	h.after(func() error { return RemoveCgroup(name) })
	return "/" + name
}

// RemoveCgroup removes a control group without processes from all hierarchies.
func RemoveCgroup(name string) error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	for _, root := range append(roots, "/sys/fs/cgroup/"+name) {
		err = errors.Join(err, removeGroups(root))
	}
	return err
}

// removeGroups removes a control group and those within, which are directories
// that cannot be emptied otherwise.
func removeGroups(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		err = errors.Join(err, os.Remove(dirs[i]))
	}
	return err
}
