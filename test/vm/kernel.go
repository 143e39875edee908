package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kernel is one unpacked kernel package.
type kernel struct {
	Name    string // as in kernels.txt
	Image   string // file
	Modules string // directory, named after the release
}

// chooseKernels reads the list and keeps the kernel that is named, or all of them.
func chooseKernels(file, name string) ([]string, error) {
	entries, err := readEntries(file)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if name == "" || name == e.value {
			all = append(all, e.value)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("kernel %q: not in %s", name, file)
	}
	return all, nil
}

// fetchKernel returns the kernel of a Debian package, unpacked below dir. It downloads what is not there yet, and installs nothing.
func fetchKernel(ctx context.Context, dir, name string) (*kernel, error) {
	pkg, err := resolveKernel(ctx, name)
	if err != nil {
		return nil, err
	}
	tree := filepath.Join(dir, pkg)
	if _, err := os.Stat(tree); err == nil {
		return openKernel(name, tree)
	}
	fmt.Printf("vm: fetch %s\n", pkg)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	partial, err := os.MkdirTemp(dir, ".partial-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(partial)
	if err := unpackKernel(ctx, partial, pkg); err != nil {
		return nil, err
	}
	// The rename makes the tree appear whole. Another runner may have been faster; its tree is as good.
	if err := os.Rename(filepath.Join(partial, "tree"), tree); err != nil && !os.IsExist(err) {
		return nil, err
	}
	return openKernel(name, tree)
}

// unpackKernel downloads pkg (name=version) into dir, unpacks it to dir/tree and indexes its modules.
func unpackKernel(ctx context.Context, dir, pkg string) error {
	if _, err := output(ctx, dir, "apt-get", "download", "-qq", pkg); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("package %s: %d files downloaded", pkg, len(debs))
	}
	if _, err := output(ctx, dir, "dpkg-deb", "--extract", debs[0], "tree"); err != nil {
		return err
	}
	k, err := openKernel(pkg, filepath.Join(dir, "tree"))
	if err != nil {
		return err
	}
	if err := decompress(ctx, k.Modules); err != nil {
		return err
	}
	_, err = output(ctx, dir, "depmod", "--basedir", "tree", filepath.Base(k.Modules))
	return err
}

// decompress unpacks the modules, once here instead of at every boot, where it takes half of the time.
func decompress(ctx context.Context, modules string) error {
	argv := []string{"xz", "--decompress", "--"}
	err := filepath.WalkDir(modules, func(file string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(file, ".ko.xz") {
			argv = append(argv, file)
		}
		return err
	})
	if err != nil || len(argv) == 3 {
		return err
	}
	_, err = output(ctx, modules, argv...)
	return err
}

// openKernel finds the parts of an unpacked kernel.
func openKernel(name, tree string) (*kernel, error) {
	images, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("kernel %s: %d images in %s", name, len(images), tree)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	for _, lib := range []string{"lib/modules", "usr/lib/modules"} {
		modules := filepath.Join(tree, lib, release)
		if _, err := os.Stat(modules); err == nil {
			return &kernel{Name: name, Image: images[0], Modules: modules}, nil
		}
	}
	return nil, fmt.Errorf("kernel %s: no modules of %s in %s", name, release, tree)
}

// resolveKernel follows metapackages to the package that holds the kernel, as name=version.
func resolveKernel(ctx context.Context, name string) (string, error) {
	for range 5 {
		text, err := output(ctx, ".", "apt-cache", "show", "--no-all-versions", name)
		if err != nil {
			return "", fmt.Errorf("package %s: not known to apt (apt-get update?): %w", name, err)
		}
		next := dependency(text)
		if next == "" {
			return name + "=" + field(text, "Version"), nil
		}
		name = next
	}
	return "", fmt.Errorf("package %s: a metapackage of metapackages", name)
}

// dependency returns the kernel package that a metapackage's record depends on, or "" when it is none.
func dependency(record string) string {
	for dep := range strings.SplitSeq(field(record, "Depends"), ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(dep), " ")
		if strings.HasPrefix(name, "linux-image-") {
			return name
		}
	}
	return ""
}

// field returns the value of a field of a package record.
func field(record, name string) string {
	for line := range strings.Lines(record) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// output runs a command in dir and returns what it prints; its error holds what it said.
func output(ctx context.Context, dir string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}
