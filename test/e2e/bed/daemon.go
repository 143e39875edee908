package bed

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ImageTag names the only image. It stands for the pause image, too: no registry is
// asked.
const ImageTag = "docker.io/netcleat/peer:1"

// Daemon is a runtime on a host that is called as kubelet calls it.
type Daemon struct {
	Pods    cri.RuntimeServiceClient
	h       *Host
	name    string
	command string // that starts it, in the host's directory
	cgroup  string // of its pods
}

// daemon makes a runtime, not yet started, the socket of which is NAME.sock in the
// host's directory.
func (h *Host) daemon(name, command string) *Daemon {
	h.t.Helper()
	conn, err := grpc.NewClient("unix:"+h.Dir+"/"+name+".sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	h.must(err)
	h.t.Cleanup(func() { _ = conn.Close() })
	h.t.Cleanup(func() {
		if log, err := os.ReadFile(h.Dir + "/" + name + ".log"); h.t.Failed() {
			h.t.Logf("%s: %s %v", name, log[max(0, len(log)-20_000):], err)
		}
	})
	return &Daemon{cri.NewRuntimeServiceClient(conn), h, name, command, h.Cgroup()}
}

// Start starts the daemon and waits until it answers, as it does when it has read
// the networks that are there.
func (d *Daemon) Start() {
	d.h.t.Helper()
	d.h.Sh(`{ ` + d.command + ` >>` + d.name + `.log 2>&1 & echo $! >` + d.name + `.pid; }`)
	d.h.Wait(d.name+" is ready", func() bool {
		ctx, cancel := context.WithTimeout(d.h.ctx, 10*time.Second)
		defer cancel()
		_, err := d.Pods.Status(ctx, &cri.StatusRequest{})
		return err == nil
	})
}

// Stop ends the daemon, not its containers.
func (d *Daemon) Stop() {
	d.h.t.Helper()
	d.end("TERM")
}

// Kill ends the daemon, which has no time to end what it does.
func (d *Daemon) Kill() {
	d.h.t.Helper()
	d.end("KILL")
}

func (d *Daemon) end(signal string) {
	d.h.t.Helper()
	d.h.Sh(`kill -` + signal + ` $(cat ` + d.name + `.pid)`)
	d.h.Wait(d.name+" has ended", func() bool {
		_, err := d.h.Try("sh", "-c", "kill -0 $(cat "+d.name+".pid)")
		return err != nil
	})
}

// PodConfig is what kubelet says of a pod.
func (d *Daemon) PodConfig(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "default"},
		Hostname:     name,
		LogDirectory: d.h.Dir + "/logs",
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: d.cgroup},
		Annotations:  map[string]string{},
	}
}

// Publish adds a port of the host to what kubelet says of a pod.
func Publish(c *cri.PodSandboxConfig, hostPort int32) {
	c.PortMappings = append(c.PortMappings, &cri.PortMapping{Protocol: cri.Protocol_TCP, ContainerPort: 80, HostPort: hostPort})
}

// TryPod runs a pod and asks what the daemon says of it.
func (d *Daemon) TryPod(c *cri.PodSandboxConfig) (Sandbox, error) {
	r, err := d.Pods.RunPodSandbox(d.h.ctx, &cri.RunPodSandboxRequest{Config: c})
	if err != nil {
		return Sandbox{}, err
	}
	return d.Sandbox(r.PodSandboxId)
}

// RunPod is TryPod that must succeed.
func (d *Daemon) RunPod(c *cri.PodSandboxConfig) Sandbox {
	d.h.t.Helper()
	p, err := d.TryPod(c)
	d.h.must(err)
	return p
}

// TryRemove stops and removes a pod as kubelet does, which repeats what succeeded.
func (d *Daemon) TryRemove(p Sandbox) error {
	for range 2 {
		if err := d.stopPod(p); err != nil {
			return err
		}
	}
	_, err := d.Pods.RemovePodSandbox(d.h.ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.ID})
	return err
}

// RemovePods is TryRemove that must succeed.
func (d *Daemon) RemovePods(pods ...Sandbox) {
	d.h.t.Helper()
	for _, p := range pods {
		d.h.must(d.TryRemove(p))
	}
}

// stopPod stops a pod. What is containerd's and its shim's own is asked for again,
// as kubelet does; what is a plugin's is not.
func (d *Daemon) stopPod(p Sandbox) (err error) {
	for range 20 {
		_, err = d.Pods.StopPodSandbox(d.h.ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.ID})
		if err == nil || !shimEnded(err) {
			return err
		}
		d.h.t.Logf("%s: %v", p.Name, err)
		<-time.After(100 * time.Millisecond)
	}
	return err
}

// shimEnded reports whether containerd's shim, which ends with the pod's process,
// has ended while containerd asked it something. That is before containerd calls
// plugins, the errors of which say "failed to destroy network".
func shimEnded(err error) bool {
	text := err.Error()
	return strings.Contains(text, "failed to stop sandbox container") && strings.HasSuffix(strings.TrimSuffix(text, ": unknown"), "ttrpc: closed")
}

// Sandbox is a pod that runs.
type Sandbox struct {
	ID, Name string
	V4, V6   string
	PID      string // of the process that holds its namespaces
	Netns    string // its name in /run/netns
}

// Sandbox returns what the daemon says of a pod.
func (d *Daemon) Sandbox(id string) (Sandbox, error) {
	s, err := d.Pods.PodSandboxStatus(d.h.ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return Sandbox{ID: id}, err
	}
	p := Sandbox{ID: id, Name: s.Status.Metadata.Name, V4: s.Status.Network.GetIp()}
	for _, ip := range s.Status.Network.GetAdditionalIps() {
		p.V6 = ip.Ip
	}
	var info struct {
		Pid         int
		RuntimeSpec struct {
			Linux struct {
				Namespaces []struct{ Type, Path string }
			}
		}
	}
	if err := json.Unmarshal([]byte(s.Info["info"]), &info); err != nil {
		return p, err
	}
	p.PID = strconv.Itoa(info.Pid)
	for _, ns := range info.RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" {
			_, p.Netns = cutLast(ns.Path)
		}
	}
	return p, nil
}

// Sandboxes are the IDs of the pods that run, by the name of the pod.
func (d *Daemon) Sandboxes() (map[string][]string, error) {
	all := map[string][]string{}
	l, err := d.Pods.ListPodSandbox(d.h.ctx, &cri.ListPodSandboxRequest{})
	for _, s := range l.GetItems() {
		if s.State != cri.PodSandboxState_SANDBOX_READY {
			continue
		}
		all[s.Metadata.Name] = append(all[s.Metadata.Name], s.Id)
	}
	return all, err
}

// From asks from within a pod.
func (p Sandbox) From(h *Host) Asker { return h.From("ip", "netns", "exec", p.Netns) }
