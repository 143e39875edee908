package ipam

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

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
	return "", cnierr.Env("failed to find plugin %q in path %q", name, filepath.SplitList(dirs))
}

// add executes the delegate's ADD and reads its result.
func (d *delegate) add(ctx context.Context, c *plugin.Call) (*current.Result, error) {
	out, err := d.exec(ctx, c, plugin.Add)
	if err != nil {
		return nil, err
	}
	var v struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return nil, fmt.Errorf("ipam %s: result: %w", d.name, err)
	}
	if v.CNIVersion == "" {
		v.CNIVersion = c.Conf.CNIVersion
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

// exec runs the delegate with the call's environment and configuration.
func (d *delegate) exec(ctx context.Context, c *plugin.Call, verb string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, d.path)
	cmd.Env = append(os.Environ(),
		"CNI_COMMAND="+verb, "CNI_CONTAINERID="+c.ContainerID, "CNI_NETNS="+c.Netns,
		"CNI_IFNAME="+c.IfName, "CNI_ARGS="+c.Args, "CNI_PATH="+c.Path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), &stdout, &stderr
	err := cmd.Run()
	if errors.Is(err, unix.ETXTBSY) {
		return nil, cnierr.Newf(cnierr.TryAgain, "ipam %s: %s is being replaced: %w", d.name, d.path, err)
	}
	if err != nil {
		return nil, d.failure(err, stdout.Bytes(), stderr.Bytes())
	}
	if c.Stderr != nil && stderr.Len() > 0 {
		_, _ = c.Stderr.Write(stderr.Bytes()) // the delegate's notes are worth no error of ours
	}
	return stdout.Bytes(), nil
}

// failure keeps the delegate's own code and words.
func (d *delegate) failure(err error, stdout, stderr []byte) error {
	var e types.Error
	if json.Unmarshal(stdout, &e) == nil && e.Code != 0 {
		return &cnierr.Error{Code: e.Code, Err: fmt.Errorf("ipam %s: %s", d.name, e.Msg), Details: e.Details}
	}
	return fmt.Errorf("ipam %s: %w: %s%s", d.name, err, bytes.TrimSpace(stdout), bytes.TrimSpace(stderr))
}
