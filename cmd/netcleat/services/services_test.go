package services

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// host is an empty one, whose systemctl writes down how it is called.
func host(t *testing.T) (o Options, calls func() string, out *bytes.Buffer) {
	t.Helper()
	root, bin := t.TempDir(), t.TempDir()
	log := filepath.Join(bin, "log")
	script := "#!/bin/sh\necho \"$@\" >>" + log + "\n"
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(script), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	out = &bytes.Buffer{}
	return Options{Root: root, Command: "/opt/netcleat/netcleat", Out: out}, func() string {
		b, _ := os.ReadFile(log) // none before the first call
		return strings.ReplaceAll(string(b), root, "ROOT")
	}, out
}

// boot has systemd run on the host.
func boot(t *testing.T, o Options) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(o.Root, "run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, o Options, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(o.Root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const unit = "etc/systemd/system/netcleat-dhcp.service"

func TestEnableAndDisable(t *testing.T) {
	o, calls, out := host(t)
	boot(t, o)
	if err := Enable(t.Context(), o, []string{"dhcp", "reconcile"}); err != nil {
		t.Fatal(err)
	}
	text := read(t, o, unit)
	if !strings.HasPrefix(text, mark) || !strings.Contains(text, "ExecStart=/opt/netcleat/netcleat dhcp daemon\n") || strings.Contains(text, "/usr/local") {
		t.Errorf("the unit is %s", text)
	}
	if err := Disable(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	want := `daemon-reload
enable --now netcleat-dhcp.service netcleat-dhcp.socket netcleat-reconcile-reload.service netcleat-reconcile.service
daemon-reload
disable --now netcleat-dhcp.service netcleat-dhcp.socket netcleat-reconcile-reload.service netcleat-reconcile.service
daemon-reload
`
	if diff := cmp.Diff(want, calls()); diff != "" {
		t.Error(diff)
	}
	left, err := os.ReadDir(filepath.Join(o.Root, "etc/systemd/system"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if !strings.Contains(out.String(), "disabled netcleat-dhcp.service") {
		t.Errorf("said %q", out)
	}
}

// Where systemd does not run, the next boot starts them.
func TestEnableInChroot(t *testing.T) {
	o, calls, out := host(t)
	if err := Enable(t.Context(), o, []string{"reconcile"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("--root=ROOT enable netcleat-reconcile-reload.service netcleat-reconcile.service\n", calls()); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(out.String(), "from the next boot on") {
		t.Errorf("said %q", out)
	}
}

// Units of a package and of the administrator stay as they are.
func TestUnitsOfOthers(t *testing.T) {
	o, calls, _ := host(t)
	for _, path := range []string{"usr/lib/systemd/system/netcleat-dhcp.socket", unit} {
		path = filepath.Join(o.Root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("[Unit]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Enable(t.Context(), o, []string{"dhcp"}); err != nil {
		t.Fatal(err)
	}
	if text := read(t, o, unit); text != "[Unit]\n" {
		t.Errorf("the administrator's unit is now %s", text)
	}
	if _, err := os.Stat(o.own("netcleat-dhcp.socket")); err == nil {
		t.Error("a second netcleat-dhcp.socket was written")
	}
	if err := Disable(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("--root=ROOT enable netcleat-dhcp.service netcleat-dhcp.socket\n", calls()); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownService(t *testing.T) {
	o, calls, _ := host(t)
	err := Enable(t.Context(), o, []string{"dhcp", "typo"})
	if err == nil || !strings.HasPrefix(err.Error(), `service "typo": none of cluster, dhcp, dns, firewalld, `) || calls() != "" {
		t.Errorf("got %v; %s", err, calls())
	}
}
