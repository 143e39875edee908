package bed

import (
	"errors"
	"regexp"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// Runtime is the library that runtimes call plugins with, on the host. Its cache
// is where theirs is, in /var/lib/cni.
func (h *Host) Runtime() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{h.Plugins}, h.cache, h.exec())
}

// exec executes plugins on the host.
func (h *Host) exec() *lab.Exec { return &lab.Exec{Command: h.Cmd} }

// Plugin executes one plugin as a runtime without the library does.
func (h *Host) Plugin(name, conf string, env ...string) (string, error) {
	env = append(env, "CNI_PATH="+h.Plugins, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := h.exec().ExecPlugin(h.ctx, h.Plugins+"/"+name, []byte(conf), env)
	return string(out), err
}

// Env is the environment of one call.
func Env(verb, id, netns, ifname string) []string {
	return []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=" + ifname}
}

// Container makes a container, which is a network namespace, and returns what a
// runtime says of its eth0.
func (h *Host) Container(name string) *libcni.RuntimeConf {
	h.t.Helper()
	h.Run("ip", "netns", "add", name)
	h.Run("ip", "-n", name, "link", "set", "lo", "up")
	return &libcni.RuntimeConf{ContainerID: name, NetNS: "/run/netns/" + name, IfName: "eth0", CapabilityArgs: map[string]any{}}
}

// RemoveContainers removes containers' namespaces.
func (h *Host) RemoveContainers(names ...string) {
	h.t.Helper()
	for _, name := range names {
		h.Run("ip", "netns", "del", name)
	}
}

// Serve has peer serve in a container's namespace until the story ends.
func (h *Host) Serve(name string, ports ...string) {
	h.t.Helper()
	serve := []string{"ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", `hostname "$0" && exec "$@"`, name, h.built.peer, "serve"}
	h.must(h.Cmd(append(serve, ports...)...).Start())
}

// In asks from within a container's namespace.
func (h *Host) In(name string) Asker { return h.From("ip", "netns", "exec", name) }

// List reads a list of plugins.
func (h *Host) List(conflist string) *libcni.NetworkConfigList {
	h.t.Helper()
	l, err := libcni.ConfListFromBytes([]byte(conflist))
	h.must(err)
	return l
}

// Add attaches, which must succeed.
func (h *Host) Add(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *current.Result {
	h.t.Helper()
	r, err := h.Runtime().AddNetworkList(h.ctx, l, rt)
	h.must(err)
	result, err := current.NewResultFromResult(r)
	h.must(err)
	return result
}

// Check checks an attachment, which must be as it was made.
func (h *Host) Check(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) {
	h.t.Helper()
	h.must(h.Runtime().CheckNetworkList(h.ctx, l, rt))
}

// Del detaches, which must succeed.
func (h *Host) Del(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) {
	h.t.Helper()
	h.must(h.Runtime().DelNetworkList(h.ctx, l, rt))
}

// GC names the attachments of a network that are valid; the rest goes.
func (h *Host) GC(l *libcni.NetworkConfigList, valid ...*libcni.RuntimeConf) {
	h.t.Helper()
	args := &libcni.GCArgs{}
	for _, rt := range valid {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: rt.ContainerID, IfName: rt.IfName})
	}
	h.must(h.Runtime().GCNetworkList(h.ctx, l, args))
}

// Code is the specification's code of a plugin's error, 0 where it has none.
func Code(err error) uint {
	if said := (*types.Error)(nil); errors.As(err, &said) {
		return said.Code
	}
	return 0
}

// Version is what a program says its version is.
func (h *Host) Version(argv ...string) string {
	h.t.Helper()
	found := version3.FindString(h.Run(argv...))
	if found == "" {
		h.t.Errorf("%s: no version", strings.Join(argv, " "))
	}
	name := argv[0][strings.LastIndexByte(argv[0], '/')+1:]
	return name + " " + found
}

var version3 = regexp.MustCompile(`\d+\.\d+\.\d+`)
