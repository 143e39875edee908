package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/install"
)

func installCommand() *cobra.Command {
	var o install.Options
	var restore bool
	c := &cobra.Command{
		Use:   "install DIR",
		Short: "Install the plugins into DIR",
		Long: `Install the plugin binary into DIR (usually /opt/cni/bin) under the names of all its plugins.
Each name is replaced by one rename: a runtime that calls a plugin at the same time runs
either the old or the new file, and running calls are not affected.

If DIR has a file with one of these names that is neither netcleat's nor the reference's
(containernetworking/plugins), nothing is replaced.`,
		Example: `  netcleat install --dry-run /opt/cni/bin
  netcleat install --backup /opt/cni/bin
  netcleat install --restore /opt/cni/bin`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			o.Dir, o.Out = args[0], c.OutOrStdout()
			if restore {
				return install.Restore(c.Context(), o)
			}
			if o.Plugins == "" {
				if o.Plugins, err = beside(); err != nil {
					return err
				}
			}
			return install.Install(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Plugins, "plugins", "", "the plugin binary; by default the file cni beside this command")
	f.BoolVar(&o.DryRun, "dry-run", false, "say what would be done, and do nothing")
	f.BoolVar(&o.Force, "force", false, "replace also files that are neither netcleat's nor the reference's")
	f.BoolVar(&o.Backup, "backup", false, "keep what is replaced in DIR/"+install.BackupDir)
	f.BoolVar(&restore, "restore", false, "put the newest backup back, and remove it")
	c.MarkFlagsMutuallyExclusive("backup", "restore")
	c.MarkFlagsMutuallyExclusive("plugins", "restore")
	return c
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
