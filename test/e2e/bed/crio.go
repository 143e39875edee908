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
runtime_path = ""
runtime_root = "/run/runc"
monitor_cgroup = "pod"
[crio.image]
pause_image = "%[2]s"
signature_policy = "%[1]s/policy.json"
[crio.network]
network_dir = "/etc/cni/net.d"
plugin_dirs = ["%[1]s/bin"]
`

// Crio is the daemon of that name on a host.
type Crio struct{ *Daemon }

// Crio starts the daemon, the program of which is given. Its networks are in
// /etc/cni/net.d. Its pods have a process that serves, as containerd's have.
func (h *Host) Crio(program string) *Crio {
	h.t.Helper()
	h.Write(h.Dir+"/crio.conf", fmt.Sprintf(crioConfig, h.Dir, ImageTag, filepath.Dir(program)))
	h.Write(h.Dir+"/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	h.Run("podman", "--root="+h.Dir+"/storage", "--runroot=/run/storage", "--storage-driver=vfs", "load", "--signature-policy="+h.Dir+"/policy.json", "--input="+h.Image(ImageTag))
	c := &Crio{h.daemon("crio", program+" --config=crio.conf --config-dir= --log-level=warn")}
	c.Start()
	return c
}
