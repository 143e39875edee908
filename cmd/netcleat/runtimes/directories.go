package runtimes

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Default is the directory of networks that every runtime uses unless it is told
// otherwise.
const Default = "/etc/cni/net.d"

// Root is the directory in which configuration files are looked for: "/", but for
// tests.
type Root string

// Directories returns the directories of networks that the configuration files of
// the host's runtimes name, besides Default.
func (r Root) Directories() (dirs []string) {
	for _, keys := range [][]string{
		{"plugins", "io.containerd.grpc.v1.cri", "cni", "conf_dir"},
		{"plugins", "io.containerd.cri.v1.runtime", "cni", "conf_dir"},
	} {
		dirs = append(dirs, r.values(keys, "etc/containerd/config.toml", "etc/containerd/conf.d/*.toml")...)
	}
	dirs = append(dirs, r.values([]string{"cni_netconfpath"}, "etc/nerdctl/nerdctl.toml")...)
	dirs = append(dirs, r.values([]string{"crio", "network", "network_dir"}, "etc/crio/crio.conf", "etc/crio/crio.conf.d/*")...)
	if r.podmanHasCNI() {
		dirs = append(dirs, r.values([]string{"network", "network_config_dir"}, podman...)...)
	}
	for i := range dirs {
		dirs[i] = filepath.Clean(dirs[i])
	}
	slices.Sort(dirs)
	return slices.DeleteFunc(slices.Compact(dirs), func(d string) bool { return d == Default || !filepath.IsAbs(d) })
}

// podman are its configuration files, the first read first.
var podman = []string{"usr/share/containers/containers.conf", "etc/containers/containers.conf", "etc/containers/containers.conf.d/*.conf"}

// podmanHasCNI reports whether podman's backend is CNI: by its configuration, or
// by what it has written down when it was first used.
func (r Root) podmanHasCNI() bool {
	if set := r.values([]string{"network", "network_backend"}, podman...); len(set) > 0 {
		return set[len(set)-1] == "cni"
	}
	b, err := os.ReadFile(filepath.Join(string(r), "var/lib/containers/storage/defaultNetworkBackend"))
	return err == nil && strings.TrimSpace(string(b)) == "cni"
}

// values returns what the files that match the patterns say under the keys. Files
// that cannot be read say nothing.
func (r Root) values(keys []string, patterns ...string) (found []string) {
	for _, pattern := range patterns {
		files, _ := filepath.Glob(filepath.Join(string(r), pattern)) // patterns that are good
		for _, f := range files {
			var doc map[string]any
			if _, err := toml.DecodeFile(f, &doc); err != nil {
				continue
			}
			if v, ok := lookup(doc, keys).(string); ok && v != "" {
				found = append(found, v)
			}
		}
	}
	return found
}

// lookup goes down the tables of a document.
func lookup(doc map[string]any, keys []string) any {
	for _, k := range keys[:len(keys)-1] {
		next, ok := doc[k].(map[string]any)
		if !ok {
			return nil
		}
		doc = next
	}
	return doc[keys[len(keys)-1]]
}

// Below returns the directory, and those in it that hold lists: nerdctl has one
// for each namespace of containerd.
func Below(dir string) []string {
	lists, _ := filepath.Glob(filepath.Join(dir, "*", "*.conflist")) // a pattern that is good, unless the name has meaning
	dirs := []string{dir}
	for _, l := range lists {
		dirs = append(dirs, filepath.Dir(l))
	}
	return slices.Compact(dirs)
}
