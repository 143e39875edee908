package show

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/netns"
)

// FindContainer returns the attachments of the container that name stands for: its ID, its
// name, its pod, libcni's name of one of its attachments, the path or the file name
// of its network namespace, or a prefix of an ID or the pod's name without its
// namespace, where only one container has it.
func FindContainer(rows []Row, name string) ([]Row, error) {
	for _, same := range []func(Row) bool{
		func(r Row) bool { return r.Container == name },
		func(r Row) bool { return r.Name == name },
		func(r Row) bool { return r.Pod == name },
		func(r Row) bool {
			return r.CacheFile != "" && (r.CacheFile == name || filepath.Base(r.CacheFile) == name)
		},
		func(r Row) bool { return samePath(r.Netns, name) },
	} {
		if found := pick(rows, same); len(found) > 0 && name != "" {
			return found, nil
		}
	}
	for _, like := range []func(Row) bool{
		func(r Row) bool { return filepath.Base(r.Netns) == name && !strings.HasPrefix(r.Netns, "/proc/") },
		func(r Row) bool { _, pod, found := strings.Cut(r.Pod, "/"); return found && pod == name },
		func(r Row) bool { return strings.HasPrefix(r.ID(), name) || strings.HasPrefix(r.Container, name) },
	} {
		found := pick(rows, like)
		var ids []string
		for _, r := range found {
			if !slices.Contains(ids, r.Container) {
				ids = append(ids, r.Container)
			}
		}
		switch {
		case name == "" || len(ids) == 0:
		case len(ids) == 1 || sameSandbox(found):
			return found, nil
		default:
			return nil, fmt.Errorf("container %q: matches %d: %s", name, len(ids), strings.Join(ids[:min(len(ids), 8)], ", "))
		}
	}
	return nil, fmt.Errorf("container %q: not known, neither from netcleat's records nor from libcni's cache (netcleat ls lists the containers)", name)
}

func pick(rows []Row, want func(Row) bool) []Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !want(r) })
}

// sameSandbox reports whether all are of one network namespace.
func sameSandbox(rows []Row) bool {
	return !slices.ContainsFunc(rows, func(r Row) bool { return !samePath(rows[0].Netns, r.Netns) })
}

// samePath reports whether two paths lead to one namespace. One that no longer
// exists is known by its path.
func samePath(a, b string) bool {
	if !strings.Contains(b, "/") {
		return false
	}
	same, err := netns.Same(a, b)
	return err == nil && same || filepath.Clean(a) == filepath.Clean(b)
}
