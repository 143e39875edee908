package ipam

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// delegate is the IPAM plugin of one call.
type delegate struct {
	name, path string
	builtin    plugin.Plugin // nil: another program
}

// lookPath finds the plugin called name in the directories of CNI_PATH. The
// name must not leave them (CVE-2021-20206).
func lookPath(dirs, name string) (string, error) {
	if strings.ContainsRune(name, '/') || name == "." || name == ".." {
		return "", cnierr.Config("invalid plugin name: %s", name)
	}
	for _, dir := range filepath.SplitList(dirs) {
		if dir == "" {
			continue
		}
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", cnierr.Env("failed to find plugin %q in path %s", name, filepath.SplitList(dirs))
}

// add executes the delegate's ADD and reads its result.
func (d *delegate) add(ctx context.Context, c *plugin.Call) (*current.Result, error) {
	out, err := d.exec(ctx, c, plugin.Add)
	if err != nil {
		return nil, err
	}
	return d.decode(c, out)
}

// decode reads the delegate's answer to ADD.
func (d *delegate) decode(c *plugin.Call, out []byte) (*current.Result, error) {
	var v struct {
		CNIVersion string `json:"cniVersion"`
		Code       uint   `json:"code"`
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return nil, fmt.Errorf("ipam %s: result: %w", d.name, err)
	}
	if v.Code != 0 {
		return nil, d.failure(errors.New("an error, yet exit status 0"), out, nil)
	}
	if v.CNIVersion == "" {
		v.CNIVersion = c.Conf.CNIVersion
		out = append([]byte(`{"cniVersion":"`+v.CNIVersion+`",`), bytes.TrimSpace(out)[1:]...)
	}
	r, err := create.Create(v.CNIVersion, out)
	if err != nil {
		return nil, fmt.Errorf("ipam %s: result: %w", d.name, err)
	}
	res, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, fmt.Errorf("ipam %s: result: %w", d.name, err)
	}
	return res, nil
}

func (d *delegate) run(ctx context.Context, c *plugin.Call, verb string) error {
	_, err := d.exec(ctx, c, verb)
	return err
}

// errNotRun is in the error of a delegate that could not be started: it did
// nothing that its DEL would have to take back.
var errNotRun = errors.New("could not be started")

// The bounds on what a delegate may answer, and on what of its words an error
// repeats, in bytes; and on how long after its end others may hold its output.
const (
	maxOutput  = 16 << 20
	maxWords   = 4 << 10
	stragglers = 5 * time.Second
)

// exec runs the delegate with the call's environment and configuration.
func (d *delegate) exec(ctx context.Context, c *plugin.Call, verb string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdout, stderr := &bounded{full: cancel}, &bounded{full: cancel}
	cmd := exec.CommandContext(ctx, d.path)
	cmd.WaitDelay = stragglers
	cmd.Env = append(os.Environ(),
		"CNI_COMMAND="+verb, "CNI_CONTAINERID="+c.ContainerID, "CNI_NETNS="+c.Netns,
		"CNI_IFNAME="+c.IfName, "CNI_ARGS="+c.Args, "CNI_PATH="+c.Path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), stdout, stderr
	err := cmd.Start()
	if errors.Is(err, unix.ETXTBSY) {
		return nil, cnierr.Newf(cnierr.TryAgain, "ipam %s: %s is being replaced: %w, %w", d.name, d.path, errNotRun, err)
	}
	if err != nil {
		return nil, fmt.Errorf("ipam %s: %w: %w", d.name, errNotRun, err)
	}
	err = cmd.Wait()
	if c.Stderr != nil && stderr.b.Len() > 0 {
		_, _ = c.Stderr.Write(stderr.b.Bytes()) // the delegate's notes are worth no error of ours
	}
	switch {
	case stdout.over || stderr.over:
		return nil, fmt.Errorf("ipam %s: answer of more than %d bytes", d.name, maxOutput)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // what the delegate left running is not its answer
		return nil, d.failure(err, stdout.b.Bytes(), stderr.b.Bytes())
	}
	return stdout.b.Bytes(), nil
}

// bounded keeps what is written to it, up to maxOutput bytes; then it calls full.
type bounded struct {
	b    bytes.Buffer
	over bool
	full func()
}

func (w *bounded) Write(p []byte) (int, error) {
	if w.b.Len()+len(p) > maxOutput {
		w.over = true
		w.full()
		return 0, io.ErrShortWrite
	}
	return w.b.Write(p)
}

// failure keeps the delegate's own code and words.
func (d *delegate) failure(err error, stdout, stderr []byte) error {
	var e types.Error
	if json.Unmarshal(stdout, &e) == nil && e.Code != 0 {
		return &cnierr.Error{Code: e.Code, Err: fmt.Errorf("ipam %s: %s", d.name, e.Msg), Details: e.Details}
	}
	words := bytes.TrimSpace(append(bytes.TrimSpace(stdout), stderr...))
	return fmt.Errorf("ipam %s: %w: %s", d.name, err, words[:min(len(words), maxWords)])
}
