package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// The services of a host.
const (
	Etcd   = "etcd"
	Daemon = "daemon"
)

// StartEtcd starts a cluster of etcd with a member on each of the first three hosts.
func (l *Lab) StartEtcd(ctx context.Context) error {
	if _, err := exec.LookPath("etcd"); err != nil {
		return errors.New("etcd is missing: make install-deps")
	}
	for _, h := range l.Hosts[:3] {
		if err := h.StartMember(ctx); err != nil {
			return err
		}
	}
	return nil
}

// StartMember starts the host's member of etcd.
func (h *Host) StartMember(ctx context.Context) error {
	var all []string
	for _, m := range h.lab.Hosts[:3] {
		all = append(all, fmt.Sprintf("%s=http://%s:2380", m.Name, m.Addr))
	}
	return h.Start(ctx, Etcd, "etcd", "--name="+h.Name, "--data-dir="+filepath.Join(h.dir, "etcd"), "--log-level=error",
		"--listen-client-urls=http://0.0.0.0:2379", fmt.Sprintf("--advertise-client-urls=http://%s:2379", h.Addr),
		fmt.Sprintf("--listen-peer-urls=http://%s:2380", h.Addr), fmt.Sprintf("--initial-advertise-peer-urls=http://%s:2380", h.Addr),
		"--initial-cluster="+strings.Join(all, ","), "--initial-cluster-state=new",
		"--auto-compaction-mode=periodic", "--auto-compaction-retention=3s")
}

// Backup copies the data of the host's member, which does not run.
func (h *Host) Backup(ctx context.Context) error {
	_, err := h.Sh(ctx, "cp -a "+h.dir+"/etcd "+h.dir+"/backup")
	return err
}

// Restore puts the copy in the place of the data.
func (h *Host) Restore(ctx context.Context) error {
	_, err := h.Sh(ctx, "rm -rf "+h.dir+"/etcd; cp -a "+h.dir+"/backup "+h.dir+"/etcd")
	return err
}

// Plugins is the directory of the plugins.
func (l *Lab) Plugins() string { return l.plugins }

// Endpoints are the addresses of etcd's members, with commas.
func (l *Lab) Endpoints() string {
	var all []string
	for _, m := range l.Hosts[:3] {
		all = append(all, fmt.Sprintf("http://%s:2379", m.Addr))
	}
	return strings.Join(all, ",")
}

// Settings are the cluster.yaml of every host.
func (l *Lab) Settings() string {
	if len(l.via) > 0 {
		return "endpoints: [" + strings.Join(l.via, ", ") + "]\n" + l.More
	}
	return "endpoints: [" + strings.ReplaceAll(l.Endpoints(), ",", ", ") + "]\n" + l.More
}

// StartDaemon starts the host's cluster daemon, and waits for it to listen.
func (h *Host) StartDaemon(ctx context.Context) error {
	if err := h.Write("/etc/netcleat/cluster.yaml", h.lab.Settings()); err != nil {
		return err
	}
	if err := h.Start(ctx, Daemon, h.lab.netcleat, "cluster", "daemon"); err != nil {
		return err
	}
	return Until(ctx, "the cluster daemon of "+h.Name+" listens", func() error {
		_, err := h.Run(ctx, "test", "-S", "/run/cni/cluster.sock")
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, h.Log(Daemon))
		}
		return err
	})
}

// Running waits until the daemon has joined the cluster.
func (h *Host) Running(ctx context.Context) error {
	return Until(ctx, h.Name+" has joined the cluster", func() error {
		out, err := h.Netcleat(ctx, "cluster", "status")
		if err == nil && !strings.Contains(out, h.Name+" ") {
			err = errors.New(out + h.Log(Daemon))
		}
		return err
	})
}
