package dnsd

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// entry is an attachment that has names.
type entry struct {
	journal.Key
	dnsname.State
	sandbox string // tells the container's attachments from those of others
	created time.Time
}

// newEntry takes a record apart.
func newEntry(r journal.Record) (*entry, error) {
	e := &entry{Key: r.Key, created: r.Created, sandbox: r.ContainerID}
	if id := r.NetnsID; id.Ino != 0 {
		e.sandbox = strconv.FormatUint(id.Ino, 16) + ":" + strconv.FormatUint(id.Cookie, 16)
	}
	return e, r.GetState(&e.State)
}

// all are the names that the attachment answers to.
func (e *entry) all() []string { return slices.Concat(e.Names, e.Aliases) }

// name is the addresses behind one name, in the order of their making, and where
// the next answer begins.
type name struct {
	v4, v6   []netip.Addr
	at4, at6 atomic.Uint32
}

func (n *name) of(v6 bool) ([]netip.Addr, *atomic.Uint32) {
	if v6 {
		return n.v6, &n.at6
	}
	return n.v4, &n.at4
}

// network is the names of one network.
type network struct {
	name    string
	names   map[string]*name
	byAddr  map[netip.Addr]*entry
	domains map[string]int
	remote  map[netip.Addr][]*remote // containers of other hosts
}

// book is what the daemon answers by.
type book struct {
	mu       sync.RWMutex
	entries  map[journal.Key]*entry
	networks map[string]*network
	askers   map[netip.Addr][]*entry // by source address
	members  map[string][]*entry     // by sandbox
	domains  map[string]int          // of all networks
	remotes  map[string]remotes      // by network
}

func newBook() *book {
	return &book{
		entries: map[journal.Key]*entry{}, networks: map[string]*network{}, askers: map[netip.Addr][]*entry{},
		members: map[string][]*entry{}, domains: map[string]int{}, remotes: map[string]remotes{},
	}
}

// put adds an attachment in the place of what was known of it. It returns the
// attachments that it replaces: they have its addresses, so that their containers
// ended without a DEL. An attachment that is older than such a one is
// not added.
func (b *book) put(e *entry) (forgotten []*entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.entries[e.Key]; old != nil {
		b.remove(old)
		forgotten = append(forgotten, old)
	}
	for _, p := range e.Addrs {
		n := b.networks[e.Network]
		if n == nil || n.byAddr[p.Addr()] == nil {
			continue
		}
		other := n.byAddr[p.Addr()]
		if other.created.After(e.created) {
			return forgotten
		}
		b.remove(other)
		forgotten = append(forgotten, other)
	}
	b.add(e)
	return forgotten
}

// drop removes what is known of an attachment, and returns it.
func (b *book) drop(k journal.Key) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[k]
	if e != nil {
		b.remove(e)
	}
	return e
}

// get returns what is known of an attachment.
func (b *book) get(k journal.Key) *entry {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.entries[k]
}

func (b *book) size() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.entries)
}

func (b *book) add(e *entry) {
	n := b.networks[e.Network]
	if n == nil {
		n = &network{name: e.Network, names: map[string]*name{}, byAddr: map[netip.Addr]*entry{}, domains: map[string]int{}, remote: map[netip.Addr][]*remote{}}
		b.networks[e.Network] = n
		b.join(n, e)
	}
	b.entries[e.Key] = e
	b.members[e.sandbox] = append(b.members[e.sandbox], e)
	if e.Domain != "" {
		n.domains[e.Domain]++
		b.domains[e.Domain]++
	}
	for _, p := range e.Addrs {
		a := p.Addr()
		n.byAddr[a] = e
		b.askers[a] = append(b.askers[a], e)
		n.addTo(e.all(), a)
	}
}

// addTo has names answered with an address.
func (n *network) addTo(all []string, a netip.Addr) {
	for _, text := range all {
		if n.names[text] == nil {
			n.names[text] = &name{}
		}
		n.names[text].add(a)
	}
}

// removeFrom ends that.
func (n *network) removeFrom(all []string, a netip.Addr) {
	for _, text := range all {
		if n.names[text].remove(a) {
			delete(n.names, text)
		}
	}
}

func (n *name) add(a netip.Addr) {
	if a.Is6() {
		n.v6 = append(n.v6, a)
	} else {
		n.v4 = append(n.v4, a)
	}
}

func (n *name) remove(a netip.Addr) (empty bool) {
	if a.Is6() {
		n.v6 = without(n.v6, a)
	} else {
		n.v4 = without(n.v4, a)
	}
	return len(n.v4)+len(n.v6) == 0
}

func without[T comparable](list []T, v T) []T {
	if i := slices.Index(list, v); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

func (b *book) remove(e *entry) {
	n := b.networks[e.Network]
	delete(b.entries, e.Key)
	if b.members[e.sandbox] = without(b.members[e.sandbox], e); len(b.members[e.sandbox]) == 0 {
		delete(b.members, e.sandbox)
	}
	if e.Domain != "" {
		less(n.domains, e.Domain)
		less(b.domains, e.Domain)
	}
	for _, p := range e.Addrs {
		a := p.Addr()
		delete(n.byAddr, a)
		if b.askers[a] = without(b.askers[a], e); len(b.askers[a]) == 0 {
			delete(b.askers, a)
		}
		n.removeFrom(e.all(), a)
	}
	if len(n.byAddr) == 0 {
		delete(b.networks, e.Network)
	}
}

func less(count map[string]int, key string) {
	if count[key]--; count[key] == 0 {
		delete(count, key)
	}
}

// asker is the source of a query: the networks of which it may resolve names, and
// whether it has a default route.
type asker struct {
	addr      netip.Addr
	networks  []*network
	outward   bool
	upstreams []netip.AddrPort
}

// arrival is where a query came in.
type arrival struct {
	source  netip.Addr
	index   int // the interface; 0 is unknown, as with TCP, whose source has proved itself
	gateway netip.Addr
}

// who finds the asker; the book is locked. A container is on all networks that
// its sandbox is on. What else has an address of a network that it asks on, and
// came in by its interface, is on that network alone. The host knows the names of
// the network that it asks. For all others known is false.
func (b *book) who(at arrival, links *links) (who asker, known bool) {
	who.addr = at.source
	for _, e := range b.askers[at.source] {
		if links.is(at.index, e) {
			for _, m := range b.members[e.sandbox] {
				who.join(b.networks[m.Network], m)
			}
			return who, true
		}
	}
	for _, n := range b.networks {
		for _, e := range n.byAddr {
			if !slices.Contains(e.Gateways, at.gateway) {
				break // all of a network have the same gateways, but ptp's with their own
			}
			if at.source == at.gateway || e.covers(at.source) && links.is(at.index, e) {
				who.join(n, e)
				return who, true
			}
		}
	}
	return who, false
}

// covers reports whether the address is of the attachment's network.
func (e *entry) covers(a netip.Addr) bool {
	return slices.ContainsFunc(e.Addrs, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (a *asker) join(n *network, e *entry) {
	if n == nil {
		return
	}
	if !slices.Contains(a.networks, n) {
		a.networks = append(a.networks, n)
	}
	if e.Outward {
		a.outward = true
		if len(a.upstreams) == 0 {
			a.upstreams = e.Upstreams
		}
	}
}

// verdict says what a name is to an asker.
type verdict int

const (
	foreign verdict = iota // not ours: to be forwarded
	unknown                // ours, and there is no such name
	found
)

// find looks a name up, in lower case and without its trailing dot, among the
// networks of the asker; the book is locked.
func (b *book) find(who asker, text string) (list []*name, v verdict) {
	for _, n := range who.networks {
		if hit := n.names[text]; hit != nil {
			list = append(list, hit)
			continue
		}
		if host, ok := cutDomain(text, n.domains); ok {
			if host == "" {
				v = found // the domain itself
			} else if hit := n.names[host]; hit != nil {
				list = append(list, hit)
			}
		}
	}
	switch {
	case len(list) > 0 || v == found:
		return list, found
	case !strings.Contains(text, "."):
		return nil, unknown // a plain name is no concern of the world's
	}
	if _, ours := cutDomain(text, b.domains); ours {
		return nil, unknown
	}
	return nil, foreign
}

// cutDomain takes a domain of the set off a name.
func cutDomain(text string, domains map[string]int) (host string, ok bool) {
	for d := range domains {
		if text == d {
			return "", true
		}
		if h, found := strings.CutSuffix(text, "."+d); found {
			return h, true
		}
	}
	return "", false
}

// owner returns the name of the container that has the address, with its domain;
// the book is locked. ours says that the address is of a network of the asker's.
func (b *book) owner(who asker, a netip.Addr) (text string, ours bool) {
	for _, n := range who.networks {
		if e := n.byAddr[a]; e != nil && len(e.Names) > 0 {
			return qualified(e.Names[0], e.Domain), true
		}
		for _, e := range n.byAddr { // any: all have the network's prefixes and domain
			if far := n.remote[a]; len(far) > 0 {
				return qualified(far[0].All()[0], e.Domain), true
			}
			ours = ours || e.covers(a)
			break
		}
	}
	return "", ours
}

// qualified is a name with its domain, if there is one.
func qualified(name, domain string) string {
	if domain == "" {
		return name
	}
	return name + "." + domain
}
