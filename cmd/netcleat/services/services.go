// Package services has systemd start what runs all the time, or after others: the
// daemons, and the restoration of rules.
package services

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/docs/systemd"
)

// Options say for which host.
type Options struct {
	Root    string // "/", but for tests
	Command string // the operator's command, for the units
	Out     io.Writer
}

// mark is the first line of what Enable writes.
const mark = "# Written by netcleat install --enable, which --uninstall reverses.\n"

// prefix begins the names of all units.
const prefix = "netcleat-"

// Names are the services that there are.
func Names() []string {
	var names []string
	for _, unit := range units() {
		names = append(names, service(unit))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// service is the name of the service that a unit is part of.
func service(unit string) string {
	name := strings.TrimPrefix(unit, prefix)
	return name[:strings.IndexAny(name, "-.")]
}

// units are the files of all services.
func units() (names []string) {
	entries, _ := systemd.Units.ReadDir(".") // it is there
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// of are the units of a service.
func of(name string) []string {
	return slices.DeleteFunc(units(), func(unit string) bool { return service(unit) != name })
}

// Enable has systemd start the services, now and after each boot. It writes those
// units that the host does not have.
func Enable(ctx context.Context, o Options, names []string) error {
	var all []string
	for _, name := range names {
		if len(of(name)) == 0 {
			return fmt.Errorf("service %q: none of %s", name, strings.Join(Names(), ", "))
		}
		all = append(all, of(name)...)
	}
	if _, err := exec.LookPath("systemctl"); err != nil {
		return fmt.Errorf("services are enabled by systemd: %w", err)
	}
	for _, unit := range all {
		if err := o.write(unit); err != nil {
			return err
		}
	}
	if err := o.systemctl(ctx, "enable", all...); err != nil {
		return err
	}
	return o.say("enabled", all)
}

// Disable stops the services whose units Enable wrote, and removes these.
func Disable(ctx context.Context, o Options) error {
	var ours []string
	for _, unit := range units() {
		if b, err := os.ReadFile(o.own(unit)); err == nil && strings.HasPrefix(string(b), mark) {
			ours = append(ours, unit)
		}
	}
	if len(ours) == 0 {
		return nil
	}
	if err := o.systemctl(ctx, "disable", ours...); err != nil {
		return err
	}
	var errs []error
	for _, unit := range ours {
		errs = append(errs, os.Remove(o.own(unit)))
	}
	if o.running() {
		errs = append(errs, run(ctx, "daemon-reload"))
	}
	return errors.Join(append(errs, o.say("disabled", ours))...)
}

// own is where Enable writes a unit.
func (o Options) own(unit string) string { return filepath.Join(o.Root, "etc/systemd/system", unit) }

// write writes a unit, unless a package or the administrator has.
func (o Options) write(unit string) error {
	for _, dir := range []string{"usr/lib/systemd/system", "lib/systemd/system"} {
		if _, err := os.Stat(filepath.Join(o.Root, dir, unit)); err == nil {
			return nil
		}
	}
	old, err := os.ReadFile(o.own(unit))
	if err == nil && !strings.HasPrefix(string(old), mark) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := systemd.Units.ReadFile(unit)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.own(unit)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.own(unit), []byte(mark+strings.ReplaceAll(string(text), systemd.Command, o.Command)), 0o644) //nolint:gosec // as units are
}

// running reports whether the host runs systemd: where it does not, as in a
// chroot, services start with the next boot.
func (o Options) running() bool {
	_, err := os.Stat(filepath.Join(o.Root, "run/systemd/system"))
	return err == nil
}

func (o Options) systemctl(ctx context.Context, verb string, units ...string) error {
	if !o.running() {
		return run(ctx, append([]string{"--root=" + o.Root, verb}, units...)...)
	}
	if err := run(ctx, "daemon-reload"); err != nil {
		return err
	}
	return run(ctx, append([]string{verb, "--now"}, units...)...)
}

func (o Options) say(what string, units []string) error {
	when := ""
	if !o.running() && what == "enabled" {
		when = ", from the next boot on: systemd is not running"
	}
	_, err := fmt.Fprintf(o.Out, "%s %s%s\n", what, strings.Join(units, ", "), when)
	return err
}

func run(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
