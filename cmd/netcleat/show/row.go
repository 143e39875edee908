// Package show gathers what is attached, from the journal, libcni's cache and
// the kernel, and prints it.
package show

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/runtimes"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/plugins/dnsname"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// Places are where to look.
type Places struct {
	Journal journal.Dir
	Cache   string // libcni's
	NetConf string // directory of conflists; runtimes.Default stands for all that the host's runtimes use
	Nerdctl string // where nerdctl keeps its containers' names
}

// Dirs returns the directories of conflists: NetConf, what nerdctl has in it for
// each namespace of containerd, and where NetConf is the default, also those that
// the runtimes' configuration files name.
func (p Places) Dirs() (dirs []string) {
	dirs = runtimes.Below(p.NetConf)
	if p.NetConf == runtimes.Default {
		for _, d := range runtimes.Root("/").Directories() {
			dirs = append(dirs, runtimes.Below(d)...)
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(dirs, func(d string) bool {
		twice := seen[d]
		seen[d] = true
		return twice
	})
}

// Defaults are the places of a host.
func Defaults() Places {
	return Places{Journal: journal.Default, Cache: CacheDir, NetConf: runtimes.Default, Nerdctl: nerdctlRoot}
}

// Row is one attachment as people see it.
type Row struct {
	Network   string    `json:"network"`
	Container string    `json:"container"`
	Name      string    `json:"name,omitempty"` // what people call the container, where that is known
	Pod       string    `json:"pod,omitempty"`
	Interface string    `json:"interface"`
	Index     int       `json:"index,omitempty"` // of Interface
	HostEnd   string    `json:"hostEnd,omitempty"`
	HostIndex int       `json:"hostIndex,omitempty"`
	Addresses []string  `json:"addresses"`
	MAC       string    `json:"mac,omitempty"`
	Ports     []string  `json:"ports,omitempty"`
	Names     []string  `json:"names,omitempty"` // that dnsname answers to, aliases included
	Created   time.Time `json:"created"`
	Health    string    `json:"health"`
	Netns     string    `json:"netns"`
	Plugins   []string  `json:"plugins"`
	// Recorded says that the journal knows it; else it is another suite's.
	Recorded bool `json:"recorded"`
	// HostKind is the kind of HostEnd, and Master the bridge that it is a port of.
	HostKind string `json:"hostKind,omitempty"`
	Master   string `json:"master,omitempty"`

	// CacheFile is libcni's entry, where it has one.
	CacheFile string `json:"cacheFile,omitempty"`

	// HostMACs are the MAC addresses that the host's links had at ADD, by name.
	HostMACs map[string]string `json:"-"`

	attached attached.Attachment
}

// Attachment is what the journal knows of the row; without records where it is
// another suite's.
func (r Row) Attachment() attached.Attachment { return r.attached }

// What a Row's Health may be, beside a defect in words.
const (
	Healthy = "ok" // as far as can be seen
	Dead    = "sandbox gone"
	Unseen  = "sandbox not found" // which proves nothing
	Leaving = "DEL not finished"
)

// observer looks at what rows speak of.
type observer struct {
	journal journal.Dir
	judge   *evidence.Judge
	links   map[int]*nl.Link // the host's
}

// Rows returns all attachments, by network and age. What cannot be read is
// joined to the error.
func Rows(p Places) (rows []Row, err error) {
	known, err := attached.All(p.Journal)
	cache, cerr := readCache(p.Cache)
	err = errors.Join(err, cerr)
	o, oerr := newObserver(p.Journal)
	if oerr != nil {
		return nil, errors.Join(err, oerr)
	}
	at := map[journal.Key]int{}
	for _, a := range known {
		at[journal.Key{Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName}] = len(rows)
		rows = append(rows, recorded(a))
	}
	for _, c := range cache {
		i, known := at[journal.Key{Network: c.Network, ContainerID: c.ContainerID, IfName: c.IfName}]
		if !known {
			i = len(rows)
			rows = append(rows, Row{Network: c.Network, Container: c.ContainerID, Interface: c.IfName, Created: c.created})
		}
		c.fill(&rows[i])
	}
	nameAll(rows, nerdctlNames(p.Nerdctl))
	err = errors.Join(err, o.lookAll(rows))
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), a.Created.Compare(b.Created), cmp.Compare(a.Container, b.Container))
	})
	return rows, errors.Join(err, o.judge.Close())
}

// recorded is the row of what the journal knows.
func recorded(a attached.Attachment) Row {
	r := Row{Network: a.Network, Container: a.ContainerID, Interface: a.IfName, Created: a.Records[0].Created, Recorded: true, attached: a}
	for _, rec := range a.Records {
		r.Plugins = append(r.Plugins, rec.Plugin)
		r.Netns = cmp.Or(r.Netns, rec.Netns)
		r.Pod = cmp.Or(r.Pod, attached.Pod(rec.Args))
		for _, ip := range rec.IPs {
			if !slices.Contains(r.Addresses, ip.String()) {
				r.Addresses = append(r.Addresses, ip.String())
			}
		}
		for _, l := range rec.Links {
			switch {
			case l.Sandbox && l.Name == a.IfName:
				r.MAC = cmp.Or(r.MAC, l.MAC)
			case !l.Sandbox && r.HostEnd == "":
				r.HostEnd, r.HostIndex = l.Name, l.Index
			}
		}
		if rec.Plugin == "portmap" {
			r.Ports = append(r.Ports, portmap.Published(rec)...)
		}
		if rec.Plugin == dnsname.Name {
			r.Names = append(r.Names, dnsname.Known(rec)...)
		}
	}
	return r
}

func newObserver(dir journal.Dir) (*observer, error) {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	all, err := c.Links()
	if err = errors.Join(err, c.Close()); err != nil {
		return nil, err
	}
	o := &observer{journal: dir, links: make(map[int]*nl.Link, len(all))}
	for _, l := range all {
		o.links[l.Index] = l
	}
	o.judge, err = evidence.New()
	return o, err
}

// lookAll adds what the kernel says, to several at a time: most of it is
// waiting for the kernel.
func (o *observer) lookAll(rows []Row) error {
	const workers = 8
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		twin, err := o.judge.Twin()
		if err != nil {
			errs[w] = err
			break
		}
		worker := &observer{journal: o.journal, judge: twin, links: o.links}
		wg.Go(func() {
			for i := w; i < len(rows); i += workers {
				worker.look(&rows[i])
			}
			errs[w] = twin.Close()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// look adds what the kernel says.
func (o *observer) look(r *Row) {
	r.Health = o.health(r)
	if host := o.links[r.HostIndex]; host != nil {
		r.HostEnd, r.HostKind = host.Name, host.Kind
		if master := o.links[host.Master]; master != nil {
			r.Master = master.Name
		}
	}
}

func (o *observer) health(r *Row) string {
	if r.Recorded {
		switch o.judge.Of(r.attached.Records).State {
		case evidence.Dead:
			return Dead
		case evidence.Unknown:
			return Unseen
		}
		if slices.ContainsFunc(r.attached.Records, func(rec journal.Record) bool { return o.journal.Leaving(rec.Key) }) {
			return Leaving
		}
	}
	l, err := inSandbox(r.Netns, r.Interface)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Unseen
	case err != nil:
		return "no " + r.Interface
	}
	return o.compare(r, l)
}

// inSandbox looks up a link of the namespace at path. Where that is none, the
// error satisfies errors.Is(err, fs.ErrNotExist).
func inSandbox(path, name string) (l *nl.Link, err error) {
	ns, err := netns.Open(path)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	c, err := nl.Dial(ns, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	l, err = c.LinkNamed(name)
	return l, errors.Join(err, c.Close())
}

// compare looks at both ends of what leads into the sandbox.
func (o *observer) compare(r *Row, l *nl.Link) string {
	r.Index = l.Index
	if r.MAC == "" {
		r.MAC = l.MAC.String()
	}
	host := o.links[l.Parent]
	if l.ParentNetns >= 0 && host != nil && (l.Kind != "veth" || host.Kind == "veth" && host.Parent == l.Index) {
		r.HostIndex = host.Index
	}
	switch {
	case !l.Up():
		return r.Interface + " is down"
	case r.HostEnd != "" && o.links[r.HostIndex] == nil:
		return "no " + r.HostEnd
	case host != nil && r.HostIndex == host.Index && !host.Up():
		return host.Name + " is down"
	case host != nil && r.HostIndex == host.Index && host.Kind == "veth" && host.Master == 0 && slices.Contains(r.Plugins, "bridge"):
		return host.Name + " has left its bridge"
	}
	return Healthy
}

// Of returns the rows of a network.
func Of(rows []Row, network string) []Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.Network != network })
}
