package sysctl_test

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/sysctl"
)

func TestSetAndGet(t *testing.T) {
	bed := nltest.New(t)
	for _, c := range []struct {
		set  sysctl.Setting
		want string
		err  error
	}{
		{sysctl.Setting{Key: "net/ipv4/ip_forward", Value: "1"}, "1", nil},
		{sysctl.Setting{Key: "net/ipv4/ip_forward", Value: "0"}, "0", nil},
		{sysctl.Setting{Key: "net/ipv4/ip_local_port_range", Value: "2000 3000"}, "2000 3000", nil},
		{sysctl.Setting{Key: "net/ipv4/none", Value: "1"}, "", unix.ENOENT},
		{sysctl.Setting{Key: "net/ipv4/none", Value: "1", IfExists: true}, "", nil},
		{sysctl.Setting{Key: "net/ipv4/ip_forward", Value: "x"}, "0", unix.EINVAL},
		{sysctl.Setting{Key: "net/../kernel/ostype", Value: "x"}, "", unix.EINVAL},
	} {
		if err := sysctl.Set(bed.Sandbox, nil, c.set); !errors.Is(err, c.err) {
			t.Errorf("set %+v: %v, want %v", c.set, err, c.err)
		}
		if got, _ := sysctl.Get(bed.Sandbox, c.set.Key); !sysctl.Equal(got, c.want) {
			t.Errorf("%s=%q, want %q", c.set.Key, got, c.want)
		}
	}
	if got, err := sysctl.Get(nil, "net/ipv4/ip_local_port_range"); sysctl.Equal(got, "2000 3000") || err != nil {
		t.Errorf("the host has the sandbox's value: %q %v", got, err)
	}
}

// The first setting that is refused ends it, and the gate's refusal is the
// kernel's.
func TestGate(t *testing.T) {
	bed := nltest.New(t)
	faults := &nltest.Faults{At: 2}
	err := sysctl.Set(bed.Sandbox, faults.Gate,
		sysctl.Setting{Key: "net/ipv4/conf/lo/arp_notify", Value: "1"},
		sysctl.Setting{Key: "net/ipv4/conf/lo/proxy_arp", Value: "1"},
		sysctl.Setting{Key: "net/ipv4/ip_forward", Value: "1"})
	if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "sysctl net/ipv4/conf/lo/proxy_arp=1") {
		t.Error(err)
	}
	got, err := sysctl.Values(bed.Sandbox, "net/ipv4/conf/lo/arp_notify", "net/ipv4/conf/lo/proxy_arp", "net/ipv4/ip_forward", "net/ipv4/route/flush")
	if err != nil || got["net/ipv4/conf/lo/arp_notify"] != "1" || got["net/ipv4/conf/lo/proxy_arp"] != "0" || got["net/ipv4/ip_forward"] != "0" || len(got) != 3 {
		t.Errorf("%v %v", got, err)
	}
	if _, err := sysctl.Values(bed.Sandbox, "net/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("values of a key that is none: %v", err)
	}
}

// On a read-only /proc/sys what has the value already is no error.
func TestReadOnly(t *testing.T) {
	bed := nltest.New(t)
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Skipf("needs CAP_SYS_ADMIN: %v", err)
	}
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
		unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/proc/sys", unix.MNT_DETACH) })
	for value, want := range map[string]error{"0": nil, "1": unix.EROFS} {
		for _, ifExists := range []bool{false, true} {
			if err := sysctl.Set(bed.Sandbox, nil, sysctl.Setting{Key: "net/ipv4/ip_forward", Value: value, IfExists: ifExists}); !errors.Is(err, want) {
				t.Errorf("set %s: %v, want %v", value, err, want)
			}
		}
	}
	if err := sysctl.Set(bed.Sandbox, nil, sysctl.Setting{Key: "net/ipv4/ip_forward", Value: "1", Optional: true}); err != nil {
		t.Errorf("what is optional: %v", err)
	}
	for key, want := range map[string]string{
		"net/ipv4/ip_forward": "`sysctl -w net/ipv4/ip_forward=1`", "net/ipv4/conf/lo/proxy_arp": "`sysctl -w net/ipv4/conf/default/proxy_arp=1`",
	} {
		if err := sysctl.Set(bed.Sandbox, nil, sysctl.Setting{Key: key, Value: "1"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want the remedy %s", key, err, want)
		}
	}
}

// A value of more than a page is read whole.
func TestLongValue(t *testing.T) {
	bed := nltest.New(t)
	var ports []string
	for p := 1001; p < 65000; p += 50 {
		ports = append(ports, strconv.Itoa(p))
	}
	want := strings.Join(ports, ",")
	if err := sysctl.Set(bed.Sandbox, nil, sysctl.Setting{Key: "net/ipv4/ip_local_reserved_ports", Value: want}); err != nil {
		t.Fatal(err)
	}
	if got, err := sysctl.Get(bed.Sandbox, "net/ipv4/ip_local_reserved_ports"); got != want || err != nil {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}
