package forget

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nl"
)

// links deletes what has this suite's alias for the container: ends of its pairs,
// and shapers.
func links(network, container string) (removed []string, err error) {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	all, err := c.Links()
	errs := []error{err}
	for _, l := range all {
		if !strings.HasPrefix(l.Alias, "netcleat "+network+" "+container+" ") || l.Kind != "veth" && l.Kind != "ifb" {
			continue
		}
		if err := c.Do(nl.DelLinkIndex(l.Name, l.Index)); err != nil && !nl.NotFound(err) {
			errs = append(errs, fmt.Errorf("link %s: %w", l.Name, err))
			continue
		}
		removed = append(removed, "link "+l.Name)
	}
	return removed, errors.Join(errs...)
}

// chains deletes the chains of iptables that belong to the container on the network
// by the comments of what enters them.
func chains(ctx context.Context, network, container string) (removed []string, err error) {
	var errs []error
	for _, tool := range iptables.Present("nat") {
		errs = append(errs, tool.Change(ctx, nil, "nat", func(lines []iptables.Line) (script []string) {
			dropped := map[string]bool{}
			for _, l := range lines {
				chain := l.Value("-j")
				n, id := ruleset.Mark{Place: "ip nat " + l.Chain, Comment: l.Value("--comment")}.Owner()
				if n != network || id != container || !strings.HasPrefix(chain, "CNI-") || dropped[chain] {
					continue
				}
				dropped[chain] = true
				script = append(script, iptables.DropChain(lines, chain, nil)...)
				removed = append(removed, "chain "+chain)
			}
			return script
		}))
	}
	return removed, errors.Join(errs...)
}

// cached deletes what libcni remembers of the container on the network.
func cached(dir, network, container string) (removed []string, err error) {
	files, _ := filepath.Glob(filepath.Join(dir, "*")) // a pattern that is good
	var errs []error
	for _, f := range files {
		b, err := os.ReadFile(f)
		var entry struct {
			ContainerID string `json:"containerId"`
			Network     string `json:"networkName"`
		}
		if err != nil || json.Unmarshal(b, &entry) != nil || entry.ContainerID != container || entry.Network != network {
			continue
		}
		if err := os.Remove(f); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, f)
	}
	return removed, errors.Join(errs...)
}
