package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/netcleat/netcleat/cmd/netcleat/doctor"
	"github.com/netcleat/netcleat/cmd/netcleat/finding"
)

// Check prints what stands under the plugins' names, and returns what is wrong
// with it. It changes nothing.
func Check(ctx context.Context, o Options) ([]doctor.Finding, error) {
	names, err := pluginNames(ctx, o.Plugins)
	if err != nil {
		return nil, err
	}
	all, err := o.look(ctx, names)
	if err != nil {
		return nil, err
	}
	claims, err := o.claims(ctx, all)
	if err != nil {
		return nil, err
	}
	if err := o.table(all, claims); err != nil {
		return nil, err
	}
	return slices.Concat(o.suites(all), o.packages(claims), o.remains()), nil
}

// table prints a line for each name.
func (o Options) table(all []name, claims []claim) error {
	packages := map[string]string{}
	for _, c := range claims {
		packages[c.name.name] = c.pkg
		if c.diverted {
			packages[c.name.name] += " (diverted)"
		}
	}
	w := tabwriter.NewWriter(o.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "PLUGIN\tIN %s\tCHECKSUM\tPACKAGE\n", o.Dir)
	for _, n := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.name, n.occupant, n.short(), strings.TrimSpace(packages[n.name]))
	}
	return w.Flush()
}

// suites tells which suites the plugins are of.
func (o Options) suites(all []name) []doctor.Finding {
	of := map[owner][]string{}
	versions := map[string]bool{}
	stale := 0
	for _, n := range all {
		of[n.owner] = append(of[n.owner], n.name)
		if n.owner == ours {
			versions[n.version] = true
		}
		if n.owner == ours && !n.upToDate {
			stale++
		}
	}
	mend := finding.Run("netcleat install " + finding.Quote(o.Dir))
	found := func(l finding.Level, mend finding.Mend, format string, args ...any) []doctor.Finding {
		return []doctor.Finding{{Level: l, What: o.Dir + ": " + fmt.Sprintf(format, args...), Mend: mend}}
	}
	list := func(who owner) string { return strings.Join(of[who], ", ") }
	switch {
	case len(of[ours]) == 0:
		return found(finding.Problem, mend, "none of the plugins is netcleat's")
	case len(of[reference]) > 0:
		return found(finding.Problem, mend, "mixed suites: the reference's are %s", list(reference))
	case len(of[foreign]) > 0:
		return found(finding.Problem, finding.Do("netcleat install --force --backup replaces them"), "neither netcleat's nor the reference's: %s", list(foreign))
	case len(of[nobody]) > 0:
		return found(finding.Problem, mend, "missing: %s", list(nobody))
	case len(versions) > 1:
		return found(finding.Problem, mend, "plugins of several versions: %s", strings.Join(slices.Sorted(maps.Keys(versions)), ", "))
	case stale > 0:
		return found(finding.Warning, mend, "%d plugins are not of the build that this command came with", stale)
	}
	return found(finding.Fine, finding.Mend{}, "all %d plugins are netcleat's %s", len(all), all[0].version)
}

// packages tells which packages would overwrite the plugins.
func (o Options) packages(claims []claim) (found []doctor.Finding) {
	free := slices.DeleteFunc(slices.Clone(claims), func(c claim) bool { return c.diverted })
	by := byPackage(free)
	for _, pkg := range slices.Sorted(maps.Keys(by)) {
		found = append(found, doctor.Finding{
			Level: finding.Warning, Mend: finding.Run("netcleat install " + finding.Quote(o.Dir)),
			What: fmt.Sprintf("%s: package %s owns %d of the names: its next upgrade brings its plugins back", o.Dir, pkg, len(by[pkg])),
		})
	}
	if n := len(claims) - len(free); n > 0 {
		found = append(found, doctor.Finding{Level: finding.Fine, What: fmt.Sprintf("%s: dpkg diverts %d names: upgrades leave them alone", o.Dir, n)})
	}
	return found
}

// remains tells of what installations have left in the directory.
func (o Options) remains() (found []doctor.Finding) {
	half, _ := filepath.Glob(o.path(tempPrefix + "*")) // a pattern that is good, unless the name has meaning
	if len(half) > 0 {
		found = append(found, doctor.Finding{
			Level: finding.Note, What: fmt.Sprintf("%s: an installation was interrupted", o.Dir), Mend: finding.Run("netcleat install " + finding.Quote(o.Dir)),
		})
	}
	if kept, err := o.backups(); err == nil && len(kept) > 0 {
		found = append(found, doctor.Finding{Level: finding.Note, What: fmt.Sprintf("%s: backups of earlier plugins: %d (--restore, --uninstall)", o.Dir, len(kept))})
	}
	return found
}

// directories are where runtimes look for plugins by default.
var directories = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/local/libexec/cni"}

// Directories returns those of the directories of plugins that this host has.
func Directories() ([]string, error) {
	var found []string
	for _, dir := range directories {
		switch _, err := os.Stat(filepath.Join(dir, "bridge")); {
		case err == nil:
			found = append(found, dir)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no plugins in %s: name a directory", strings.Join(directories, ", "))
	}
	return found, nil
}
