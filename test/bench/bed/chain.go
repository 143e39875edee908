package bed

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// chain is a network list, called as libcni calls it: one process a plugin, with the previous one's result.
type chain struct {
	setup   Setup
	plugins []plugin
}

// plugin is one entry of the list.
type plugin struct {
	path  string
	conf  map[string]json.RawMessage
	ports bool // it has the portMappings capability
}

// newChain reads the list.
func newChain(s Setup) (*chain, error) {
	var list struct {
		Name, CNIVersion json.RawMessage
		Plugins          []map[string]json.RawMessage
	}
	if err := json.Unmarshal(s.List, &list); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	c := &chain{setup: s}
	for _, conf := range list.Plugins {
		var known struct {
			Type         string
			Capabilities struct{ PortMappings bool }
		}
		if err := remarshal(conf, &known); err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
		conf["name"], conf["cniVersion"] = list.Name, list.CNIVersion
		c.plugins = append(c.plugins, plugin{filepath.Join(s.Dir, known.Type), conf, known.Capabilities.PortMappings})
	}
	return c, nil
}

// remarshal copies from into to by way of JSON.
func remarshal(from, to any) error {
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

// run calls the plugins, for DEL in reverse. The configuration is put together outside of the time that is measured.
func (c *chain) run(verb string, a *attachment, start execute) (Cost, error) {
	var total Cost
	plugins := c.plugins
	if verb == "DEL" {
		plugins = slices.Clone(plugins)
		slices.Reverse(plugins)
	}
	for _, p := range plugins {
		stdin, err := c.stdin(p, a)
		if err != nil {
			return total, err
		}
		out, cost, err := start(command{path: p.path, env: c.env(verb, a), stdin: stdin})
		if len(c.setup.Timed) == 0 || slices.Contains(c.setup.Timed, filepath.Base(p.path)) {
			total.add(cost)
		}
		if err != nil {
			return total, fmt.Errorf("%s %s: %w", verb, filepath.Base(p.path), err)
		}
		if verb == "ADD" {
			a.result = out
		}
	}
	return total, nil
}

// env returns a plugin's whole environment.
func (c *chain) env(verb string, a *attachment) []string {
	return []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + a.id, "CNI_NETNS=" + a.sandbox, "CNI_IFNAME=" + c.setup.IfName,
		"CNI_PATH=" + c.setup.Dir, "PATH=" + os.Getenv("PATH"),
	}
}

// stdin returns a plugin's configuration.
func (c *chain) stdin(p plugin, a *attachment) ([]byte, error) {
	conf := maps.Clone(p.conf)
	if len(a.result) > 0 {
		conf["prevResult"] = a.result
	}
	if p.ports && c.setup.Ports > 0 {
		b, err := json.Marshal(map[string]any{"portMappings": portMappings(a.slot, c.setup.Ports)})
		if err != nil {
			return nil, err
		}
		conf["runtimeConfig"] = b
	}
	return json.Marshal(conf)
}

// portMapping is one published port, in the words of the specification.
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
}

// firstPort is the first port that slot 0 publishes.
const firstPort = 10000

// portMappings returns the ports of a slot, which no other slot publishes; the first leads to port 80.
func portMappings(slot, n int) []portMapping {
	var ports []portMapping
	for i := range n {
		ports = append(ports, portMapping{firstPort + slot*n + i, 80 + i, "tcp"})
	}
	return ports
}
