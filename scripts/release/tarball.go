package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// archive is a tar archive whose files are root's, and of one time.
type archive struct {
	*tar.Writer
	time time.Time
	err  error // the first
}

func (a *archive) header(h tar.Header) {
	h.ModTime, h.Format = a.time, tar.FormatUSTAR
	h.Uname, h.Gname = "root", "root"
	if a.err == nil {
		a.err = a.WriteHeader(&h)
	}
}

func (a *archive) dir(name string) {
	a.header(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755})
}

// link is another name of a file that the archive has.
func (a *archive) link(name, to string) {
	a.header(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o755})
}

func (a *archive) file(name string, mode int64, content []byte) {
	a.header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))})
	if a.err == nil {
		_, a.err = a.Write(content)
	}
}

// copy has the content of a file here.
func (a *archive) copy(name string, mode int64, from string) {
	content, err := os.ReadFile(from)
	a.err = errors.Join(a.err, err)
	a.file(name, mode, content)
}

// tgz is a compressed archive of what fill puts in.
func (m *maker) tgz(fill func(*archive)) ([]byte, error) {
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	a := &archive{Writer: tar.NewWriter(zip), time: m.time}
	fill(a)
	err = errors.Join(a.err, a.Close(), zip.Close())
	return out.Bytes(), err
}

// plain makes the tarball that is named and laid out as the reference's: the plugins without a directory.
func (m *maker) plain(arch string) error {
	content, err := m.tgz(func(a *archive) {
		a.dir("./")
		m.put(a, arch, "./")
		a.copy("./LICENSE", 0o644, filepath.Join(m.root, "LICENSE"))
		a.copy("./README.md", 0o644, filepath.Join(m.root, "README.md"))
	})
	if err != nil {
		return err
	}
	return m.write("cni-plugins-linux-"+arch+"-v"+m.version+".tgz", content)
}

// put adds the plugins: one file, under all names.
func (m *maker) put(a *archive, arch, dir string) {
	first := dir + m.plugins[0]
	a.copy(first, 0o755, m.program(arch, "cni"))
	for _, name := range m.plugins[1:] {
		a.link(dir+name, first)
	}
}

// full makes the tarball with the operator's command, for those who install by it.
func (m *maker) full(arch string) error {
	top := fmt.Sprintf("netcleat-v%s/", m.version)
	content, err := m.tgz(func(a *archive) {
		a.dir(top)
		a.copy(top+"netcleat", 0o755, m.program(arch, "netcleat"))
		a.copy(top+"cni", 0o755, m.program(arch, "cni"))
		for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
			a.copy(top+name, 0o644, filepath.Join(m.root, name))
		}
		for _, d := range m.documents() {
			for _, path := range d.files {
				a.copy(top+d.name+"/"+d.rename(path), 0o644, path)
			}
		}
	})
	if err != nil {
		return err
	}
	return m.write("netcleat-linux-"+arch+"-v"+m.version+".tgz", content)
}

// document is a directory of files that come with the command.
type document struct {
	name   string // in the tarball
	dest   string // in packages
	files  []string
	rename func(path string) string
}

// documents are the manual, completions, systemd's units and examples.
func (m *maker) documents() []document {
	base := filepath.Base
	completion := func(to string) func(string) string { return func(string) string { return to } }
	units := slices.Concat(m.glob("docs/systemd/*.service"), m.glob("docs/systemd/*.socket"))
	return []document{
		{"man", "/usr/share/man/man8", m.globWork("man/*.8"), base},
		{"completions/bash", "/usr/share/bash-completion/completions", m.globWork("completions/bash"), completion("netcleat")},
		{"completions/zsh", "/usr/share/zsh/vendor-completions", m.globWork("completions/zsh"), completion("_netcleat")},
		{"completions/fish", "/usr/share/fish/vendor_completions.d", m.globWork("completions/fish"), completion("netcleat.fish")},
		{"systemd", "/usr/lib/systemd/system", units, base},
		{"examples", "/usr/share/doc/netcleat/examples", m.glob("conflist-examples/*.conflist"), base},
	}
}

func (m *maker) glob(pattern string) []string { return sorted(filepath.Join(m.root, pattern)) }

func (m *maker) globWork(pattern string) []string { return sorted(filepath.Join(m.work, pattern)) }

func sorted(pattern string) []string {
	found, _ := filepath.Glob(pattern) // a pattern that is good
	slices.Sort(found)
	return found
}
