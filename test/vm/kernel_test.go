package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestDependency(t *testing.T) {
	for record, want := range map[string]string{
		"Package: linux-image-amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n":                  "linux-image-6.1.0-56-amd64",
		"Package: linux-image-6.1.0-56-amd64\nDepends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0)": "",
	} {
		if got := dependency(record); want != got {
			t.Errorf("want %q, got %q", want, got)
		}
	}
}

func TestChooseKernels(t *testing.T) {
	file := write(t, "# two\nold # 6.1\n\nnew\n")
	for name, want := range map[string][]string{"": {"old", "new"}, "new": {"new"}, "other": nil} {
		got, err := chooseKernels(file, name)
		if !slices.Equal(want, got) || (err == nil) != (want != nil) {
			t.Errorf("%q: want %q, got %q, %v", name, want, got, err)
		}
	}
}

func TestSkipNeedsReason(t *testing.T) {
	got, err := readSkips(write(t, "# list\nneeds two machines # there is one VM\n"))
	if want := []string{"needs two machines"}; err != nil || !slices.Equal(want, got) {
		t.Errorf("want %q, got %q, %v", want, got, err)
	}
	if got, err := readSkips(write(t, "whatever\n")); err == nil {
		t.Errorf("want an error, got %q", got)
	}
}

func TestSkipsFile(t *testing.T) {
	if _, err := readSkips("skips.txt"); err != nil {
		t.Error(err)
	}
}

func TestModuleOrder(t *testing.T) {
	index := parseModuleIndex("kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n" +
		"kernel/net/9p/9pnet.ko:\nkernel/fs/netfs/netfs.ko: kernel/fs/base.ko\nkernel/fs/base.ko:\n")
	got, err := index.order([]string{"9pnet", "9p", "virtio_pci"}, []string{"virtio_pci"})
	want := []string{"kernel/net/9p/9pnet.ko", "kernel/fs/base.ko", "kernel/fs/netfs/netfs.ko", "kernel/fs/9p/9p.ko"}
	if err != nil || !slices.Equal(want, got) {
		t.Errorf("want %q, got %q, %v", want, got, err)
	}
	if got, err := index.order([]string{"overlay"}, nil); err == nil {
		t.Errorf("want an error, got %q", got)
	}
}

func TestWantedModules(t *testing.T) {
	index := parseModuleIndex("kernel/drivers/net/dummy.ko:\nkernel/drivers/net/dummy2.ko:\nkernel/drivers/net/ethernet/e1000.ko:\n" +
		"kernel/net/sched/sch_tbf.ko.xz:\nkernel/net/sched/sch_teql.ko:\nkernel/net/netfilter/ipvs/ip_vs_rr.ko:\n")
	if want, got := []string{"dummy", "sch_tbf"}, index.wanted(nil); !slices.Equal(want, got) {
		t.Errorf("want %q, got %q", want, got)
	}
	index["kernel/net/sched/sch_htb.ko"] = []string{"kernel/net/sched/sch_tbf.ko.xz"}
	if want, got := []string{"dummy"}, index.wanted([]string{"sch_tbf"}); !slices.Equal(want, got) {
		t.Errorf("without sch_tbf: want %q, got %q", want, got)
	}
}

// write makes a file with the text and returns its name.
func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
