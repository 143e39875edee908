package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// leftBehind is how long a process that a test left behind may hold the test's output open.
const leftBehind = 10 * time.Second

// run does the job on standard input; what goes wrong is an event, and without a port for events a line on the console.
func run() {
	j, err := job.Read("/dev/stdin")
	if err != nil {
		fmt.Fprintln(os.Stderr, "netcleat: job:", err)
		return
	}
	port, err := openPort()
	if err != nil {
		fmt.Fprintln(os.Stderr, "netcleat: port:", err)
		return
	}
	defer port.Close()
	events := json.NewEncoder(port)
	if err := do(j, events); err != nil {
		report(events, job.Event{Fault: err.Error()})
		return
	}
	report(events, job.Event{Done: true})
}

// report sends one event. A lost event is not silent: the host misses the end of the job.
func report(events *json.Encoder, e job.Event) {
	if err := events.Encode(e); err != nil {
		fmt.Fprintln(os.Stderr, "netcleat: event:", err)
	}
}

func do(j *job.Job, events *json.Encoder) error {
	if err := prepare(j); err != nil {
		return err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	report(events, job.Event{Ready: time.Duration(up.Nano())})
	if j.Shell {
		return shell(j.Repo)
	}
	for _, t := range j.Tests {
		report(events, job.Event{Package: t.Package, Exit: runTest(j, t, events)})
	}
	return nil
}

// prepare brings the guest to the state of a host on which somebody could start a container.
func prepare(j *job.Job) error {
	for key, value := range environment() {
		if err := os.Setenv(key, value); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte("netcleat-vm")); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	for _, argv := range [][]string{
		append([]string{"modprobe", "-a"}, j.Modules...),
		{"ip", "link", "set", "lo", "up"},
	} {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func environment() map[string]string {
	return map[string]string{
		"PATH":         "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":         "/root",
		"USER":         "root",
		"LANG":         "C.UTF-8",
		"TERM":         "linux",
		job.EnvRequire: strings.Join(job.Features, ","),
	}
}

// runTest runs one test binary in its package's directory and passes on what it prints.
func runTest(j *job.Job, t job.Test, events *json.Encoder) *job.Exit {
	mark(t.Package)
	start := time.Now()
	args := []string{"-test.v=test2json", "-test.paniconexit0", "-test.timeout=" + j.Timeout.String()}
	if t.Run != "" {
		args = append(args, "-test.run="+t.Run)
	}
	// The binary ends itself at its timeout, with a stack of each goroutine; the context is for one that cannot.
	ctx, cancel := context.WithTimeout(context.Background(), j.Timeout+leftBehind)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.Binary, args...)
	cmd.Dir = t.Dir
	cmd.Env = append(os.Environ(), "PWD="+t.Dir)
	cmd.Stdout = &output{t.Package, events}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = leftBehind
	err := cmd.Run()
	exit := &job.Exit{Elapsed: time.Since(start)}
	if errors.Is(err, exec.ErrWaitDelay) {
		exit.Status = "a process it started holds its output open"
		return exit
	}
	if err != nil {
		exit.Status = err.Error()
	}
	return exit
}

// output turns what a test binary prints into events.
type output struct {
	pkg    string
	events *json.Encoder
}

func (o *output) Write(b []byte) (int, error) {
	if err := o.events.Encode(job.Event{Package: o.pkg, Output: b}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// mark writes into the kernel's log whose lines follow, so that a warning of the kernel has a name beside it.
func mark(pkg string) {
	if err := os.WriteFile("/dev/kmsg", []byte("<4>netcleat: run "+pkg+"\n"), 0); err != nil {
		fmt.Fprintln(os.Stderr, "netcleat: mark:", err)
	}
}

// shell gives the serial console to a shell in dir until that ends.
func shell(dir string) error {
	console, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer console.Close()
	cmd := exec.Command("/bin/bash", "-i")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
	cmd.Dir = dir
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("shell: %w", err)
	}
	return nil
}

// openPort opens the virtio port that leads to the runner. The port is announced after its driver has been loaded, so this
// listens to the kernel's announcements before it looks.
func openPort() (*os.File, error) {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	defer unix.Close(s)
	if err := unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	wait := unix.NsecToTimeval(int64(30 * time.Second))
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	buf := make([]byte, 1<<16)
	for {
		ports, err := filepath.Glob("/dev/vport*")
		if err != nil {
			return nil, err
		}
		if len(ports) > 0 {
			// Blocking, unlike os.OpenFile: a write returns when the host has it, so nothing is lost at power-off.
			fd, err := unix.Open(ports[0], unix.O_WRONLY|unix.O_CLOEXEC, 0)
			return os.NewFile(uintptr(fd), ports[0]), err
		}
		if _, _, err := unix.Recvfrom(s, buf, 0); err != nil {
			return nil, fmt.Errorf("/dev/vport*: %w", err)
		}
	}
}
