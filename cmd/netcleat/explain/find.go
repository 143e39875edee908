package explain

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/netns"
)

// find returns the attachments of the container that name stands for: its ID, a
// prefix that only it has, its pod, libcni's name of one of its attachments, or
// the path of its namespace.
func find(rows []show.Row, name string) ([]show.Row, error) {
	for _, same := range []func(show.Row) bool{
		func(r show.Row) bool { return r.Container == name },
		func(r show.Row) bool { return r.Pod == name },
		func(r show.Row) bool {
			return r.CacheFile != "" && (r.CacheFile == name || filepath.Base(r.CacheFile) == name)
		},
		func(r show.Row) bool { return samePath(r.Netns, name) },
	} {
		if found := pick(rows, same); len(found) > 0 {
			return found, nil
		}
	}
	found := pick(rows, func(r show.Row) bool { return name != "" && strings.HasPrefix(r.Container, name) })
	var ids []string
	for _, r := range found {
		if !slices.Contains(ids, r.Container) {
			ids = append(ids, r.Container)
		}
	}
	switch {
	case len(ids) == 1:
		return found, nil
	case len(ids) > 1:
		return nil, fmt.Errorf("container %q: begins the names of %d: %s", name, len(ids), strings.Join(ids[:min(len(ids), 8)], ", "))
	}
	return nil, fmt.Errorf("container %q: neither the journal nor libcni knows it (netcleat ls lists those that are known)", name)
}

func pick(rows []show.Row, want func(show.Row) bool) []show.Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r show.Row) bool { return !want(r) })
}

// samePath reports whether two paths lead to one namespace. One that is gone is
// known by its name.
func samePath(a, b string) bool {
	if !strings.Contains(b, "/") {
		return false
	}
	same, err := netns.Same(a, b)
	return err == nil && same || filepath.Clean(a) == filepath.Clean(b)
}
