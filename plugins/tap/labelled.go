package tap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// createLabelled makes the tap with an SELinux label. The kernel gives a tap the
// label of the process that makes it (not of the sockets that it would make), and
// a process of several threads cannot change its own: so the plugin runs itself
// once more, under the label and inside of the sandbox.
func createLabelled(ctx context.Context, ns *netns.NS, label string, d device) error {
	return inProcess(ctx, d, func(cmd *exec.Cmd) error { return ns.RunLabelled(cmd, label) })
}

func inProcess(ctx context.Context, d device, run func(*exec.Cmd) error) error {
	within, err := json.Marshal(d)
	if err != nil {
		return err
	}
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{"tap"}
	cmd.Env = []string{
		"CNI_COMMAND=" + plugin.Add, "CNI_CONTAINERID=within", "CNI_IFNAME=" + d.Name,
		"CNI_NETNS=" + netns.Own, "CNI_NETNS_OVERRIDE=1", "CNI_PATH=/",
		plugin.EnvWithin + "=" + string(within),
	}
	cmd.Stdin, cmd.Stdout = strings.NewReader(`{"cniVersion":"1.0.0","name":"within","type":"tap"}`), &stdout
	if err = run(cmd); err == nil {
		return nil
	}
	var said types.Error
	if json.Unmarshal(stdout.Bytes(), &said) == nil && said.Msg != "" {
		return cnierr.With(said.Code, errors.New(said.Msg))
	}
	return cnierr.Newf(cnierr.UnsupportedField, "selinuxContext: %w", err)
}

// attachWithin is the other end of createLabelled.
func attachWithin(d device) (*current.Result, error) {
	own, err := netns.Open(netns.Own)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(create(own, d), own.Close()); err != nil {
		return nil, fmt.Errorf("within the sandbox: %w", err)
	}
	return &current.Result{}, nil
}
