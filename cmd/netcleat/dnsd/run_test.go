package dnsd

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Only a process that has the lock file open is told to end: the number of a daemon
// that was killed may be another process's by now.
func TestTerminate(t *testing.T) {
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	start := func(files ...*os.File) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "sleep", "1000")
		cmd.ExtraFiles = files
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd
	}
	stranger, holder := start(), start(lock)
	terminate(stranger.Process.Pid, lock)
	terminate(holder.Process.Pid, lock)
	if err := holder.Wait(); err == nil {
		t.Error("the holder ended by itself")
	}
	if err := stranger.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("a process without the lock was ended: %v", err)
	}
	_ = stranger.Process.Kill()
	if state, err := stranger.Process.Wait(); err != nil || state.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
		t.Errorf("stranger: %v, %v: want the test's own SIGKILL", state, err)
	}
}
