package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// Exec executes plugins for libcni by the command that it is given, such as one that
// enters a host.
type Exec struct {
	invoke.DefaultExec
	Command func(argv ...string) *exec.Cmd
}

// ExecPlugin executes one plugin.
func (e *Exec) ExecPlugin(_ context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	cmd := e.Command(append(append([]string{"env", "-i"}, relevant(environ)...), path)...)
	cmd.WaitDelay = time.Minute // a plugin that leaves a process with its output behind blocks runtimes for ever
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	var said types.Error
	if json.Unmarshal(stdout.Bytes(), &said) == nil && said.Msg != "" {
		return nil, &said
	}
	return nil, fmt.Errorf("%s: %w: %s%s", path, err, &stdout, &stderr)
}

// Decode is the library's.
func (e *Exec) Decode(b []byte) (version.PluginInfo, error) {
	return (&version.PluginDecoder{}).Decode(b)
}

// relevant are the variables of an environment that a daemon gives to plugins.
func relevant(environ []string) []string {
	var all []string
	for _, v := range environ {
		if strings.HasPrefix(v, "CNI_") || strings.HasPrefix(v, "PATH=") || strings.HasPrefix(v, "XDG_") {
			all = append(all, v)
		}
	}
	return all
}

// Container is a network namespace on a host, with an interface eth0.
type Container struct {
	Name string
	Host *Host
	Addr []netip.Addr
	MAC  string
	list *libcni.NetworkConfigList
	args [][2]string
}

// Attach makes a container, the ID of which no other host has, and attaches it to a network, as a runtime does. ip is the
// address that it asks for, or "".
func (h *Host) Attach(ctx context.Context, conflist, name, ip string) (c *Container, err error) {
	c = &Container{Name: name, Host: h}
	if c.list, err = libcni.ConfListFromBytes([]byte(conflist)); err != nil {
		return nil, err
	}
	if ip != "" {
		c.args = [][2]string{{"IgnoreUnknown", "1"}, {"IP", ip}}
	}
	if _, err := h.Sh(ctx, "ip netns add "+name+"; ip -n "+name+" link set lo up"); err != nil {
		return nil, err
	}
	out, err := h.runtime(ctx).AddNetworkList(ctx, c.list, c.conf())
	if err != nil {
		_, nerr := h.Run(ctx, "ip", "netns", "del", name)
		if nerr != nil {
			err = fmt.Errorf("%w; %w", err, nerr)
		}
		return nil, err
	}
	r, err := current.NewResultFromResult(out)
	if err != nil {
		return nil, err
	}
	if len(r.DNS.Nameservers) > 0 {
		if err := h.Write("/etc/netns/"+name+"/resolv.conf", resolvConf(r.DNS)); err != nil {
			return nil, err
		}
	}
	for _, ip := range r.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		c.Addr = append(c.Addr, a.Unmap())
	}
	for _, i := range r.Interfaces {
		if i.Sandbox != "" {
			c.MAC = i.Mac
		}
	}
	return c, nil
}

// resolvConf is what runtimes write into a container. Where it has no domain of its own it
// has none of the machine's either.
func resolvConf(d types.DNS) string {
	text := "search " + strings.Join(append(d.Search, "."), " ") + "\n"
	for _, server := range d.Nameservers {
		text += "nameserver " + server + "\n"
	}
	return text
}

// Detach detaches the container and removes it.
func (c *Container) Detach(ctx context.Context) error {
	if err := c.Host.runtime(ctx).DelNetworkList(ctx, c.list, c.conf()); err != nil {
		return err
	}
	_, err := c.Host.Run(ctx, "ip", "netns", "del", c.Name)
	return err
}

// Check checks the attachment.
func (c *Container) Check(ctx context.Context) error {
	return c.Host.runtime(ctx).CheckNetworkList(ctx, c.list, c.conf())
}

// In runs a program in the container.
func (c *Container) In(ctx context.Context, argv ...string) (string, error) {
	return c.Host.Run(ctx, append([]string{"ip", "netns", "exec", c.Name}, argv...)...)
}

// Ping sends one echo request and waits for the answer.
func (c *Container) Ping(ctx context.Context, to netip.Addr) error {
	_, err := c.In(ctx, "ping", "-c1", "-W3", to.String())
	return err
}

// Neighbour is the hardware address that the container has for an address.
func (c *Container) Neighbour(ctx context.Context, a netip.Addr) (string, error) {
	out, err := c.In(ctx, "ip", "neigh", "show", "to", a.String(), "dev", "eth0")
	_, mac, _ := strings.Cut(out, "lladdr ")
	mac, _, _ = strings.Cut(mac, " ")
	return mac, err
}

func (c *Container) conf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: c.Host.Name + "-" + c.Name, NetNS: "/run/netns/" + c.Name, IfName: "eth0", Args: c.args}
}

// Call calls one plugin, as a runtime without the library does.
func (h *Host) Call(ctx context.Context, plugin, conf string, env ...string) ([]byte, error) {
	env = append(env, "CNI_PATH="+h.lab.plugins, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	return h.exec(ctx).ExecPlugin(ctx, filepath.Join(h.lab.plugins, plugin), []byte(conf), env)
}

// exec executes plugins on the host.
func (h *Host) exec(ctx context.Context) *Exec {
	return &Exec{Command: func(argv ...string) *exec.Cmd { return h.space.command(ctx, argv...) }}
}

// runtime is the library that runtimes call plugins with, on the host.
func (h *Host) runtime(ctx context.Context) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{h.lab.plugins}, filepath.Join(h.dir, "cache"), h.exec(ctx))
}
