// Command vm runs tests in kernels that have what this machine's may lack. It builds the test binaries of the packages, boots
// each kernel of kernels.txt in QEMU with the host's files as its root, read-only, and runs the binaries there. No test may
// skip, but for the reasons in skips.txt.
//
//	go run ./test/vm [-kernel NAME] [-run REGEXP] [-v] [-shell] [package pattern …]
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// options is the command line.
type options struct {
	kernel, run, accel string
	shell, verbose     bool
	timeout, deadline  time.Duration
	patterns           []string
}

// bootTime is what a guest has to come up.
const bootTime = 3 * time.Minute

// errTests is the error of a run that worked and found failures; they have been printed.
var errTests = errors.New("tests failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, parseFlags()); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func parseFlags() *options {
	o := &options{}
	flag.StringVar(&o.kernel, "kernel", "", "the line of kernels.txt to boot; all of them by default")
	flag.StringVar(&o.run, "run", "", "run only the tests that match this expression")
	flag.BoolVar(&o.verbose, "v", false, "print all that the tests print")
	flag.BoolVar(&o.shell, "shell", false, "boot the first kernel and give a shell in it")
	flag.StringVar(&o.accel, "accel", emulate, "QEMU accelerator; kvm is much faster where it works")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "of one package's tests")
	flag.DurationVar(&o.deadline, "deadline", time.Hour, "of one kernel's whole run")
	flag.Parse()
	o.patterns = flag.Args()
	if len(o.patterns) == 0 {
		o.patterns = []string{"./..."}
	}
	return o
}

func run(ctx context.Context, o *options) error {
	repo, err := output(ctx, ".", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	b := &bench{options: o, repo: strings.TrimSpace(repo)}
	if b.skips, err = readSkips(b.path("test/vm/skips.txt")); err != nil {
		return err
	}
	names, err := chooseKernels(b.path("test/vm/kernels.txt"), o.kernel)
	if err != nil {
		return err
	}
	if b.dir, err = scratch(b.path("build/vm")); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := b.build(ctx); err != nil {
		return err
	}
	if o.shell {
		return b.shell(ctx, names[0])
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, b.test(ctx, name))
	}
	return errors.Join(errs...)
}

// scratch makes the directory of this run.
func scratch(parent string) (string, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(parent, "run-")
}

// bench is what the boots of one run share.
type bench struct {
	*options
	repo  string
	dir   string // of this run, below the repository so that the guest sees it
	skips []string
	tests []job.Test
}

func (b *bench) path(name string) string { return filepath.Join(b.repo, name) }

// build compiles what runs in the guest.
func (b *bench) build(ctx context.Context) error {
	if err := static(ctx, "build", "-o", filepath.Join(b.dir, "init"), "github.com/netcleat/netcleat/test/vm/guest"); err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	start := time.Now()
	var err error
	if b.tests, err = buildTests(ctx, b.dir, b.patterns); err != nil {
		return err
	}
	if len(b.tests) == 0 {
		return fmt.Errorf("packages %s: no tests", strings.Join(b.patterns, " "))
	}
	fmt.Printf("vm: built the tests of %d packages in %.1fs\n", len(b.tests), time.Since(start).Seconds())
	return nil
}

// machine prepares the boot of a kernel.
func (b *bench) machine(ctx context.Context, name string) (*machine, error) {
	k, err := fetchKernel(ctx, b.path("build/vm"), name)
	if err != nil {
		return nil, err
	}
	j := &job.Job{ModuleDir: k.Modules, Repo: b.repo, Run: b.run, Timeout: b.timeout, Shell: b.options.shell, Tests: b.tests}
	if err := addModules(j); err != nil {
		return nil, err
	}
	m := &machine{Kernel: k, Accel: b.accel, Initramfs: filepath.Join(b.dir, "initramfs"), Console: b.path("build/vm/console-" + name + ".log")}
	return m, packInitramfs(m.Initramfs, filepath.Join(b.dir, "init"), j)
}

// addModules puts the modules of the job's kernel into the job.
func addModules(j *job.Job) error {
	index, err := readModuleIndex(j.ModuleDir)
	if err != nil {
		return err
	}
	builtin, err := readBuiltin(j.ModuleDir)
	if err != nil {
		return err
	}
	files, err := index.order(early, builtin)
	if err != nil {
		return err
	}
	for _, file := range files {
		j.Early = append(j.Early, filepath.Join(j.ModuleDir, file))
	}
	j.Modules = index.wanted()
	return nil
}

// test boots a kernel, runs the tests in it and prints the result.
func (b *bench) test(ctx context.Context, name string) error {
	m, err := b.machine(ctx, name)
	if err != nil {
		return err
	}
	fmt.Printf("vm: boot %s (%s)\n", name, filepath.Base(m.Kernel.Modules))
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, b.deadline, fmt.Errorf("deadline of %s", b.deadline))
	defer cancel()
	ctx, hung := context.WithCancelCause(ctx)
	defer hung(nil)
	boot := time.AfterFunc(bootTime, func() { hung(fmt.Errorf("not up after %s", bootTime)) })
	defer boot.Stop()
	r := &report{Out: os.Stdout, Verbose: b.verbose, Skips: b.skips, Ready: func() { boot.Stop() }}
	if err := m.run(ctx, r.event); err != nil {
		r.fault("machine: %v", cmp.Or(context.Cause(ctx), err))
	}
	console, err := os.ReadFile(m.Console)
	if err != nil {
		return err
	}
	r.end(len(b.tests), string(console))
	for _, fault := range r.Faults {
		fmt.Println("vm: fault:", fault)
	}
	line, ok := r.summary(name, time.Since(start))
	fmt.Println(line)
	if !ok {
		fmt.Println("vm: the kernel's messages are in", m.Console)
		return fmt.Errorf("%s: %w", name, errTests)
	}
	return nil
}

func (b *bench) shell(ctx context.Context, name string) error {
	m, err := b.machine(ctx, name)
	if err != nil {
		return err
	}
	fmt.Printf("vm: the test binaries are in %s; leave with exit\n", b.dir)
	return m.shell(ctx)
}
