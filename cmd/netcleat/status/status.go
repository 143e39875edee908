// Package status sums up a host's container networks on one screen.
package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/doctor"
	"github.com/netcleat/netcleat/cmd/netcleat/explain"
	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/install"
	"github.com/netcleat/netcleat/cmd/netcleat/runtimes"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/docs/schema"
	"github.com/netcleat/netcleat/pkg/plugin"
	dhcp "github.com/netcleat/netcleat/plugins/dhcp-ipam"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// Status is what there is to say of a host.
type Status struct {
	Version    string         `json:"version"`
	Kernel     string         `json:"kernel"`
	Plugins    []Directory    `json:"plugins"`
	Runtimes   []string       `json:"runtimes"`
	Networks   []Network      `json:"networks"`
	Containers int            `json:"containers"` // attachments
	Unhealthy  []string       `json:"unhealthy"`  // those whose health is not ok, with the reason
	Daemons    []Daemon       `json:"daemons"`
	Doctor     map[string]int `json:"doctor"` // number of findings by level, without "ok"
	places     show.Places
}

// Directory is a directory of plugins.
type Directory struct {
	Dir   string         `json:"dir"`
	Count map[string]int `json:"count"` // plugins by owner: "netcleat v1.9.1"
}

// Network is one network.
type Network struct {
	Name       string   `json:"name"`
	Driver     string   `json:"driver"`
	Containers int      `json:"containers"`
	Use        []string `json:"use"` // of each range set: "12 of 65,533"
}

// Daemon is a daemon that plugins talk to.
type Daemon struct {
	Name  string `json:"name"`
	State string `json:"state"` // "running", or why it is not
	Used  bool   `json:"used"`  // some network needs it
}

// Of looks at the host. What cannot be read is joined to the error.
func Of(ctx context.Context, o doctor.Options) (Status, error) {
	s := Status{Version: plugin.Version, Kernel: kernel(), Doctor: map[string]int{}, Unhealthy: []string{}, Runtimes: []string{}, places: o.Places}
	var errs []error
	for _, dir := range filepath.SplitList(o.Path) {
		d, err := directory(ctx, dir)
		s.Plugins, errs = append(s.Plugins, d), append(errs, err)
	}
	for _, r := range runtimes.Installed(ctx) {
		s.Runtimes = append(s.Runtimes, r.String())
	}
	networks, err := show.Networks(ctx, o.Places)
	errs = append(errs, err)
	errs = append(errs, examined(ctx, o.Places, networks))
	usesDHCP, usesDNS := false, false
	for _, n := range networks {
		s.network(n)
		usesDHCP = usesDHCP || n.IPAM.Driver == "dhcp"
		usesDNS = usesDNS || n.Names && len(n.Containers) > 0
	}
	s.Daemons = []Daemon{{Name: "dhcp", State: state(ctx, dhcp.DefaultSocket), Used: usesDHCP}, {Name: "dns", State: state(ctx, dnsname.SocketOf(o.Journal)), Used: usesDNS}}
	for _, f := range doctor.Examine(ctx, o) {
		if f.Level != finding.Fine {
			s.Doctor[string(f.Level)]++
		}
	}
	return s, errors.Join(errs...)
}

// examined completes the health of the networks' containers as netcleat ls does.
func examined(ctx context.Context, p show.Places, networks []show.Network) error {
	var rows []show.Row
	for _, n := range networks {
		rows = append(rows, n.Containers...)
	}
	rows, err := explain.Health(ctx, explain.Options{Places: p}, rows)
	for i := range networks {
		count := len(networks[i].Containers)
		networks[i].Containers, rows = rows[:count:count], rows[count:]
	}
	return err
}

func (s *Status) network(n show.Network) {
	row := Network{Name: n.Name, Driver: n.Driver, Containers: len(n.Containers), Use: []string{}}
	for _, p := range n.IPAM.Pools {
		row.Use = append(row.Use, p.Use)
	}
	s.Networks = append(s.Networks, row)
	s.Containers += len(n.Containers)
	for _, r := range n.Containers {
		if r.Health != show.Healthy {
			s.Unhealthy = append(s.Unhealthy, fmt.Sprintf("%s %s %s: %s", r.Network, r.Called(), r.Interface, r.Health))
		}
	}
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}

func directory(ctx context.Context, dir string) (Directory, error) {
	d := Directory{Dir: dir, Count: map[string]int{}}
	found, err := install.Installed(ctx, dir, schema.Names())
	for _, whose := range found {
		d.Count[whose]++
	}
	return d, err
}

// state reports whether a daemon answers at its socket.
func state(ctx context.Context, socket string) string {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return "not running"
	}
	_ = c.Close() // it was only connected
	return "running"
}

// Print prints it for people.
func (s Status) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "Version:\tnetcleat v%s, Linux %s\n", s.Version, s.Kernel)
	for _, d := range s.Plugins {
		fmt.Fprintf(t, "Plugins:\t%s: %s\n", d.Dir, d)
	}
	fmt.Fprintf(t, "Runtimes:\t%s\n", cmp.Or(strings.Join(s.Runtimes, ", "), "none of containerd, nerdctl and podman in PATH"))
	for i, n := range s.Networks {
		head := "Networks:"
		if i > 0 {
			head = ""
		}
		fmt.Fprintf(t, "%s\t%s\n", head, n)
	}
	if len(s.Networks) == 0 {
		fmt.Fprintf(t, "Networks:\tnone in %s\n", strings.Join(s.places.Dirs(), ", "))
	}
	fmt.Fprintf(t, "Attachments:\t%d, %d ok\n", s.Containers, s.Containers-len(s.Unhealthy))
	for _, u := range s.Unhealthy {
		fmt.Fprintf(t, "\t%s\n", u)
	}
	for _, d := range s.Daemons {
		if d.Used || d.State == "running" {
			fmt.Fprintf(t, "Daemons:\t%s: %s\n", d.Name, d.State)
		}
	}
	fmt.Fprintf(t, "Doctor:\t%s\n", s.doctor())
	return t.Flush()
}

// String lists the owners of the plugins.
func (d Directory) String() string {
	var words []string
	for _, whose := range slices.Sorted(maps.Keys(d.Count)) {
		words = append(words, fmt.Sprintf("%d of %s", d.Count[whose], whose))
	}
	switch len(words) {
	case 0:
		return "none"
	case 1:
		return words[0]
	}
	return strings.Join(words, ", ") + " (mixed)"
}

// String is the network's line.
func (n Network) String() string {
	text := fmt.Sprintf("%s (%s): %s", n.Name, n.Driver, term.Count(n.Containers, "attachment"))
	if len(n.Use) > 0 {
		text += ", addresses: " + strings.Join(n.Use, "; ")
	}
	return text
}

// doctor says what netcleat doctor would find.
func (s Status) doctor() string {
	var words []string
	for _, l := range []finding.Level{finding.Problem, finding.Warning, finding.Note} {
		if n := s.Doctor[string(l)]; n > 0 {
			words = append(words, term.Count(n, string(l)))
		}
	}
	if len(words) == 0 {
		return "no findings"
	}
	return strings.Join(words, ", ") + " (netcleat doctor lists them)"
}
