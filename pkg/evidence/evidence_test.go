package evidence

import (
	"errors"
	"os"
	"testing"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
)

var (
	host   = netns.ID{Dev: 4, Ino: 10, Cookie: 1}
	other  = netns.ID{Dev: 4, Ino: 11, Cookie: 2} // another host
	ended  = netns.ID{Dev: 4, Ino: 20, Cookie: 3}
	exists = netns.ID{Dev: 4, Ino: 21, Cookie: 4}
	end    = []journal.Link{{Name: "veth1", Index: 5}}
)

// seer is what a test's judge can see.
type seer struct {
	kernel bool // the kernel finds namespaces by their identity
	held   error
	end    bool  // the end on the host is there
	asking error // it cannot be asked for
}

func (s seer) judge() *Judge {
	j := &Judge{host: host, boot: 7}
	j.exists = func(id netns.ID) (bool, error) {
		if !s.kernel {
			return false, netns.ErrUnsupported
		}
		return id.Same(exists) || id.Same(other), nil
	}
	j.held = func() (map[uint64]string, error) {
		return map[uint64]string{10: "/none", 11: "/none", 21: "/none"}, s.held
	}
	j.find = func(journal.Link) (bool, error) { return s.end, s.asking }
	return j
}

func record(plugin string, sandbox netns.ID) journal.Record {
	r := journal.Record{Key: journal.Key{Plugin: plugin}, Netns: "/no/such", NetnsID: sandbox, HostID: host, Boot: 7}
	if plugin == "bridge" || plugin == "ptp" {
		r.Links = end
	}
	return r
}

func with(r journal.Record, change func(*journal.Record)) journal.Record {
	change(&r)
	return r
}

// Each kind of evidence. What is not proven is not dead.
func TestOf(t *testing.T) {
	elsewhere := func(r *journal.Record) { r.HostID = other }
	kernel, proc, blind := seer{kernel: true}, seer{}, seer{held: netns.ErrBlind}
	for _, c := range []struct {
		what    string
		records []journal.Record
		sees    seer
		want    State
	}{
		{"no records", nil, kernel, Unknown},
		{"the namespace exists", []journal.Record{record("macvlan", exists)}, kernel, Alive},
		{"the namespace has ended", []journal.Record{record("macvlan", ended)}, kernel, Dead},
		{"nothing holds the namespace", []journal.Record{record("macvlan", ended)}, proc, Dead},
		{"something holds the namespace", []journal.Record{record("macvlan", exists)}, proc, Unknown},
		{"the holders cannot be seen", []journal.Record{record("macvlan", ended)}, blind, Unknown},
		{"no end on the host, and the namespace exists", []journal.Record{record("bridge", exists)}, kernel, Alive},
		{"no end on the host, and the holders cannot be seen", []journal.Record{record("bridge", ended)}, blind, Unknown},
		{"an end on the host, and no namespace", []journal.Record{record("ptp", ended)}, seer{kernel: true, end: true}, Alive},
		{"an end on the host, and no holder", []journal.Record{record("ptp", ended)}, seer{end: true}, Alive},
		{"an end on the host that cannot be asked for", []journal.Record{record("ptp", ended)}, seer{kernel: true, asking: errors.New("no memory")}, Unknown},
		{"a record without a namespace", []journal.Record{record("bridge", netns.ID{})}, kernel, Unknown},
		{"a record without a namespace, with an end on the host", []journal.Record{record("bridge", netns.ID{})}, seer{kernel: true, end: true}, Alive},
		{"one of two records names a namespace", []journal.Record{record("bridge", netns.ID{}), record("portmap", ended)}, kernel, Dead},
		{"one of two records shows the end on the host", []journal.Record{record("portmap", ended), record("bridge", ended)}, seer{kernel: true, end: true}, Alive},
		{"one of two namespaces exists", []journal.Record{record("portmap", ended), record("firewall", exists)}, kernel, Alive},
		{"one of two namespaces may exist", []journal.Record{record("portmap", ended), record("firewall", exists)}, proc, Unknown},
		{"an end on another host that exists", []journal.Record{with(record("bridge", ended), elsewhere)}, kernel, Unknown},
		{"an end on another host that has ended", []journal.Record{with(record("bridge", ended), func(r *journal.Record) { r.HostID = netns.ID{Dev: 4, Ino: 12, Cookie: 9} })}, kernel, Dead},
		{"an end on a host that is not known", []journal.Record{with(record("bridge", ended), func(r *journal.Record) { r.HostID = netns.ID{} })}, kernel, Unknown},
		{"no end, and made from another host", []journal.Record{with(record("macvlan", ended), elsewhere)}, kernel, Dead},
		{"an earlier boot", []journal.Record{with(record("bridge", exists), func(r *journal.Record) { r.Boot = 6 })}, seer{end: true, kernel: true}, Dead},
		{"an earlier boot and this one", []journal.Record{with(record("bridge", exists), func(r *journal.Record) { r.Boot = 6 }), record("bridge", exists)}, kernel, Alive},
		{"a boot that is not known", []journal.Record{with(record("bridge", exists), func(r *journal.Record) { r.Boot = 0 })}, kernel, Alive},
	} {
		if v := c.sees.judge().Of(c.records); v.State != c.want {
			t.Errorf("%s: want %s, got %v", c.what, c.want, v)
		}
	}
}

// A path that leads to the sandbox is enough, and one that cannot be looked at is an
// obstacle where the kernel does not tell.
func TestOfLooksAtThePath(t *testing.T) {
	own, err := netns.Identify(netns.Own)
	if err != nil {
		t.Fatal(err)
	}
	later := own
	later.Cookie = 1<<63 + 1
	for _, c := range []struct {
		what, path string
		sandbox    netns.ID
		sees       seer
		want       State
	}{
		{"leads there", netns.Own, own, seer{held: netns.ErrBlind}, Alive},
		{"leads to another", netns.Own, ended, seer{held: netns.ErrBlind}, Unknown},
		{"leads to another, and nothing holds it", netns.Own, ended, seer{}, Dead},
		{"leads to a later one of the number", netns.Own, later, seer{held: netns.ErrBlind}, Dead},
		{"is no namespace", "/etc/passwd", ended, seer{}, Dead},
		{"leads through a file", "/etc/passwd/a", ended, seer{}, Dead},
		{"is a loop", loop(t), ended, seer{}, Unknown},
		{"is another kind of namespace", "/proc/self/ns/uts", ended, seer{}, Unknown},
	} {
		r := record("macvlan", c.sandbox)
		r.Netns = c.path
		if v := c.sees.judge().Of([]journal.Record{r}); v.State != c.want {
			t.Errorf("a path that %s: want %s, got %v", c.what, c.want, v)
		}
	}
}

func TestHere(t *testing.T) {
	j := seer{}.judge()
	here, there := record("bridge", ended), with(record("bridge", ended), func(r *journal.Record) { r.HostID = other })
	if !j.Here([]journal.Record{here}) || j.Here([]journal.Record{here, there}) {
		t.Error("all records must be of the judge's host")
	}
	j = seer{kernel: true}.judge()
	ended := with(there, func(r *journal.Record) { r.HostID.Ino = 12 })
	if !j.Removable([]journal.Record{here, ended}) || j.Removable([]journal.Record{here, there}) {
		t.Error("what was made from a host that has ended can be removed from another, and nothing else")
	}
}

// The real judge knows the namespace that it runs in.
func TestNew(t *testing.T) {
	j, err := New()
	if err != nil {
		t.Fatal(err)
	}
	twin, err := j.Twin()
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range []*Judge{j, twin} {
		r := journal.Record{Key: journal.Key{Plugin: "bridge"}, NetnsID: netns.ID{Ino: 1}, HostID: j.Host(), Links: []journal.Link{{Name: "lo"}}}
		if v := j.Of([]journal.Record{r}); v.State != Alive {
			t.Errorf("an end on the host: %v", v)
		}
		if v := j.Sandbox(netns.Own, j.Host()); v.State != Alive {
			t.Errorf("the own namespace: %v", v)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

func loop(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/loop"
	if err := os.Symlink(path, path); err != nil {
		t.Fatal(err)
	}
	return path
}
