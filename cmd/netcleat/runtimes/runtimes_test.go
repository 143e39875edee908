package runtimes

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func write(t *testing.T, root Root, name, text string) {
	t.Helper()
	path := filepath.Join(string(root), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil { //nolint:gosec // some are programs
		t.Fatal(err)
	}
}

// Each runtime's own configuration file says where its networks are.
func TestDirectories(t *testing.T) {
	root := Root(t.TempDir())
	if dirs := root.Directories(); len(dirs) > 0 {
		t.Fatalf("without files: %v", dirs)
	}
	write(t, root, "etc/containerd/config.toml", `
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "/opt/containerd/net.d/"
`)
	write(t, root, "etc/containerd/conf.d/new.toml", `
version = 3
[plugins.'io.containerd.cri.v1.runtime'.cni]
  conf_dir = '/opt/containerd2'
`)
	write(t, root, "etc/nerdctl/nerdctl.toml", `cni_netconfpath = "/srv/nerdctl"`)
	write(t, root, "etc/crio/crio.conf", "[crio.network]\nnetwork_dir = \"/etc/cni/net.d/\"\n")
	write(t, root, "etc/crio/crio.conf.d/10-site.conf", "[crio.network]\nnetwork_dir = \"/srv/crio\"\n")
	write(t, root, "etc/crio/crio.conf.d/20-broken.conf", "[crio.network\n")
	write(t, root, "etc/containers/containers.conf", "[network]\nnetwork_config_dir = \"/srv/podman\"\n")
	want := []string{"/opt/containerd/net.d", "/opt/containerd2", "/srv/crio", "/srv/nerdctl"}
	if dirs := root.Directories(); !slices.Equal(dirs, want) {
		t.Errorf("want %v, got %v", want, dirs)
	}
	write(t, root, "var/lib/containers/storage/defaultNetworkBackend", "cni")
	if dirs := root.Directories(); !slices.Contains(dirs, "/srv/podman") {
		t.Errorf("with podman's CNI backend: got %v", dirs)
	}
	write(t, root, "etc/containers/containers.conf.d/x.conf", "[network]\nnetwork_backend = \"netavark\"\n")
	if dirs := root.Directories(); slices.Contains(dirs, "/srv/podman") {
		t.Errorf("with netavark: got %v", dirs)
	}
}

func TestBelow(t *testing.T) {
	root := Root(t.TempDir())
	write(t, root, "default/nerdctl-bridge.conflist", "{}")
	write(t, root, "default/two.conflist", "{}")
	write(t, root, "k8s.io/net.conflist", "{}")
	write(t, root, "inlined/plugin.conf", "{}")
	d := string(root)
	if dirs, want := Below(d), []string{d, d + "/default", d + "/k8s.io"}; !slices.Equal(dirs, want) {
		t.Errorf("want %v, got %v", want, dirs)
	}
}

func TestInstalled(t *testing.T) {
	root := Root(t.TempDir())
	t.Setenv("PATH", string(root))
	for _, c := range []struct{ name, says, reads string }{
		{"containerd", "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u2", "1.0.0"},
		{"containerd", "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4", "1.1.0"},
		{"nerdctl", "nerdctl version 1.7.7", "1.0.0"},
		{"nerdctl", "nerdctl version 2.1.3", "1.1.0"},
	} {
		write(t, root, c.name, "#!/bin/sh\necho '"+c.says+"'\n")
		all := Installed(t.Context())
		if len(all) != 1 || all[0].Name != c.name || all[0].Reads != c.reads {
			t.Errorf("%s: want it to read %s, got %+v", c.says, c.reads, all)
		}
		if refused := Refuses(all, "1.1.0") != ""; refused != (c.reads == "1.0.0") || Refuses(all, "1.0.0") != "" || Refuses(all, "0.4.0") != "" {
			t.Errorf("%s: refuses 1.1.0: %v", c.says, refused)
		}
		if err := os.Remove(filepath.Join(string(root), c.name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, root, "containerd", "#!/bin/sh\nexit 1\n")
	if all := Installed(t.Context()); len(all) > 0 {
		t.Errorf("one that does not answer: %v", all)
	}
}
