package dnsd

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ownCgroup is the daemon's: below the root, neither the runtime's nor the
// container's, who end all that is in theirs.
const ownCgroup = "netcleat-dns"

// leaveCgroup moves this process to a cgroup of its own, in each hierarchy that is
// mounted: one with cgroup v2, several with v1.
func leaveCgroup(mountinfo string) error {
	mounts, err := cgroupMounts(mountinfo)
	if err != nil {
		return err
	}
	return leaveCgroups(os.Getpid(), mounts)
}

func leaveCgroups(pid int, mounts []string) error {
	var errs []error
	for _, m := range mounts {
		errs = append(errs, join(pid, m))
	}
	return errors.Join(errs...)
}

// join moves a process. What has no resources of its own to set, such as
// cpuset before its processors are chosen, takes none: the root does.
func join(id int, mount string) error {
	dir := filepath.Join(mount, ownCgroup)
	pid := []byte(strconv.Itoa(id))
	err := os.Mkdir(dir, 0o755)
	if err == nil || os.IsExist(err) {
		if err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), pid, 0o644); err == nil {
			return nil
		}
	}
	if rerr := os.WriteFile(filepath.Join(mount, "cgroup.procs"), pid, 0o644); rerr != nil {
		return fmt.Errorf("%s: %w", mount, err)
	}
	return nil
}

// cgroupMounts returns where hierarchies are mounted whose root is seen.
func cgroupMounts(file string) (list []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// ID, parent, device, root, mount point, options …, "-", type (proc(5))
		before, after, _ := strings.Cut(lines.Text(), " - ")
		w, kind := strings.Fields(before), strings.Fields(after)
		if len(w) > 4 && len(kind) > 0 && (kind[0] == "cgroup" || kind[0] == "cgroup2") {
			list = append(list, w[4])
		}
	}
	return list, lines.Err()
}
