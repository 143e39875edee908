package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/doctor"
	"github.com/netcleat/netcleat/cmd/netcleat/install"
	"github.com/netcleat/netcleat/cmd/netcleat/services"
)

// installation is what the flags of netcleat install ask for.
type installation struct {
	install.Options
	restore, check, uninstall bool
	enable                    []string
}

func installCommand() *cobra.Command {
	var in installation
	c := &cobra.Command{
		Use:   "install [DIR]",
		Short: "Install the plugins into DIR, check them, remove them",
		Long: `Install the plugin binary into DIR (usually /opt/cni/bin) under the names of all its plugins.
Each name is replaced by one rename: a runtime that calls a plugin at the same time runs
either the old or the new file, and running calls are not affected.

If DIR has a file with one of these names that is neither netcleat's nor the reference's
(containernetworking/plugins), nothing is replaced. If a Debian package owns files with
these names, such as kubernetes-cni on a kubeadm node, dpkg is told to put its files into
DIR/` + install.DivertedDir + ` from now on (dpkg-divert): its upgrades do not bring the
reference's plugins back.

--check prints what is in DIR and what is wrong with it: mixed suites and versions, packages
that would overwrite the plugins; and what will not work on this host, and why. Without DIR
it checks all usual directories that have plugins. The exit status is 0 without problems.

--uninstall removes the plugins, and puts back what was there before the first installation:
the files of a package that were diverted, and those of --backup. Containers keep their
network, but a runtime needs plugins to detach them.

--enable has systemd start services, such as --enable dhcp,reconcile. It needs no DIR.`,
		Example: `  netcleat install --dry-run /opt/cni/bin
  netcleat install --backup /opt/cni/bin
  netcleat install --check /opt/cni/bin
  netcleat install --restore /opt/cni/bin
  netcleat install --uninstall /opt/cni/bin`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return in.run(c, args) },
	}
	f := c.Flags()
	f.StringVar(&in.Plugins, "plugins", "", "the plugin binary; by default the file cni in the directory of this command")
	f.BoolVar(&in.DryRun, "dry-run", false, "print what would be done, and do nothing")
	f.BoolVar(&in.Force, "force", false, "replace also files that are neither netcleat's nor the reference's")
	f.BoolVar(&in.Backup, "backup", false, "keep what is replaced in DIR/"+install.BackupDir)
	f.BoolVar(&in.restore, "restore", false, "put the newest backup back, and remove it")
	f.BoolVar(&in.check, "check", false, "only print what is installed, and what will not work on this host")
	f.BoolVar(&in.uninstall, "uninstall", false, "remove the plugins, and put back what was there before them")
	f.StringSliceVar(&in.enable, "enable", nil, "services that systemd starts: "+strings.Join(services.Names(), ", "))
	c.MarkFlagsMutuallyExclusive("backup", "restore", "check", "uninstall")
	c.MarkFlagsMutuallyExclusive("plugins", "restore")
	c.MarkFlagsMutuallyExclusive("enable", "restore", "check", "uninstall")
	return c
}

func (in *installation) run(c *cobra.Command, args []string) (err error) {
	in.Out = c.OutOrStdout()
	if in.Plugins == "" && !in.restore && !in.uninstall && (in.check || len(args) > 0) {
		if in.Plugins, err = beside(); err != nil {
			return err
		}
	}
	if in.check {
		return in.examine(c, args)
	}
	if len(args) == 0 && len(in.enable) == 0 {
		return errors.New("the directory is missing, such as /opt/cni/bin")
	}
	if len(args) > 0 {
		in.Dir = args[0]
		if err := in.change(c.Context()); err != nil {
			return err
		}
	}
	if len(in.enable) > 0 && !in.DryRun {
		return enable(c, in.enable)
	}
	return nil
}

// change installs, or goes back.
func (in *installation) change(ctx context.Context) error {
	switch {
	case in.restore:
		return install.Restore(ctx, in.Options)
	case in.uninstall && in.DryRun:
		return install.Uninstall(ctx, in.Options)
	case in.uninstall:
		return errors.Join(install.Uninstall(ctx, in.Options), services.Disable(ctx, services.Options{Root: "/", Out: in.Out}))
	}
	return install.Install(ctx, in.Options)
}

// examine checks the directories and the host.
func (in *installation) examine(c *cobra.Command, dirs []string) (err error) {
	if len(dirs) == 0 {
		if dirs, err = install.Directories(); err != nil {
			return err
		}
	}
	var found []doctor.Finding
	for _, in.Dir = range dirs {
		here, err := install.Check(c.Context(), in.Options)
		if err != nil {
			return err
		}
		found = append(found, here...)
	}
	if n := doctor.Print(in.Out, append(found, doctor.Preflight()...)); n > 0 {
		return fmt.Errorf("%d problems", n)
	}
	return nil
}

func enable(c *cobra.Command, names []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("own path: %w", err)
	}
	return services.Enable(c.Context(), services.Options{Root: "/", Command: self, Out: c.OutOrStdout()}, names)
}

// pauseCommand is the container of the image that stays when the plugins are
// installed.
func pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pause", Short: "Wait for a signal", Hidden: true, Args: cobra.NoArgs,
		Long: "Wait for SIGINT or SIGTERM, as the container of a DaemonSet does that has nothing left to do.",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			<-ctx.Done()
			return nil
		},
	}
}

// beside returns the path of the plugin binary that was built with this command.
func beside() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("own path: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", fmt.Errorf("own path: %w", err)
	}
	path := filepath.Join(filepath.Dir(self), "cni")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("plugin binary: %w (--plugins FILE names another)", err)
	}
	return path, nil
}
