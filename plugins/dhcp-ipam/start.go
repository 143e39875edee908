package dhcp

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// StartDaemon replaces this process by `netcleat dhcp daemon` with the arguments
// that followed `dhcp daemon`, as the reference's plugin takes them. It is
// another program: what the daemon needs would cost every plugin's start. It
// returns only where there is none, beside this one or on PATH.
func StartDaemon(args []string) error {
	path, err := netcleat()
	if err != nil {
		return fmt.Errorf("dhcp daemon: %w", err)
	}
	err = syscall.Exec(path, append([]string{"netcleat", "dhcp", "daemon"}, args...), os.Environ())
	return fmt.Errorf("dhcp daemon: %s: %w", path, err)
}

func netcleat() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(self), "netcleat")
	if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() {
		return beside, nil
	}
	path, err := exec.LookPath("netcleat")
	if err != nil {
		return "", errors.Join(fmt.Errorf("no netcleat beside %s", self), err)
	}
	return path, nil
}
