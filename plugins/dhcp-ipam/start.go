package dhcp

import (
	"fmt"
	"os"
	"syscall"

	"github.com/netcleat/netcleat/pkg/command"
)

// StartDaemon replaces this process by `netcleat dhcp daemon` with the arguments
// that followed `dhcp daemon`, as the reference's plugin takes them. It is
// another program: what the daemon needs would cost every plugin's start. It
// returns only where there is none, beside this one or on PATH.
func StartDaemon(args []string) error {
	path, err := command.Path()
	if err != nil {
		return fmt.Errorf("dhcp daemon: %w", err)
	}
	err = syscall.Exec(path, append([]string{command.Name, "dhcp", "daemon"}, args...), os.Environ())
	return fmt.Errorf("dhcp daemon: %s: %w", path, err)
}
