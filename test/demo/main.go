// Command demo attaches two throw-away containers to a network of
// conflist-examples as a runtime does, shows what that makes, detaches them, and
// shows that nothing is left.
//
// It does so on a host of its own, a network and a mount namespace, and touches
// nothing of this machine's. It takes Go, root and the kernel, and no other program.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// inside is set where the process runs on the demo's own host.
const inside = "NETCLEAT_DEMO_INSIDE"

// options is the command line.
type options struct {
	conflist string
	plugins  string // a directory; "" is what was built
	netcleat string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := run(ctx, parseFlags())
	stop()
	if err != nil && !errors.Is(err, errSaid) {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	if err != nil {
		os.Exit(1)
	}
}

// errSaid is the error of a run that has told its reason already.
var errSaid = errors.New("the demo failed")

func parseFlags() options {
	var o options
	flag.StringVar(&o.conflist, "conflist", "conflist-examples/bridge-nat.conflist", "the network")
	flag.StringVar(&o.netcleat, "netcleat", "bin/netcleat", "the command that installs the plugins")
	flag.StringVar(&o.plugins, "plugins", "", "use the plugins of this directory and install none")
	flag.Parse()
	return o
}

func run(ctx context.Context, o options) error {
	if os.Getenv(inside) != "" {
		return show(ctx, o)
	}
	return enter(ctx)
}

// enter runs this program again on a host of its own.
func enter(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces take root: sudo make demo")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return errSaid
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("new network namespace: %w: root without CAP_SYS_ADMIN; in a container, run that with --privileged", err)
	}
	return err
}

// output runs a program and returns what it prints.
func output(ctx context.Context, argv ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%q: %w: %s", argv, err, out)
	}
	return out, nil
}
