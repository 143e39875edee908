// Package fault kills the built plugins at every change that they make, has the
// kernel refuse each, and runs them many at a time: no address and no port is
// given away twice, and nothing is left behind.
//
// All of it happens in namespaces that the tests make. A bounded part of the
// cases runs by default, and one in N of all with FAULTS=N (make test-faults). With
// CNI_BIN set the plugins in that directory are judged.
package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside is set in the process that has namespaces of its own.
const inside = "FAULT_HOST"

// share says that one case in so many is to run; 0 is the few of make test.
func share() int {
	s := os.Getenv("FAULTS")
	if s == "all" {
		return 1
	}
	n, err := strconv.Atoi(s)
	if s != "" && (err != nil || n < 1) {
		panic("FAULTS=" + s + ": want a number from 1, one case in which is to run, or all")
	}
	return n
}

// full reports whether this is a campaign, whose results are counted.
func full() bool { return share() > 0 }

// cases says in a row which of the cases there were.
func cases() string {
	if share() == 1 {
		return ""
	}
	return fmt.Sprintf(", one case in %d", share())
}

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		err := furnish()
		if err == nil {
			os.Exit(m.Run())
		}
		fmt.Fprintln(os.Stderr, "host:", err)
		os.Exit(1)
	}
	if os.Getuid() != 0 {
		fmt.Println("test/fault needs root: run make test as root")
		return
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(again())
}

// again runs this program in new namespaces and returns its exit status.
func again() int {
	runtime.LockOSThread() // the child is to end with this thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return cmd.ProcessState.ExitCode()
}

// furnish gives the host empty /run and /var/lib, and a link to the outside.
func furnish() error {
	return output("sh", "-ec", `
		mount --make-rprivate /
		mount -t tmpfs tmpfs /run
		mount -t tmpfs tmpfs /var/lib
		mkdir -p /run/netns /run/lock /var/lib/cni
		ip link set lo up`+lan)
}

// lan is a script that makes a link to the outside.
const lan = `
		ip link add lan0 type veth peer name lan1
		ip addr add 192.0.2.1/24 dev lan0
		ip link set lan0 up
		ip link set lan1 up`

// repo is the repository's root.
const repo = "../.."

// ours is where the built plugins are installed.
var ours = filepath.Join(repo, "build/fault/bin")

// reference is where scripts/reference puts the reference's.
var reference = filepath.Join(repo, "build/reference/bin")

// prepare has the plugins to judge in place.
func prepare() error {
	err := output(filepath.Join(repo, "scripts/reference"))
	if os.Getenv("CNI_BIN") != "" {
		return err
	}
	return errors.Join(err, build())
}

// build builds the plugins and installs them as a user does.
func build() error {
	dir := filepath.Join(repo, "build/fault")
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		output("flock", dir+"/lock", "sh", "-ec", `
			CGO_ENABLED=0 go build -C `+repo+` -o build/fault ./cmd/cni ./cmd/netcleat
			`+dir+`/netcleat install `+ours),
	)
}

// watch looks at every source file, so that go test does not answer from its
// cache when what is judged has changed.
func watch(t *testing.T) {
	t.Helper()
	for _, room := range []string{"cmd", "pkg", "plugins"} {
		err := filepath.WalkDir(filepath.Join(repo, room), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		must(t, err)
	}
}

func output(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", argv[0], err, out)
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
