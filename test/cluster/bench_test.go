package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/netcleat/netcleat/test/cluster/lab"
)

// measuring is set where this program runs on a host, to call plugins without a
// program in between. Its value is what is measured.
const measuring = "CLUSTER_MEASURE"

// medians are what is measured on a host, in milliseconds.
type medians map[string]float64

// measure measures, on a host, and prints.
func measure(what string) error {
	m := medians{}
	calls := caller{plugins: os.Getenv("CNI_PATH")}
	var err error
	switch what {
	case "steady":
		err = calls.steady(m)
	default: // networks, of which this host has no block yet
		err = calls.fresh(m, strings.Fields(what))
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

// caller calls IPAM plugins.
type caller struct{ plugins string }

func conf(name, ipam string) string {
	return `{"cniVersion":"1.0.0","name":"` + name + `","type":"macvlan","ipam":{"type":"` + ipam + `","subnet":"10.0.0.0/16","blockSize":24}}`
}

// call is one call, with the time that it takes.
func (c caller) call(verb, plugin, network string, n int) (time.Duration, error) {
	cmd := exec.Command(filepath.Join(c.plugins, plugin))
	cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + fmt.Sprint("c", n), "CNI_NETNS=/run/netns/c", "CNI_IFNAME=eth0", "CNI_PATH=" + c.plugins}
	cmd.Stdin = strings.NewReader(conf(network, plugin))
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s %s: %w: %s", plugin, verb, network, err, out)
	}
	return time.Since(start), err
}

// steady calls host-local and cluster-local in turns, with a hundred leases each.
func (c caller) steady(m medians) error {
	const leases, rounds = 100, 300
	took := map[string][]time.Duration{}
	for i := range leases + rounds {
		plugins := []string{"host-local", "cluster-local"}
		if i%2 == 0 {
			slices.Reverse(plugins)
		}
		for _, p := range plugins {
			t, err := c.call("ADD", p, p, i)
			if err != nil {
				return err
			}
			if i < leases {
				continue
			}
			took[p+" ADD"] = append(took[p+" ADD"], t)
			if t, err = c.call("DEL", p, p, i); err != nil {
				return err
			}
			took[p+" DEL"] = append(took[p+" DEL"], t)
		}
	}
	for what, all := range took {
		m[what] = median(all)
	}
	return nil
}

// fresh calls ADD in networks of which the host has no block, then in the same ones
// again, and asks etcd for one change each time.
func (c caller) fresh(m medians, networks []string) error {
	etcd, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(os.Getenv("ENDPOINTS"), ",")})
	if err != nil {
		return err
	}
	defer func() { _ = etcd.Close() }()
	took := map[string][]time.Duration{}
	for i, network := range networks {
		for j, what := range []string{"new block", "steady"} {
			t, err := c.call("ADD", "cluster-local", network, 2*i+j)
			if err != nil {
				return err
			}
			took[what] = append(took[what], t)
		}
		start := time.Now()
		if _, err := etcd.Put(context.Background(), "/bench", network); err != nil {
			return err
		}
		took["round trip"] = append(took["round trip"], time.Since(start))
	}
	for what, all := range took {
		m[what] = median(all)
	}
	return nil
}

func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2].Microseconds()) / 1000
}

// on measures on a host.
func on(b *testing.B, l *lab.Lab, h *lab.Host, what string) medians {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	out, err := h.Run(b.Context(), "env", measuring+"="+what, "CNI_PATH="+l.Plugins(), "ENDPOINTS="+l.Endpoints(), self)
	if err != nil {
		b.Fatal(err)
	}
	m := medians{}
	if err := json.NewDecoder(bytes.NewReader([]byte(out))).Decode(&m); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return m
}

// running makes hosts on which all services run.
func running(b *testing.B) *lab.Lab {
	b.Helper()
	s := newStory(b, dual)
	for _, h := range s.Hosts {
		if _, err := h.Run(b.Context(), "ip", "netns", "add", "c"); err != nil {
			b.Fatal(err)
		}
	}
	return s.Lab
}

// BenchmarkSteady compares ADD and DEL of cluster-local, within a block of the host,
// with host-local's.
func BenchmarkSteady(b *testing.B) {
	l := running(b)
	for range b.N {
		m := on(b, l, l.Hosts[0], "steady")
		for _, verb := range []string{"ADD", "DEL"} {
			for _, p := range []string{"host-local ", "cluster-local "} {
				b.ReportMetric(m[p+verb], strings.ReplaceAll(p+verb, " ", "-")+"-ms")
			}
			b.ReportMetric(m["cluster-local "+verb]/m["host-local "+verb], verb+"-ratio")
		}
	}
	b.ReportMetric(0, "ns/op") // of all calls together: says nothing
}

// BenchmarkNewBlock compares an ADD that has to wait for a block with one that has
// not, and with a change of etcd by its client, on the same host.
func BenchmarkNewBlock(b *testing.B) {
	l := running(b)
	for round := range b.N {
		var networks []string
		for i := range 40 {
			networks = append(networks, fmt.Sprintf("n%d-%d", round, i))
		}
		on(b, l, l.Hosts[1], strings.Join(networks, " ")) // which records how they are cut
		m := on(b, l, l.Hosts[0], strings.Join(networks, " "))
		b.ReportMetric(m["new block"], "new-block-ms")
		b.ReportMetric(m["steady"], "steady-ms")
		b.ReportMetric(m["round trip"], "round-trip-ms")
		b.ReportMetric(m["new block"]-m["steady"]-m["round trip"], "more-than-a-round-trip-ms")
	}
	b.ReportMetric(0, "ns/op") // as above
}
