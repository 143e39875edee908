package show

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
)

// CacheDir is where libcni keeps what it has attached, with whichever plugins.
const CacheDir = "/var/lib/cni/results"

// cached is an attachment as libcni remembers it.
type cached struct {
	ContainerID    string      `json:"containerId"`
	IfName         string      `json:"ifName"`
	Network        string      `json:"networkName"`
	Netns          string      `json:"netns"`
	Config         []byte      `json:"config"`
	Args           [][2]string `json:"cniArgs"`
	CapabilityArgs struct {
		PortMappings []struct {
			HostPort      int    `json:"hostPort"`
			ContainerPort int    `json:"containerPort"`
			Protocol      string `json:"protocol"`
			HostIP        string `json:"hostIP"`
		} `json:"portMappings"`
	} `json:"capabilityArgs"`
	Result struct {
		Interfaces []struct {
			Name    string `json:"name"`
			MAC     string `json:"mac"`
			Sandbox string `json:"sandbox"`
		} `json:"interfaces"`
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	} `json:"result"`

	created time.Time
	path    string
}

// readCache reads libcni's cache. What cannot be read is joined to the error.
func readCache(dir string) (all []cached, err error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	errs := []error{err}
	for _, f := range files {
		c := cached{path: filepath.Join(dir, f.Name())}
		b, err := os.ReadFile(c.path)
		if errors.Is(err, fs.ErrNotExist) || !f.Type().IsRegular() {
			continue
		}
		if err == nil {
			err = json.Unmarshal(b, &c)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.path, err))
			continue
		}
		if st, err := f.Info(); err == nil {
			c.created = st.ModTime()
		}
		if c.ContainerID != "" && !c.loopback() {
			all = append(all, c)
		}
	}
	return all, errors.Join(errs...)
}

// args writes the arguments as CNI_ARGS has them.
func (c cached) args() string {
	var pairs []string
	for _, p := range c.Args {
		pairs = append(pairs, p[0]+"="+p[1])
	}
	return strings.Join(pairs, ";")
}

func (c cached) ports() (list []string) {
	for _, p := range c.CapabilityArgs.PortMappings {
		if p.HostPort == 0 {
			continue
		}
		if p.HostIP == "" {
			p.HostIP = "*"
		}
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		list = append(list, fmt.Sprintf("%s:%d->%d/%s", p.HostIP, p.HostPort, p.ContainerPort, strings.ToLower(p.Protocol)))
	}
	return list
}

// fill adds to the row what the cache knows and the journal does not say.
func (c cached) fill(r *Row) {
	r.CacheFile = c.path
	r.Netns = cmp.Or(r.Netns, c.Netns, c.sandbox())
	if r.Pod == "" {
		r.Pod = attached.Pod(c.args())
	}
	if len(r.Ports) == 0 {
		r.Ports = c.ports()
	}
	if len(r.Addresses) == 0 {
		for _, ip := range c.Result.IPs {
			r.Addresses = append(r.Addresses, ip.Address)
		}
	}
	for _, i := range c.Result.Interfaces {
		if i.Sandbox != "" && i.Name == c.IfName && r.MAC == "" {
			r.MAC = i.MAC
		}
		if i.Sandbox == "" {
			if r.HostMACs == nil {
				r.HostMACs = make(map[string]string)
			}
			r.HostMACs[i.Name] = i.MAC
		}
	}
	if len(r.Plugins) == 0 {
		r.Plugins = c.plugins()
	}
}

// sandbox is the namespace that the result speaks of: libcni before 1.2, in
// containerd 1.6 and podman 4, does not write it down otherwise.
func (c cached) sandbox() (path string) {
	for _, i := range c.Result.Interfaces {
		if i.Sandbox != "" && (path == "" || i.Name == c.IfName) {
			path = i.Sandbox
		}
	}
	return path
}

// loopback reports whether it is a sandbox's own lo, which runtimes bring up in
// every pod: no network that anybody has made.
func (c cached) loopback() bool { return slices.Equal(c.plugins(), []string{"loopback"}) }

func (c cached) plugins() (names []string) {
	var conf struct {
		Type    string `json:"type"`
		Plugins []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	if json.Unmarshal(c.Config, &conf) != nil {
		return nil
	}
	for _, p := range conf.Plugins {
		names = append(names, p.Type)
	}
	if conf.Type != "" {
		names = append(names, conf.Type)
	}
	return slices.Compact(names)
}
