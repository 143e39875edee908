// Command demo attaches two throw-away containers to a network of
// conflist-examples as a runtime does, shows what that makes, detaches them, and
// shows that nothing is left.
//
// It does so on a host of its own, a network and a mount namespace, and touches
// nothing of this machine's.
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
	if err := programs(); err != nil {
		return err
	}
	return enter(ctx)
}

// programs says which programs are missing, with the package of each.
func programs() error {
	var errs []error
	for _, p := range []struct{ program, pkg string }{{"ip", "iproute2"}, {"nft", "nftables"}, {"ping", "iputils-ping"}} {
		if _, err := exec.LookPath(p.program); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing: apt-get install %s", p.program, p.pkg))
		}
	}
	return errors.Join(errs...)
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

// furnish makes the demo's host empty where plugins write, and gives it a
// neighbour that stands for the world.
func furnish(ctx context.Context) error {
	for _, path := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
	}
	if err := features(ctx); err != nil {
		return err
	}
	return commands(ctx, [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "netns", "add", world},
		{"ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", world},
		{"ip", "addr", "add", hostAddress, "dev", "up0"},
		{"ip", "link", "set", "up0", "up"},
		{"ip", "-n", world, "addr", "add", worldAddress + "/24", "dev", "up0"},
		{"ip", "-n", world, "link", "set", "up0", "up"},
	})
}

// features tries what the demo needs of the kernel and says what is missing.
func features(ctx context.Context) error {
	var errs []error
	for _, f := range []struct {
		name, modules string
		try           [][]string
	}{
		{"bridges", "bridge", [][]string{{"ip", "link", "add", "try0", "type", "bridge"}, {"ip", "link", "del", "try0"}}},
		{"veth pairs", "veth", [][]string{{"ip", "link", "add", "try0", "type", "veth"}, {"ip", "link", "del", "try0"}}},
		{"masquerading by nftables", "nf_tables nft_chain_nat nft_masq", [][]string{
			{"nft", "add table ip try; add chain ip try c { type nat hook postrouting priority 100; }; add rule ip try c masquerade"},
			{"nft", "delete table ip try"},
		}},
	} {
		if err := commands(ctx, f.try); err != nil {
			errs = append(errs, fmt.Errorf("this kernel refuses %s: %w\n  load what is missing (modprobe %s), or use a kernel that has it", f.name, err, f.modules))
		}
	}
	return errors.Join(errs...)
}

// commands runs programs until one fails.
func commands(ctx context.Context, all [][]string) error {
	for _, argv := range all {
		if _, err := output(ctx, argv...); err != nil {
			return err
		}
	}
	return nil
}

// output runs a program and returns what it prints.
func output(ctx context.Context, argv ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%q: %w: %s", argv, err, out)
	}
	return out, nil
}
