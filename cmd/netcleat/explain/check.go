package explain

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

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/suite"
	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/pkg/semver"
)

// plugins are ours, by name.
var plugins = suite.Plugins()

// known reports whether a plugin is ours: its CHECK changes nothing.
func known(typ string) bool { return plugins[typ] != nil && plugins[typ].About().Role != plugin.IPAM }

// checks runs each plugin's own CHECK, which may see what was not looked at here.
func (x *exam) checks(ctx context.Context) error {
	if !x.known {
		x.note(x.main(), "what libcni remembers", "it knows nothing of this attachment: the plugins' own CHECK was not run", finding.Mend{})
		return nil
	}
	if x.sandbox.Name != x.row.Interface {
		return nil // they look for the name
	}
	if x.unchecked {
		x.note(x.main(), "a CHECK by the plugins themselves", "the list has disableCheck: it was not run", finding.Mend{})
		return nil
	}
	var errs []error
	for _, c := range x.confs {
		switch {
		case !known(c.Type):
			x.note(c.Type, "its part", "it is none of this suite's plugins: nothing is known of it", finding.Mend{})
		case !x.failed(c.Type):
			errs = append(errs, x.check(ctx, c))
		}
	}
	return errors.Join(errs...)
}

// check runs one plugin's CHECK as libcni does.
func (x *exam) check(ctx context.Context, c conf) error {
	list := &libcni.NetworkConfigList{Name: x.row.Network, CNIVersion: checkable(x.version)}
	p, err := libcni.NetworkPluginConfFromBytes(c.raw)
	if err != nil {
		return err
	}
	list.Plugins = []*libcni.PluginConfig{p}
	rt, err := x.runtimeConf()
	if err != nil {
		return err
	}
	e := &execution{DefaultExec: &invoke.DefaultExec{RawExec: &invoke.RawExec{}}}
	if x.row.Recorded {
		e.binary = x.Binary
	}
	cni := libcni.NewCNIConfigWithCacheDir(filepath.SplitList(x.Path), filepath.Dir(filepath.Dir(x.row.CacheFile)), e)
	err = cni.CheckNetworkList(ctx, list, rt)
	want := "its own CHECK finds all as it was made"
	switch {
	case err == nil:
		x.fine(c.Type, want, "OK")
	case errors.Is(err, exec.ErrNotFound) || strings.Contains(err.Error(), "failed to find plugin"):
		x.note(c.Type, want, "the plugin is not in "+x.Path, finding.Run("netcleat install "+finding.Quote(strings.Split(x.Path, ":")[0])))
	case c.Type == "firewall" && !x.row.Recorded:
		x.note(c.Type, want, err.Error(), finding.Mend{}) // whether packets pass was judged
	default:
		m := again
		if strings.Contains(err.Error(), "netcleat reconcile") {
			m = Restore
		}
		x.problem(c.Type, want, err.Error(), m)
	}
	return nil
}

// checkable is the version to ask with: CHECK came with 0.4.0.
func checkable(version string) string {
	if !semver.AtLeast(version, "0.4.0") {
		return "1.0.0"
	}
	return version
}

// runtimeConf is what the runtime said when it attached.
func (x *exam) runtimeConf() (*libcni.RuntimeConf, error) {
	b, err := os.ReadFile(x.row.CacheFile)
	if err != nil {
		return nil, err
	}
	var entry struct {
		Netns          string         `json:"netns"`
		CNIArgs        [][2]string    `json:"cniArgs"`
		CapabilityArgs map[string]any `json:"capabilityArgs"`
	}
	if err := json.Unmarshal(b, &entry); err != nil {
		return nil, fmt.Errorf("%s: %w", x.row.CacheFile, err)
	}
	return &libcni.RuntimeConf{
		ContainerID: x.row.Container, IfName: x.row.Interface, NetNS: x.row.Netns, Args: entry.CNIArgs, CapabilityArgs: entry.CapabilityArgs,
	}, nil
}

// execution runs this suite's binary under the plugin's name, where it is to.
type execution struct {
	*invoke.DefaultExec
	binary string
}

// FindInPath returns the path of a plugin; of this suite's binary the name is
// kept, too.
func (e *execution) FindInPath(plugin string, paths []string) (string, error) {
	if e.binary != "" {
		return e.binary + "\x00" + plugin, nil
	}
	return e.DefaultExec.FindInPath(plugin, paths)
}

// ExecPlugin runs a plugin.
func (e *execution) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	binary, name, own := strings.Cut(path, "\x00")
	if !own {
		return e.DefaultExec.ExecPlugin(ctx, path, stdin, environ)
	}
	cmd := exec.CommandContext(ctx, binary)
	cmd.Args, cmd.Env, cmd.Stdin = []string{name}, environ, bytes.NewReader(stdin)
	out, err := cmd.Output()
	var said types.Error
	if err != nil && json.Unmarshal(out, &said) == nil && said.Msg != "" {
		return nil, &said
	}
	return out, err
}
