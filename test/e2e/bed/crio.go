package bed

import (
	"fmt"
	"path/filepath"
)

const crioConfig = `
[crio]
root = "%[1]s/storage"
runroot = "/run/storage"
storage_driver = "vfs"
log_dir = "%[1]s/pods"
version_file = "/run/crio/version"
version_file_persist = "%[1]s/version"
clean_shutdown_file = "%[1]s/clean.shutdown"
[crio.api]
listen = "%[1]s/crio.sock"
[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
drop_infra_ctr = false
pinns_path = "%[3]s/pinns"
irqbalance_config_restore_file = "disable"
container_exits_dir = "/run/crio/exits"
container_attach_socket_dir = "/run/crio"
[crio.runtime.runtimes.runc]
runtime_path = "%[1]s/runc"
runtime_root = "/run/runc"
monitor_cgroup = "pod"
[crio.image]
pause_image = "%[2]s"
pause_command = ""
signature_policy = "%[1]s/policy.json"
[crio.network]
network_dir = "/etc/cni/net.d"
plugin_dirs = ["%[1]s/bin"]
`

// runc is runc for CRI-O, which has no setting such as containerd's
// restrict_oom_score_adj: a root without CAP_SYS_RESOURCE cannot protect pods.
const runc = `#!/bin/sh
for word; do
	[ "$before" != --bundle ] || sed -i 's/"oomScoreAdj": *-[0-9]*/"oomScoreAdj": '$(cat /proc/self/oom_score_adj)/ "$word/config.json"
	before=$word
done
exec runc "$@"
`

// Crio is the daemon of that name on a host.
type Crio struct{ *Daemon }

// Crio starts the daemon, the program of which is given. Its networks are in
// /etc/cni/net.d. Its pods have a process that serves, as containerd's have.
func (h *Host) Crio(program string) *Crio {
	h.t.Helper()
	h.Write(h.Dir+"/crio.conf", fmt.Sprintf(crioConfig, h.Dir, ImageTag, filepath.Dir(program)))
	h.Write(h.Dir+"/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	h.Write(h.Dir+"/runc", runc)
	h.Run("chmod", "755", h.Dir+"/runc")
	h.Run("podman", "--root="+h.Dir+"/storage", "--runroot=/run/storage", "--storage-driver=vfs", "load", "--signature-policy="+h.Dir+"/policy.json", "--input="+h.Image(ImageTag))
	c := &Crio{h.daemon("crio", program+" --config=crio.conf --config-dir= --log-level=warn")}
	c.Start()
	return c
}
