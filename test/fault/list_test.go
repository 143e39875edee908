package fault

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/fault/stepper"
)

// object is a JSON object.
type object = map[string]any

// list is a network: the plugins of its attachments.
type list struct {
	name    string
	plugins []object
}

// title names the plugins.
func (l list) title() string {
	var all []string
	for _, p := range l.plugins {
		name := p["type"].(string)
		if p["ipam"] != nil {
			name += ", host-local"
		}
		all = append(all, name)
	}
	if b, ok := l.plugins[0]["ipMasqBackend"]; ok {
		return strings.Join(all, ", ") + fmt.Sprintf(" (%s)", b)
	}
	return strings.Join(all, ", ")
}

func network(name string, n int) object {
	return object{"type": "bridge", "bridge": fmt.Sprintf("cni%d", n), "isGateway": true, "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": pool(name, n)}
}

func pool(_ string, n int) object {
	return object{"type": "host-local", "ranges": []any{
		[]any{object{"subnet": fmt.Sprintf("10.%d.0.0/24", n)}},
		[]any{object{"subnet": fmt.Sprintf("fd00:%d::/64", n)}},
	}}
}

// with is an object with more keys.
func with(o object, more object) object {
	o = maps.Clone(o)
	maps.Copy(o, more)
	return o
}

// chained is a network with published ports and a firewall, all by one backend.
func chained(name string, n int, backend string) list {
	return list{name, []object{
		with(network(name, n), object{"ipMasqBackend": backend}),
		{"type": "portmap", "backend": backend, "capabilities": object{"portMappings": true}},
		firewalls[backend],
	}}
}

// firewalls are the configurations of firewall; the reference's has no nftables.
var firewalls = map[string]object{
	"nftables": {"type": "firewall"},
	"iptables": {"type": "firewall", "backend": "iptables"},
}

// lists are those that are killed at every change.
func lists() []list {
	return []list{
		chained("nft", 1, "nftables"),
		chained("ipt", 2, "iptables"),
		{"macvlan", []object{{"type": "macvlan", "master": "lan0", "ipam": pool("macvlan", 3)}}},
		{"ptp", []object{{"type": "ptp", "ipMasq": true, "ipMasqBackend": "nftables", "ipam": pool("ptp", 4)}}},
	}
}

// judged are plugins under judgement.
type judged struct {
	name string
	dir  string
}

// fromOutside are plugins that the tests have not built.
const fromOutside = "CNI_BIN"

// suite returns the plugins to judge: ours, or those in CNI_BIN.
func suite(t *testing.T) judged {
	t.Helper()
	if dir := os.Getenv("CNI_BIN"); dir != "" {
		return judged{fromOutside, dir}
	}
	watch(t)
	dir, err := filepath.Abs(ours)
	must(t, err)
	return judged{"netcleat", dir}
}

// attachment is one container's on one network.
type attachment struct {
	judged
	list
	id, ifname string
	netns      string
	port       int    // the host's
	result     []byte // of the ADD that succeeded
}

// failure is what a plugin answered that failed.
type failure struct {
	plugin string
	code   uint
	text   string
	killed bool
}

func (f *failure) Error() string { return fmt.Sprintf("%s: code %d: %s", f.plugin, f.code, f.text) }

// runner runs one plugin.
type runner func(stepper.Command) (stepper.Outcome, error)

// call runs one plugin of the list with the verb. The answer of an ADD is the
// result; err is a *failure where the plugin failed.
func (a *attachment) call(run runner, verb string, p object, more object) ([]byte, error) {
	conf := with(p, object{"cniVersion": "1.1.0", "name": a.list.name})
	if a.port > 0 && p["capabilities"] != nil {
		conf["runtimeConfig"] = object{"portMappings": []any{object{"hostPort": a.port, "containerPort": 80, "protocol": "tcp"}}}
	}
	maps.Copy(conf, more)
	stdin, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	name := p["type"].(string)
	o, err := run(stepper.Command{
		Path: filepath.Join(a.dir, name), Stdin: stdin,
		Env: []string{
			"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + a.id, "CNI_IFNAME=" + a.ifname, "CNI_NETNS=" + a.netns, "CNI_PATH=" + a.dir,
			"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		},
	})
	if err != nil {
		return nil, err
	}
	if o.Exit == 0 {
		return []byte(o.Stdout), nil
	}
	f := &failure{plugin: name, text: o.Stdout + o.Stderr, killed: o.Exit < 0}
	var said struct {
		Code         uint
		Msg, Details string
	}
	if json.Unmarshal([]byte(o.Stdout), &said) == nil {
		f.code, f.text = said.Code, said.Msg
	}
	return nil, f
}

// prev is the key of a result so far.
func prev(result []byte) object {
	if len(result) == 0 {
		return nil
	}
	return object{"prevResult": json.RawMessage(result)}
}

// add runs ADD of all plugins, as a runtime does.
func (a *attachment) add(run runner) error {
	var result []byte
	for _, p := range a.plugins {
		var err error
		if result, err = a.call(run, "ADD", p, prev(result)); err != nil {
			return err
		}
	}
	a.result = result
	return nil
}

func (a *attachment) check(run runner) error {
	for _, p := range a.plugins {
		if _, err := a.call(run, "CHECK", p, prev(a.result)); err != nil {
			return err
		}
	}
	return nil
}

// del runs DEL of all plugins, the last one first, and stops at an error as
// runtimes do.
func (a *attachment) del(run runner) error {
	for _, p := range slices.Backward(a.plugins) {
		if _, err := a.call(run, "DEL", p, prev(a.result)); err != nil {
			return err
		}
	}
	a.result = nil
	return nil
}

// gc names the attachments that are valid to all plugins.
func (a *attachment) gc(run runner, valid ...object) error {
	if valid == nil {
		valid = []object{}
	}
	for _, p := range a.plugins {
		if _, err := a.call(run, "GC", p, object{"cni.dev/valid-attachments": valid}); err != nil {
			return err
		}
	}
	return nil
}

// addresses are those of the result.
func (a *attachment) addresses() (all []string) {
	var r struct{ IPs []struct{ Address string } }
	_ = json.Unmarshal(a.result, &r)
	for _, ip := range r.IPs {
		addr, _, _ := strings.Cut(ip.Address, "/")
		all = append(all, addr)
	}
	return all
}

// stepped is a runner that makes the plan's fault at the n-th change of all
// the programs that it runs.
type stepped struct {
	plan    stepper.Plan
	changes []string
	hit     string
	each    []int // how many changes each program made
}

func (s *stepped) run(c stepper.Command) (stepper.Outcome, error) {
	p := stepper.Plan{Errno: s.plan.Errno}
	if s.plan.At > len(s.changes) {
		p.At = s.plan.At - len(s.changes)
	}
	o, err := stepper.Run(c, p)
	s.changes = append(s.changes, o.Changes...)
	s.each = append(s.each, len(o.Changes))
	if o.Hit {
		s.hit = filepath.Base(c.Path) + ": " + o.Changes[len(o.Changes)-1]
	}
	return o, err
}
