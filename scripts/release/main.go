// Command release makes what a release consists of, in one directory: for each platform a tarball as the
// reference's, one with the operator's command, packages for Debian and Fedora, and a bill of materials; an
// image; provenance and checksums. It is a module of its own, so that what it needs stays out of the project's.
//
// The same commit gives the same bytes: nothing depends on the time, the path or the user.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// all are the platforms of the reference's releases.
var all = []string{"amd64", "arm64", "arm", "386", "riscv64", "s390x", "ppc64le", "mips64le"}

// images are those that the image is made for.
var images = []string{"amd64", "arm64"}

func main() {
	archs := flag.String("archs", strings.Join(all, ","), "architectures to build for")
	out := flag.String("out", "build/release", "directory of the release; it is emptied")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := release(ctx, *out, strings.Split(*archs, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// maker has what all steps need. Its root is the repository.
type maker struct {
	ctx      context.Context
	root     string
	out      string // where the release goes
	work     string // removed at the end
	version  string // without v
	revision string
	time     time.Time // that files have
	plugins  []string  // names
	made     []string  // names of files in out
}

// release makes the release in a directory next to out, and puts it in out's place when all is there.
func release(ctx context.Context, out string, archs []string) (err error) {
	for _, arch := range archs {
		if !slices.Contains(all, arch) {
			return fmt.Errorf("architecture %q: none of %s", arch, strings.Join(all, ", "))
		}
	}
	m, err := newMaker(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(m.work), os.RemoveAll(m.out)) }()
	if err := m.host(); err != nil {
		return err
	}
	for _, arch := range archs {
		fmt.Println("build linux/" + arch)
		if err := m.platform(arch); err != nil {
			return fmt.Errorf("linux/%s: %w", arch, err)
		}
	}
	if err := errors.Join(m.image(archs), m.manifest(), m.notes(), m.provenance(archs), m.checksums()); err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	return os.Rename(m.out, out)
}

func newMaker(ctx context.Context, out string) (*maker, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	if out, err = filepath.Abs(out); err != nil {
		return nil, err
	}
	m := &maker{ctx: ctx, root: root, out: out + ".new", work: out + ".work"}
	if m.revision = os.Getenv("SOURCE_REVISION"); m.revision == "" {
		if m.revision, err = m.run("git", "rev-parse", "HEAD"); err != nil {
			return nil, fmt.Errorf("revision (SOURCE_REVISION sets it): %w", err)
		}
	}
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		if epoch, err = m.run("git", "log", "-1", "--format=%ct"); err != nil {
			return nil, fmt.Errorf("time of the sources (SOURCE_DATE_EPOCH sets it): %w", err)
		}
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(epoch), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH %q: %w", epoch, err)
	}
	m.revision, m.time = strings.TrimSpace(m.revision), time.Unix(seconds, 0).UTC()
	return m, errors.Join(os.RemoveAll(m.out), os.RemoveAll(m.work), os.MkdirAll(m.out, 0o755), os.MkdirAll(m.work, 0o755))
}

// repository is the directory of the project's go.mod, above this one.
func repository() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "cni")); err == nil {
			return dir, nil
		}
	}
	return "", errors.Join(errors.New("not within the repository"), err)
}

// run runs a program in the repository and returns what it prints.
func (m *maker) run(argv ...string) (string, error) {
	cmd := exec.CommandContext(m.ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stderr = m.root, os.Stderr
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(m.time.Unix(), 10))
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return string(out), nil
}

// build builds both programs for an architecture into work/ARCH.
func (m *maker) build(arch string) error {
	cmd := exec.CommandContext(m.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", filepath.Join(m.work, arch)+"/", "./cmd/cni", "./cmd/netcleat")
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.root, os.Stdout, os.Stderr
	// The oldest processors of each architecture, whatever the environment says. 6 also runs on the first Raspberry Pis.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=readonly",
		"GOAMD64=v1", "GOARM64=v8.0", "GOARM=6", "GO386=sse2", "GORISCV64=rva20u64", "GOPPC64=power8", "GOMIPS64=hardfloat", "GOEXPERIMENT=")
	return cmd.Run()
}

// host builds what is run here: the command, which writes its manual and completions, and the SBOM's writer.
func (m *maker) host() error {
	if err := m.build(runtime.GOARCH); err != nil {
		return err
	}
	netcleat := filepath.Join(m.work, runtime.GOARCH, "netcleat")
	said, err := m.run(netcleat, "version")
	if err != nil {
		return err
	}
	words := strings.Fields(said)
	if len(words) < 2 || !strings.HasPrefix(words[1], "v") {
		return fmt.Errorf("netcleat version: %q", said)
	}
	m.version = words[1][1:]
	if m.plugins, err = m.names(); err != nil {
		return err
	}
	if _, err := m.run(netcleat, "man", filepath.Join(m.work, "man")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(m.work, "completions"), 0o755); err != nil {
		return err
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, err := m.run(netcleat, "completion", shell)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(m.work, "completions", shell), []byte(script), 0o644); err != nil {
			return err
		}
	}
	_, err = m.run("go", "build", "-o", filepath.Join(m.work, "sbom"), "./scripts/sbom")
	return err
}

// names asks the plugin binary for its plugins: under a name that is no plugin's it lists them, and fails.
func (m *maker) names() ([]string, error) {
	var said bytes.Buffer
	cmd := exec.CommandContext(m.ctx, m.program(runtime.GOARCH, "cni"))
	cmd.Stderr = &said
	_ = cmd.Run()
	for line := range strings.Lines(said.String()) {
		if strings.HasPrefix(line, "  ") {
			return strings.Fields(line), nil
		}
	}
	return nil, fmt.Errorf("cni lists no plugins: %s", &said)
}

// platform makes what there is for one platform.
func (m *maker) platform(arch string) error {
	if arch != runtime.GOARCH {
		if err := m.build(arch); err != nil {
			return err
		}
	}
	sbom, err := m.run(filepath.Join(m.work, "sbom"), m.program(arch, "cni"), m.program(arch, "netcleat"))
	if err != nil {
		return err
	}
	return errors.Join(
		m.write("netcleat-linux-"+arch+"-v"+m.version+".cdx.json", []byte(sbom)),
		m.plain(arch),
		m.full(arch),
		m.packages(arch),
	)
}

// notes writes what is new in this version: its section of CHANGELOG.md. Without one there is no release, and
// none of a tagged commit where something is still under Unreleased.
func (m *maker) notes() error {
	text, err := os.ReadFile(filepath.Join(m.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if tagged, err := m.tagged(); err != nil {
		return err
	} else if later := section(string(text), "Unreleased"); tagged && later != "" {
		return fmt.Errorf("CHANGELOG.md: v%s is tagged, and under Unreleased is:\n%s", m.version, later)
	}
	notes := section(string(text), m.version)
	if notes == "" {
		return fmt.Errorf("CHANGELOG.md: nothing under %s", m.version)
	}
	return m.write("netcleat-v"+m.version+".md", []byte(notes+"\n"))
}

// section is what a changelog has under a heading: a version, which a date may follow.
func section(changelog, name string) string {
	for part := range strings.SplitSeq(changelog, "\n## ") {
		heading, rest, _ := strings.Cut(part, "\n")
		if named, _, _ := strings.Cut(heading, " - "); named == name {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// tagged reports whether the commit has this version's tag. Where there is no repository it has none.
func (m *maker) tagged() (bool, error) {
	if os.Getenv("SOURCE_REVISION") != "" {
		return false, nil
	}
	tags, err := m.run("git", "tag", "--points-at", m.revision)
	return slices.Contains(strings.Fields(tags), "v"+m.version), err
}

// program is the path of a built program.
func (m *maker) program(arch, name string) string { return filepath.Join(m.work, arch, name) }

// write writes a file of the release.
func (m *maker) write(name string, content []byte) error {
	m.made = append(m.made, name)
	return os.WriteFile(filepath.Join(m.out, name), content, 0o644)
}
