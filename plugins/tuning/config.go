package tuning

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// config says what is to be changed.
type config struct {
	Sysctls []setting // in the order of the configuration
	Link    attributes
	DataDir string
}

// setting is a sysctl: as the configuration calls it, and the file below
// /proc/sys.
type setting struct{ Name, Key, Value string }

// changes reports whether ADD has anything to do.
func (c config) changes() bool { return len(c.Sysctls) > 0 || c.Link != attributes{} }

// defaultDataDir is where the reference keeps its backups.
const defaultDataDir = "/run/cni/tuning"

// options are the keys that both the configuration and args.cni may have.
type options struct {
	Sysctl   json.RawMessage `json:"sysctl"`
	MAC      *string         `json:"mac"`
	Promisc  *bool           `json:"promisc"`
	MTU      *int            `json:"mtu"`
	AllMulti *bool           `json:"allmulti"`
	TxQLen   *int            `json:"txQLen"`
}

type document struct {
	options
	DataDir       string `json:"dataDir"`
	RuntimeConfig struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI options `json:"cni"`
	} `json:"args"`
}

// parse reads the configuration. args.cni has the last word; for the MAC address
// the order is the key, CNI_ARGS, the capability, args.cni.
func parse(c *plugin.Call) (config, error) {
	var doc document
	err := c.Decode(&doc)
	conf := config{DataDir: cmp.Or(doc.DataDir, defaultDataDir)}
	if err != nil {
		return conf, err
	}
	if err := c.CheckArgs("MAC"); err != nil {
		return conf, err
	}
	if err := c.CheckDataDir(conf.DataDir); err != nil {
		return conf, err
	}
	if conf.Sysctls, err = doc.sysctls(c.IfName); err != nil {
		return conf, err
	}
	if conf.Link, err = doc.link(c.Arg("MAC")); err != nil {
		return config{DataDir: conf.DataDir}, err
	}
	return conf, nil
}

func (d *document) link(argMAC string) (attributes, error) {
	a := attributes{}
	mac := cmp.Or(d.RuntimeConfig.MAC, argMAC, value(d.MAC))
	if d.Args.CNI.MAC != nil {
		mac = *d.Args.CNI.MAC
	}
	if mac != "" {
		hw, err := net.ParseMAC(mac)
		if err != nil || !usable(hw) {
			return a, cnierr.Config("invalid args %v for MAC addr: not one that an interface can have", mac)
		}
		a.MAC = hw.String()
	}
	if value(cmp.Or(d.Args.CNI.Promisc, d.Promisc)) {
		a.Promisc = yes
	}
	a.MTU = value(cmp.Or(d.Args.CNI.MTU, d.MTU))
	if a.MTU < 0 {
		return a, cnierr.Config("mtu %d: negative", a.MTU)
	}
	if v := cmp.Or(d.Args.CNI.AllMulti, d.AllMulti); v != nil {
		a.AllMulti = choiceOf(*v)
	}
	if v := cmp.Or(d.Args.CNI.TxQLen, d.TxQLen); v != nil {
		if *v < 0 {
			return a, cnierr.Config("txQLen %d: negative", *v)
		}
		a.TxQLen = queue{Set: true, Len: *v}
	}
	return a, nil
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// usable reports whether an interface can have the address: no group's, and not
// all zero.
func usable(mac net.HardwareAddr) bool {
	const ethernet = 6
	return len(mac) != ethernet || mac[0]&1 == 0 && len(bytes.Trim(mac, "\x00")) > 0
}

// sysctls returns the settings, those of args.cni in the place of configured
// ones.
func (d *document) sysctls(ifName string) ([]setting, error) {
	all, err := readSysctls(d.Sysctl, ifName)
	if err != nil {
		return nil, err
	}
	over, err := readSysctls(d.Args.CNI.Sysctl, ifName)
	if err != nil {
		return nil, fmt.Errorf("args.cni: %w", err)
	}
	for _, s := range over {
		if i := slices.IndexFunc(all, func(o setting) bool { return o.Key == s.Key }); i >= 0 {
			all[i] = s
			continue
		}
		all = append(all, s)
	}
	return all, nil
}

// readSysctls reads a JSON object of strings, keeping its order.
func readSysctls(raw json.RawMessage, ifName string) ([]setting, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, cnierr.Newf(cnierr.DecodingFailure, "sysctl: not an object")
	}
	var all []setting
	for dec.More() {
		var s setting
		t, err := dec.Token()
		if err == nil {
			s.Name = t.(string) // a key of an object is nothing else
			err = dec.Decode(&s.Value)
		}
		if err != nil {
			return nil, cnierr.Decode(fmt.Errorf("sysctl %q: %w", s.Name, err))
		}
		if err := s.resolve(ifName); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(o setting) bool { return o.Key == s.Key }) {
			return nil, cnierr.Config("duplicated sysctl keys are not allowed: %q", s.Name)
		}
		all = append(all, s)
	}
	return all, nil
}

// placeholder stands for the interface's name in a key.
const placeholder = "IFNAME"

// resolve turns the name into a path below /proc/sys. As in sysctl(8), the first
// separator decides which of dot and slash separates; the other one is then part
// of an interface's name. The interface's own name may hold dots in either form. A
// path may begin with a slash.
func (s *setting) resolve(ifName string) error {
	key := strings.TrimPrefix(s.Name, "/")
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		if strings.Contains(ifName, ".") {
			key = strings.Replace(key, "."+ifName+".", "."+placeholder+".", 1)
		}
		key = strings.Map(swapSeparators, key)
	}
	s.Key = strings.Replace(key, placeholder, ifName, 1)
	if !isNetKey(s.Key) {
		return cnierr.Config("invalid net sysctl key: %q", s.Name)
	}
	s.Value = strings.TrimSpace(s.Value)
	if !isValue(s.Value) {
		return cnierr.Config("sysctl %q: value %.100q: not one line of printable characters", s.Name, s.Value)
	}
	return nil
}

func swapSeparators(r rune) rune {
	switch r {
	case '.':
		return '/'
	case '/':
		return '.'
	}
	return r
}

// isNetKey reports whether the path stays below net/.
func isNetKey(key string) bool {
	parts := strings.Split(key, "/")
	if len(parts) < 2 || parts[0] != "net" {
		return false
	}
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || len(p) > 255 || strings.ContainsFunc(p, isControlOrBlank) {
			return false
		}
	}
	return true
}

func isControlOrBlank(r rune) bool { return r <= ' ' || r == 0x7f || r == '\ufffd' }

// isValue reports whether the kernel can take the value in one write.
func isValue(v string) bool {
	const page = 4096
	return len(v) < page && !strings.ContainsFunc(v, func(r rune) bool {
		return r < ' ' && r != '\t' || r == 0x7f || r == '\ufffd'
	})
}
