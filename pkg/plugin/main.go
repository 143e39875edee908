// Package plugin runs one CNI plugin: it decodes the call, hands it to the
// plugin's function for that verb, and writes the answer.
package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/semver"
)

// Main runs the plugin that the process was started as, and exits.
func Main(t Table) {
	p := Process{
		Name: filepath.Base(os.Args[0]), Getenv: os.Getenv,
		Stdin: os.Stdin, Stdout: output(os.Stdout), Stderr: output(os.Stderr), Journal: journal.Default,
	}
	os.Exit(p.Run(context.Background(), t))
}

// output returns f by another descriptor. To one of the first three the runtime
// of Go answers a reader that has gone with SIGPIPE's end of the process, in the
// middle of an ADD or a DEL; to others with an error.
func output(f *os.File) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return f // closed: writing to it is an error either way
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// Process is what a plugin sees of the process that it runs in.
type Process struct {
	Name           string // the plugin's, from argv[0]
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Journal        journal.Dir
	Gate           gate.Gate // nil: every change is let through
}

// Run answers the call and returns the exit status.
func (p Process) Run(ctx context.Context, t Table) int {
	plug, ok := t[p.Name]
	if !ok {
		p.usage(t)
		return 1
	}
	switch verb := p.Getenv("CNI_COMMAND"); verb {
	case "":
		p.about(plug)
		return 0
	case verbVer:
		return p.version(plug)
	default:
		return p.call(ctx, t, plug, verb)
	}
}

// call answers any verb but VERSION.
func (p Process) call(ctx context.Context, t Table, plug Plugin, verb string) int {
	c := &Call{Verb: verb, Stderr: p.Stderr, Journal: p.Journal, table: t}
	tr := &trace{start: time.Now()}
	if p.Getenv("CNI_DEBUG") != "" {
		tr.live = p.Stderr
	}
	c.Gate = tr.through(p.Gate)
	err := p.answer(ctx, plug, c)
	if lerr := tr.log(c, p.Name, err); lerr != nil {
		c.Note("debug log: %v", lerr)
	}
	if err != nil {
		printError(p.Stdout, c.Conf.CNIVersion, err)
		return 1
	}
	return 0
}

func (p Process) usage(t Table) {
	names := make([]string, 0, len(t))
	for n := range t {
		names = append(names, n)
	}
	slices.Sort(names)
	fmt.Fprintf(p.Stderr, "%s: not the name of a plugin. This is the plugin binary of netcleat v%s; it is run under the name of one of its plugins:\n  %s\n`netcleat install DIR` puts it there under all of them.\n",
		p.Name, Version, strings.Join(names, " "))
}

// about answers a call without a verb. nerdctl reads it.
func (p Process) about(plug Plugin) {
	fmt.Fprintf(p.Stderr, "CNI %s plugin v%s\nCNI protocol versions supported: %s\n", p.Name, Version, strings.Join(plug.versions(), ", "))
}

// version answers VERSION for the version asked, without decoding more.
func (p Process) version(plug Plugin) int {
	v := newestSpec
	if stdin, err := readAll(p.Stdin); err == nil && versionOf(stdin) != "" {
		v = versionOf(stdin)
	}
	if !isIdentifier(v) {
		v = newestSpec
	}
	out := `{"cniVersion":"` + v + `","supportedVersions":["` + strings.Join(plug.versions(), `","`) + "\"]}\n"
	if _, err := io.WriteString(p.Stdout, out); err != nil {
		return 1
	}
	return 0
}

// answer runs one verb and writes its result. A panic becomes an error object.
func (p Process) answer(ctx context.Context, plug Plugin, c *Call) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &cnierr.Error{Code: cnierr.Internal, Err: fmt.Errorf("panic: %v", r), Details: string(debug.Stack())}
		}
	}()
	if err := p.environment(c); err != nil {
		return err
	}
	if c.Stdin, err = readAll(p.Stdin); err != nil {
		return err
	}
	if err := c.read(plug); err != nil {
		return err
	}
	res, err := plug.do(ctx, c)
	if err != nil {
		return err
	}
	if c.Verb != Add {
		return nil
	}
	if err := printResult(p.Stdout, c, res); err != nil {
		return errors.Join(err, plug.revert(ctx, c))
	}
	if err := finish(c); err != nil {
		// The runtime has its result: what is left pending, DEL finds.
		c.Note("%v", err)
	}
	return nil
}

// maxStdin bounds the configuration, in bytes.
const maxStdin = 16 << 20

// usual is room for a configuration with its prevResult, in bytes.
const usual = 8 << 10

func readAll(r io.Reader) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, usual))
	if _, err := b.ReadFrom(io.LimitReader(r, maxStdin+1)); err != nil {
		return nil, cnierr.With(cnierr.IOFailure, fmt.Errorf("error reading from stdin: %w", err))
	}
	if b.Len() > maxStdin {
		return nil, cnierr.Decode(fmt.Errorf("configuration: more than %d bytes", maxStdin))
	}
	return b.Bytes(), nil
}

// environment reads and checks the variables of the specification.
func (p Process) environment(c *Call) error {
	c.ContainerID, c.Netns, c.IfName = p.Getenv("CNI_CONTAINERID"), p.Getenv("CNI_NETNS"), p.Getenv("CNI_IFNAME")
	c.Args, c.Path = p.Getenv("CNI_ARGS"), p.Getenv("CNI_PATH")
	c.Within, c.created = p.Getenv(EnvWithin), p.Getenv(EnvCreated)
	o := p.Getenv("CNI_NETNS_OVERRIDE")
	c.override = o == "1" || strings.EqualFold(o, "true")

	var missing []string
	need := func(name, value string) {
		if value == "" {
			missing = append(missing, name)
		}
	}
	switch c.Verb {
	case Add, Check:
		need("CNI_CONTAINERID", c.ContainerID)
		need("CNI_NETNS", c.Netns)
		need("CNI_IFNAME", c.IfName)
	case Del:
		need("CNI_CONTAINERID", c.ContainerID)
		need("CNI_IFNAME", c.IfName)
	case GC:
		need("CNI_PATH", c.Path)
	case Status:
	default:
		return cnierr.Env("unknown CNI_COMMAND: %s", c.Verb)
	}
	if len(missing) > 0 {
		return cnierr.Env("required env variables [%s] missing", strings.Join(missing, ","))
	}
	if c.Verb == GC || c.Verb == Status {
		return nil
	}
	return errors.Join(checkContainerID(c.ContainerID), c.checkIfName())
}

func checkContainerID(id string) error {
	if !isIdentifier(id) {
		return cnierr.Explain(cnierr.Env("invalid characters in containerID"), "%s", id)
	}
	return nil
}

// maxIfName is the kernel's limit, in bytes, without the final zero.
const maxIfName = 15

// checkIfName refuses what no interface can have as its name. What the kernel
// would make another name of, ADD alone refuses: DEL is to remove what once came
// of it.
func (c *Call) checkIfName() error {
	switch name := c.IfName; {
	case len(name) > maxIfName:
		return cnierr.Explain(cnierr.Env("interface name is too long"), "%q: interface name should be less than %d characters", name, maxIfName+1)
	case name == "." || name == "..":
		return cnierr.Env("interface name is . or ..")
	case strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) }):
		return cnierr.Explain(cnierr.Env("interface name contains / or : or whitespace characters"), "%q", name)
	case c.Verb == Add && !nl.IsName(name):
		return cnierr.Env("interface name %q: not one that an interface can have", name)
	}
	return nil
}

// read decodes the common part of the configuration and settles the version.
func (c *Call) read(plug Plugin) error {
	conf, note, err := c.decodeConf()
	c.Conf = conf
	if err != nil {
		return err
	}
	if note != nil {
		c.Note("%v (ignored: %s needs it not)", note, c.Verb)
	}
	if !semver.AtLeast(conf.CNIVersion, oldestFor(c.Verb)) {
		return cnierr.Newf(cnierr.IncompatibleVersion, "config version does not allow %s", c.Verb)
	}
	if supported := plug.versions(); !slices.Contains(supported, conf.CNIVersion) {
		return &cnierr.Error{
			Code: cnierr.IncompatibleVersion, Err: errors.New("incompatible CNI versions"),
			Details: fmt.Sprintf("config is %q, plugin supports %q", conf.CNIVersion, supported),
		}
	}
	if c.Netns == "" || c.Verb == GC || c.Verb == Status {
		return nil
	}
	return c.lookAtSandbox()
}

// oldestFor returns the version of the specification that brought the verb.
func oldestFor(verb string) string {
	switch verb {
	case Check:
		return "0.4.0"
	case GC, Status:
		return "1.1.0"
	default:
		return "0.1.0"
	}
}
