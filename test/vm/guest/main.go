// Command guest is the init of the test VM: it builds a root out of the host's files, runs the job and powers off.
//
// It is started twice. As process 1 it mounts, changes its root and then only waits, so that orphans of tests do not stay
// zombies; as its own child, with the argument "run", it does the job. The kernel's threads share the root of process 1, which
// is how modprobe, started by the kernel on demand, finds the host's files too.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		run()
		return
	}
	if err := boot(); err != nil {
		fmt.Fprintln(os.Stderr, "netcleat: init:", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "netcleat: power off:", err)
	}
}

// boot prepares the guest and returns when the job has ended.
func boot() error {
	j, err := job.Read(job.Path)
	if err != nil {
		return err
	}
	in, err := os.Open(job.Path)
	if err != nil {
		return err
	}
	for _, file := range j.Early {
		if err := loadModule(file); err != nil {
			return err
		}
	}
	if err := enterRoot(j); err != nil {
		return err
	}
	return superviseRun(in)
}

// superviseRun starts this program again to do the job, and reaps whatever dies until that one does.
func superviseRun(in *os.File) error {
	p, err := os.StartProcess("/proc/self/exe", []string{"guest", "run"}, &os.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []*os.File{in, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("start run: %w", err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		if pid != p.Pid {
			continue
		}
		if status.ExitStatus() != 0 {
			return fmt.Errorf("run: status %#x", int(status))
		}
		return nil
	}
}
