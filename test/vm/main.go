// Command vm runs tests in kernels that have what this machine's may lack. It builds the test binaries of the packages, boots
// each kernel of kernels.txt in QEMU with the host's files as its root, read-only, and runs the binaries there. No test may
// skip, but for the reasons in skips.txt.
//
//	go run ./test/vm [-kernel NAME] [-run REGEXP] [-v] [-shell] [package pattern[@REGEXP] …]
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
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/netcleat/netcleat/test/vm/internal/job"
)

// options is the command line.
type options struct {
	kernel, run, accel string
	arch               string   // that the tests are built for
	append             string   // to the kernel's command line
	without            []string // modules that the kernel is not to have
	shell, verbose     bool
	machines           int
	timeout, deadline  time.Duration
	patterns           []string
}

// bootTime is what a guest has to come up.
const bootTime = 5 * time.Minute

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
	flag.StringVar(&o.arch, "arch", "amd64", "what the tests are built for; the kernel runs 386, too")
	flag.StringVar(&o.append, "append", "", "more of the kernel's command line: ipv6.disable=1")
	flag.Func("without", "a module that the kernel is to refuse, with what needs it", func(s string) error { o.without = append(o.without, s); return nil })
	flag.StringVar(&o.accel, "accel", emulate, "QEMU accelerator; kvm is much faster where it works")
	flag.IntVar(&o.machines, "machines", min(2, runtime.NumCPU()), "how many machines share a kernel's packages")
	flag.DurationVar(&o.timeout, "timeout", 20*time.Minute, "of one package's tests")
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
	if err := static(ctx, "amd64", "build", "-o", filepath.Join(b.dir, "init"), "github.com/netcleat/netcleat/test/vm/guest"); err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	start := time.Now()
	var err error
	if b.tests, err = buildTests(ctx, b.arch, b.dir, b.patterns); err != nil {
		return err
	}
	for i := range b.tests {
		b.tests[i].Run = cmp.Or(b.tests[i].Run, b.run)
	}
	if len(b.tests) == 0 {
		return fmt.Errorf("packages %s: no tests", strings.Join(b.patterns, " "))
	}
	fmt.Printf("vm: built the tests of %d packages in %.1fs\n", len(b.tests), time.Since(start).Seconds())
	return nil
}

// machine prepares the boot of a kernel for some of the tests; n tells the machines of one kernel apart.
func (b *bench) machine(k *kernel, n int, tests []job.Test) (*machine, error) {
	j := &job.Job{ModuleDir: k.Modules, Repo: b.repo, Timeout: b.timeout, Shell: b.options.shell, Tests: tests}
	if err := addModules(j, b.without); err != nil {
		return nil, err
	}
	m := &machine{
		Kernel: k, Tests: len(tests), Accel: b.accel, Initramfs: filepath.Join(b.dir, fmt.Sprintf("initramfs-%d", n)),
		Append: b.append, Console: b.path(fmt.Sprintf("build/vm/console-%s-%d.log", k.Name, n)),
	}
	if len(b.without) > 0 {
		m.Append = strings.TrimSpace(m.Append + " module_blacklist=" + strings.Join(b.without, ","))
	}
	return m, packInitramfs(m.Initramfs, filepath.Join(b.dir, "init"), j)
}

// addModules puts the modules of the job's kernel into the job, but for those
// without which it is to do.
func addModules(j *job.Job, without []string) error {
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
	j.Modules = index.wanted(without)
	return nil
}

// test boots machines of a kernel, runs the tests in them and prints the result.
func (b *bench) test(ctx context.Context, name string) error {
	k, err := fetchKernel(ctx, b.path("build/vm"), name)
	if err != nil {
		return err
	}
	shares := share(b.tests, b.machines)
	fmt.Printf("vm: boot %s (%s), machines: %d\n", name, filepath.Base(k.Modules), len(shares))
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, b.deadline, fmt.Errorf("deadline of %s", b.deadline))
	defer cancel()
	machines := make([]*machine, len(shares))
	for n, tests := range shares {
		if machines[n], err = b.machine(k, n, tests); err != nil {
			return err
		}
	}
	total, err := b.testAll(ctx, machines)
	for _, fault := range total.Faults {
		fmt.Println("vm: fault:", fault)
	}
	line, ok := total.summary(name, time.Since(start))
	fmt.Println(line)
	if !ok {
		fmt.Printf("vm: the kernel's messages are in %s\n", b.path("build/vm/console-"+name+"-*.log"))
		err = errors.Join(err, fmt.Errorf("%s: %w", name, errTests))
	}
	return err
}

// testAll runs the machines at once and adds up what they report.
func (b *bench) testAll(ctx context.Context, machines []*machine) (*report, error) {
	reports, errs := make([]*report, len(machines)), make([]error, len(machines))
	var printing sync.Mutex
	var all sync.WaitGroup
	for n, m := range machines {
		reports[n] = &report{Out: os.Stdout, Verbose: b.verbose, Skips: b.skips}
		all.Go(func() { errs[n] = m.test(ctx, reports[n], &printing) })
	}
	all.Wait()
	total := &report{}
	for _, r := range reports {
		total.add(r)
	}
	return total, errors.Join(errs...)
}

// share deals the tests out to the machines in turn: an order that starts with the longest gives each about as much.
func share(tests []job.Test, machines int) [][]job.Test {
	shares := make([][]job.Test, max(1, min(machines, len(tests))))
	for i, t := range tests {
		n := i % len(shares)
		shares[n] = append(shares[n], t)
	}
	return shares
}

// test runs the machine's tests and has r judge them. It prints while it holds printing.
func (m *machine) test(ctx context.Context, r *report, printing sync.Locker) error {
	ctx, hung := context.WithCancelCause(ctx)
	defer hung(nil)
	boot := time.AfterFunc(bootTime, func() { hung(fmt.Errorf("not up after %s", bootTime)) })
	defer boot.Stop()
	r.Ready = func() { boot.Stop() }
	handle := func(e job.Event) {
		printing.Lock()
		defer printing.Unlock()
		r.event(e)
	}
	if err := m.run(ctx, handle); err != nil {
		r.fault("machine of %s: %v", filepath.Base(m.Console), cmp.Or(context.Cause(ctx), err))
	}
	console, err := os.ReadFile(m.Console)
	if err != nil {
		return err
	}
	printing.Lock()
	defer printing.Unlock()
	r.end(m.Tests, string(console))
	return nil
}

func (b *bench) shell(ctx context.Context, name string) error {
	k, err := fetchKernel(ctx, b.path("build/vm"), name)
	if err != nil {
		return err
	}
	m, err := b.machine(k, 0, b.tests)
	if err != nil {
		return err
	}
	fmt.Printf("vm: the test binaries are in %s; leave with exit\n", b.dir)
	return m.shell(ctx)
}
