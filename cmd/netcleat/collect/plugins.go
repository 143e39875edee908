package collect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// Plugins says where the plugins are.
type Plugins struct {
	Binary string // the plugin binary, which is run under the name of each; "" for the installed ones
	Path   string // CNI_PATH: where plugins are installed
}

// Del runs the plugin's DEL for the attachment that the record speaks of. One
// that has been attached again since then, in another sandbox, stays.
func (p Plugins) Del(ctx context.Context, r journal.Record) error {
	conf, err := configuration(r)
	if err != nil {
		return err
	}
	binary, err := p.find(r.Plugin)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, binary)
	cmd.Args = []string{r.Plugin}
	cmd.Stdin = bytes.NewReader(conf)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=DEL", "CNI_CONTAINERID=" + r.ContainerID, "CNI_IFNAME=" + r.IfName,
		"CNI_NETNS=" + r.Netns, "CNI_ARGS=" + r.Args, "CNI_PATH=" + p.Path + string(filepath.ListSeparator) + filepath.Dir(binary),
		plugin.EnvCreated + "=" + r.Created.Format(time.RFC3339Nano),
	}
	err = cmd.Run()
	var said struct{ Msg, Details string }
	switch {
	case err == nil:
		return nil
	case json.Unmarshal(stdout.Bytes(), &said) == nil && said.Msg != "":
		return errors.New(said.Msg)
	}
	return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
}

// find returns the file to run.
func (p Plugins) find(name string) (string, error) {
	if p.Binary != "" {
		return p.Binary, nil
	}
	for _, dir := range filepath.SplitList(p.Path) {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("no plugin %s in %s", name, p.Path)
}

// configuration returns what the plugin was attached with. Of some the record's
// state says it all.
func configuration(r journal.Record) ([]byte, error) {
	conf := map[string]json.RawMessage{}
	if len(r.Config) > 0 {
		if err := json.Unmarshal(r.Config, &conf); err != nil {
			return nil, fmt.Errorf("record: configuration: %w", err)
		}
	}
	for key, value := range map[string]string{"name": r.Network, "type": r.Plugin} {
		conf[key] = quote(value)
	}
	if conf["cniVersion"] == nil {
		conf["cniVersion"] = quote("1.0.0")
	}
	return json.Marshal(conf)
}

func quote(s string) json.RawMessage {
	b, _ := json.Marshal(s) // a string always can be
	return b
}
