package show

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hexID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func someRows(t *testing.T) []Row {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "1935db59", "names", "default")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "shop_web_1"), []byte(hexID), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := []Row{
		{Network: "a", Container: "default-" + hexID, Interface: "eth0", Netns: "/proc/1/no"},
		{Network: "a", Container: "abcd" + hexID[4:], Pod: "shop/web", Interface: "eth0", Netns: "/run/netns/cni-1"},
		{Network: "b", Container: "abcd" + hexID[4:], Pod: "shop/web", Interface: "net1", Netns: "/run/netns/cni-1"},
		{Network: "b", Container: "cnitool-0123456789abcdef0123", Interface: "eth0", Netns: "/run/netns/blue"},
		{Network: "b", Container: "abce", Pod: "other/web", Interface: "eth0", Netns: "/run/netns/cni-2"},
		{Network: "b", Container: "short", Interface: "eth0"},
	}
	nameAll(rows, nerdctlNames(root))
	return rows
}

// Each container has the name that people know it by, and an ID is cut as Docker cuts it.
func TestCalled(t *testing.T) {
	var got []string
	rows := someRows(t)
	for _, r := range rows {
		got = append(got, r.Called())
	}
	if want := "shop_web_1 shop/web shop/web blue other/web short"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (Row{Container: "k8s-" + hexID}).Called(); got != hexID[:12] {
		t.Errorf("got %q, want the ID without containerd's namespace, cut", got)
	}
}

// A container is found by each of its names, and by what begins one ID alone.
func TestFindContainer(t *testing.T) {
	rows := someRows(t)
	for name, want := range map[string]string{
		"shop_web_1": "default-" + hexID, hexID[:12]: "default-" + hexID, "shop/web": "abcd" + hexID[4:], "abcd": "abcd" + hexID[4:],
		"blue": "cnitool-0123456789abcdef0123", "cni-1": "abcd" + hexID[4:], "/run/netns/cni-2": "abce", "sh": "short",
	} {
		found, err := FindContainer(rows, name)
		if err != nil || found[0].Container != want {
			t.Errorf("%s: %v %v, want %s", name, found, err, want)
		}
	}
	if found, err := FindContainer(rows, "shop/web"); len(found) != 2 {
		t.Errorf("%v %v, want both attachments", found, err)
	}
	for name, want := range map[string]string{"abc": "matches 2: abcd", "web": "matches 2:", "nobody": "not known", "": "not known"} {
		if found, err := FindContainer(rows, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v %v, want %q", name, found, err, want)
		}
	}
}
