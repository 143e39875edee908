package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // formats
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// format is one of packages.
type format struct {
	name string
	cni  string // where the distribution's plugins are
	// installs are the scripts that run when the package is installed, before it is removed and after that.
	after, before, removed string
}

var formats = []format{
	{"deb", "/usr/lib/cni", "deb/postinst", "deb/prerm", "deb/postrm"},
	{"rpm", "/usr/libexec/cni", "rpm/post", "rpm/preun", "rpm/postun"},
}

// packages makes the packages of one platform.
func (m *maker) packages(arch string) error {
	var errs []error
	for _, f := range formats {
		info := m.info(arch, f)
		packager, err := nfpm.Get(f.name)
		if err != nil {
			return err
		}
		var content bytes.Buffer
		if err := errors.Join(nfpm.Validate(nfpm.WithDefaults(info)), packager.Package(info, &content)); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		errs = append(errs, m.write(packager.ConventionalFileName(info), content.Bytes()))
	}
	return errors.Join(errs...)
}

// info says what is in a package. Its plugins are one file in their directory, and links to it: named so that it
// sorts before the links, as a package manager must have put it there first.
func (m *maker) info(arch string, f format) *nfpm.Info {
	named := arch
	if arch == "arm" {
		named = "arm6"
	}
	script := func(name string) string { return filepath.Join(m.root, "deploy/package", name) }
	info := &nfpm.Info{
		Name: "netcleat", Arch: named, Platform: "linux", Version: m.version, VersionSchema: "none", Release: "1", MTime: m.time,
		Section: "net", Priority: "optional", Maintainer: "The netcleat authors <netcleat@users.noreply.github.com>",
		Homepage: project, License: "Apache-2.0",
		Description: `CNI plugins in one small program, and a command to operate them
Replaces the plugins of containernetworking-plugins, with the same names,
configuration and state. The command netcleat creates networks, shows what the
plugins made, finds problems and fixes them.`,
		Overridables: nfpm.Overridables{
			Provides: []string{"containernetworking-plugins"}, Replaces: []string{"containernetworking-plugins"},
			Conflicts: []string{"containernetworking-plugins"},
			Contents:  m.contents(arch, f),
			Scripts:   nfpm.Scripts{PostInstall: script(f.after), PreRemove: script(f.before), PostRemove: script(f.removed)},
		},
	}
	if f.name == "deb" {
		info.Release = ""
		// What podman needs is a container-network-stack: without it, its installation would remove netcleat.
		info.Provides = []string{"containernetworking-plugins (= " + m.version + ")", "container-network-stack"}
	}
	if slices.Contains(m.plugins, "dnsname") {
		const other = "golang-github-containernetworking-plugin-dnsname"
		info.Replaces, info.Conflicts = append(info.Replaces, other), append(info.Conflicts, other)
	}
	info.Deb.Fields = map[string]string{"Multi-Arch": "foreign"}
	info.RPM.BuildHost = "netcleat"
	return info
}

func (m *maker) contents(arch string, f format) (all files.Contents) {
	add := func(dest, source string, mode os.FileMode) {
		all = append(all, &files.Content{Source: source, Destination: dest, FileInfo: &files.ContentFileInfo{Mode: mode, MTime: m.time}})
	}
	link := func(dest, to string) {
		all = append(all, &files.Content{Source: to, Destination: dest, Type: files.TypeSymlink, FileInfo: &files.ContentFileInfo{MTime: m.time}})
	}
	const own = ".netcleat"
	add(f.cni+"/"+own, m.program(arch, "cni"), 0o755)
	for _, name := range m.plugins {
		link(f.cni+"/"+name, own)
	}
	add("/usr/lib/netcleat/netcleat", m.program(arch, "netcleat"), 0o755)
	link("/usr/lib/netcleat/cni", strings.Repeat("../", 3)+strings.TrimPrefix(f.cni, "/")+"/"+own)
	link("/usr/bin/netcleat", "../lib/netcleat/netcleat")
	add("/usr/share/doc/netcleat/copyright", filepath.Join(m.root, "LICENSE"), 0o644)
	for _, d := range m.documents() {
		for _, path := range d.files {
			name := d.rename(path)
			switch filepath.Ext(path) {
			case ".8":
				path, name = m.gzipped(path), name+".gz"
			case ".service":
				path = m.unit(path)
			}
			dest := d.dest
			if f.name == "rpm" {
				dest = strings.Replace(dest, "zsh/vendor-completions", "zsh/site-functions", 1)
			}
			add(dest+"/"+name, path, 0o644)
		}
	}
	add("/usr/share/doc/netcleat/changelog.gz", m.gzipped(filepath.Join(m.root, "CHANGELOG.md")), 0o644)
	return all
}

// gzipped compresses a file, as packages have their documents, and returns the new one's path.
func (m *maker) gzipped(path string) string {
	return m.derived(path, ".gz", func(content []byte) []byte {
		var out bytes.Buffer
		zip, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // a level that exists
		_, _ = zip.Write(content)                                 // to memory
		_ = zip.Close()
		return out.Bytes()
	})
}

// unit has a unit of systemd's run the package's command, not one of /usr/local.
func (m *maker) unit(path string) string {
	return m.derived(path, "", func(content []byte) []byte {
		return bytes.ReplaceAll(content, []byte("/usr/local/bin/netcleat"), []byte("/usr/bin/netcleat"))
	})
}

// derived writes what change makes of a file, and returns the new one's path; a path that does not exist where
// that fails, which the packager says.
func (m *maker) derived(path, suffix string, change func([]byte) []byte) string {
	to := filepath.Join(m.work, "derived", filepath.Base(path)+suffix)
	content, err := os.ReadFile(path)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, change(content), 0o644))
	}
	if err != nil {
		return path + ": " + err.Error()
	}
	return to
}
