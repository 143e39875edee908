package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// DivertedDir is where dpkg puts, inside the directory, the files of packages
// whose names netcleat has taken, such as those of kubernetes-cni.
const DivertedDir = ".netcleat-diverted"

// holder is who a diversion is made for, and the name of our own package.
const holder = "netcleat"

// claim is a name that a package owns.
type claim struct {
	name
	pkg      string
	diverted bool // by netcleat: an upgrade of the package leaves the name alone
}

// claims returns the names in the directory that dpkg knows as a package's. None
// where there is no dpkg, or no such directory.
func (o Options) claims(ctx context.Context, all []name) ([]claim, error) {
	dir, err := o.realDir()
	if errors.Is(err, fs.ErrNotExist) || len(all) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	paths := make([]string, len(all))
	for i, n := range all {
		paths[i] = filepath.Join(dir, n.name)
	}
	out, err := tool(ctx, "dpkg-query", append([]string{"--search"}, paths...)...)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil
	}
	// It fails where it does not know one of them. What it knows it says all the same.
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		return nil, err
	}
	var found []claim
	for i, n := range all {
		c := claim{name: n}
		for line := range strings.Lines(out) {
			who, path, ok := strings.Cut(strings.TrimSpace(line), ": ")
			switch {
			case !ok || path != paths[i]:
			case who == "diversion by "+holder+" from":
				c.diverted = true
			case !strings.HasPrefix(who, "diversion by ") && !strings.HasPrefix(who, "local diversion"):
				c.pkg, _, _ = strings.Cut(who, ":")
			}
		}
		if c.pkg != "" && c.pkg != holder || c.diverted {
			found = append(found, c)
		}
	}
	return found, nil
}

// owned are the names of packages that would overwrite netcleat's when they are
// upgraded.
func (o Options) owned(ctx context.Context, all []name) ([]claim, error) {
	found, err := o.claims(ctx, all)
	return slices.DeleteFunc(found, func(c claim) bool { return c.diverted }), err
}

// realDir is the directory's path as dpkg knows it.
func (o Options) realDir() (string, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// divert has dpkg put the packages' files elsewhere from now on, and keeps there
// those that are replaced now. Whatever it is interrupted at, the names stay as
// they are.
func (o Options) divert(ctx context.Context, owned []claim) error {
	if len(owned) == 0 {
		return nil
	}
	dir, err := o.realDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, DivertedDir), 0o755); err != nil {
		return err
	}
	for _, c := range owned {
		if c.owner == ours || c.owner == nobody {
			continue
		}
		to := filepath.Join(dir, DivertedDir, c.name.name)
		if err := errors.Join(remove(to), linkOrCopy(filepath.Join(dir, c.name.name), to)); err != nil {
			return err
		}
	}
	for _, c := range owned {
		at := filepath.Join(dir, c.name.name)
		if _, err := tool(ctx, "dpkg-divert", "--package", holder, "--add", "--no-rename", "--divert", filepath.Join(dir, DivertedDir, c.name.name), at); err != nil {
			return err
		}
	}
	return nil
}

func (o Options) reportOwned(owned []claim) error {
	done := "diverted"
	if o.DryRun {
		done = "would be diverted"
	}
	for pkg, names := range byPackage(owned) {
		if _, err := fmt.Fprintf(o.Out, "%d files of package %s %s to %s: its upgrades leave these plugins alone\n", len(names), pkg, done, filepath.Join(o.Dir, DivertedDir)); err != nil {
			return err
		}
	}
	return nil
}

func byPackage(all []claim) map[string][]string {
	m := map[string][]string{}
	for _, c := range all {
		m[c.pkg] = append(m[c.pkg], c.name.name)
	}
	return m
}

// tool runs a program of the system and returns what it prints, also where it
// fails.
func tool(ctx context.Context, argv0 string, args ...string) (string, error) {
	path, err := exec.LookPath(argv0)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", argv0, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
