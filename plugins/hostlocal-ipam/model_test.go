package hostlocal_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// TestBothSuitesAndAnAdministrator lets our plugin, the reference's and rm work
// on one directory in turns. The oracle is a map.
func TestBothSuitesAndAnAdministrator(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			h := newHost(t, `"subnet":"10.1.0.0/27"`)
			o := oracle{h: h, held: map[string]string{}, last: 1}
			for step := range 150 {
				id := fmt.Sprint("c", r.IntN(40))
				what := o.step(r, id)
				if diff := cmp.Diff(o.held, h.files()); diff != "" {
					t.Fatalf("step %d, %s (-want +got):\n%s", step, what, diff)
				}
			}
		})
	}
}

// oracle is what the directory must hold: addresses 2 to 30, given in turn.
type oracle struct {
	h    *host
	held map[string]string // address to content
	last int
}

func (o *oracle) step(r *rand.Rand, id string) string {
	o.h.t.Helper()
	byReference := r.IntN(3) == 0
	run := func(verb string) answer {
		if byReference {
			return o.h.reference(verb, id)
		}
		return o.h.run(o.h.command(verb, id))
	}
	what := fmt.Sprintf("%s by reference=%t", id, byReference)
	switch n := r.IntN(20); {
	case n < 11:
		o.add(id, run(plugin.Add), what)
		return "ADD " + what
	case n < 17:
		if a := run(plugin.Del); a.code != 0 {
			o.h.t.Errorf("DEL %s: %s", what, a.msg)
		}
		o.drop(func(owner string) bool { return owner == id })
		return "DEL " + what
	case n < 18:
		o.gc(r)
		return "GC"
	default:
		return o.remove(r)
	}
}

// add expects the next free address behind the last, unless the container has
// one.
func (o *oracle) add(id string, got answer, what string) {
	o.h.t.Helper()
	content := id + "\r\neth0"
	want := ""
	for i := range 29 {
		ip := (o.last-1+i)%29 + 2
		name := fmt.Sprint("10.1.0.", ip)
		if o.held[name] == content {
			want = ""
			break
		}
		if o.held[name] == "" && want == "" {
			want = name
		}
	}
	if got.ip != want || (want == "") != (got.code != 0) {
		o.h.t.Errorf("ADD %s: %+v, want %q", what, got, want)
	}
	if want != "" {
		o.held[want] = content
		_, _ = fmt.Sscanf(want, "10.1.0.%d", &o.last)
	}
}

func (o *oracle) drop(gone func(id string) bool) {
	for name, content := range o.held {
		if id, _, _ := strings.Cut(content, "\r\n"); gone(id) {
			delete(o.held, name)
		}
	}
}

// gc keeps about two in three.
func (o *oracle) gc(r *rand.Rand) {
	o.h.t.Helper()
	var valid []string
	keep := map[string]bool{}
	for i := range 40 {
		if r.IntN(3) > 0 {
			id := fmt.Sprint("c", i)
			keep[id] = true
			valid = append(valid, fmt.Sprintf(`{"containerID":%q,"ifname":"eth0"}`, id))
		}
	}
	o.h.do(plugin.GC, strings.Join(valid, ","))
	o.drop(func(id string) bool { return !keep[id] })
}

// remove is rm of a random lease.
func (o *oracle) remove(r *rand.Rand) string {
	o.h.t.Helper()
	var names []string
	for n := range o.held {
		names = append(names, n)
	}
	if len(names) == 0 {
		return "rm of nothing"
	}
	slices.Sort(names)
	n := names[r.IntN(len(names))]
	must(o.h.t, os.Remove(filepath.Join(o.h.leases(), n)))
	delete(o.held, n)
	return "rm " + n
}

// TestManyAtOnce starts 200 processes at once on one network, a third of them
// the reference's.
func TestManyAtOnce(t *testing.T) {
	const n = 200
	h := newHost(t, `"ranges":[[{"subnet":"10.1.0.0/24"}]]`)
	h.reference(plugin.Del, "nobody")
	for _, verb := range []string{plugin.Add, plugin.Del} {
		answers := make([]answer, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				id := fmt.Sprint("c", i)
				if i%3 == 0 {
					answers[i] = h.reference(verb, id)
				} else {
					answers[i] = h.run(h.command(verb, id))
				}
			})
		}
		wg.Wait()
		seen := map[string]bool{}
		for i, a := range answers {
			if a.code != 0 || verb == plugin.Add && (a.ip == "" || seen[a.ip]) {
				t.Errorf("%s %d: %+v", verb, i, a)
			}
			seen[a.ip] = true
		}
		if verb == plugin.Add && len(h.files()) != n {
			t.Errorf("%d leases, want %d", len(h.files()), n)
		}
	}
	if left := h.files(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestSameFiles compares what both suites write: names, modes and contents.
func TestSameFiles(t *testing.T) {
	const ipam = `"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00::/64"}]]`
	ours, ref := newHost(t, ipam), newHost(t, ipam)
	for _, id := range []string{"a", "b"} {
		ours.do(plugin.Add, id)
		if a := ref.reference(plugin.Add, id); a.code != 0 {
			t.Fatal(a.msg)
		}
	}
	ours.do(plugin.Del, "a")
	ref.reference(plugin.Del, "a")
	if diff := cmp.Diff(listing(t, ref), listing(t, ours)); diff != "" {
		t.Errorf("-reference +ours:\n%s", diff)
	}
	// And each removes what the other wrote.
	if a := ours.reference(plugin.Del, "b"); a.code != 0 || len(ours.files()) > 0 {
		t.Errorf("%+v, left %v", a, ours.files())
	}
	ref.do(plugin.Del, "b")
	if len(ref.files()) > 0 {
		t.Errorf("left %v", ref.files())
	}
}

func listing(t *testing.T, h *host) (lines []string) {
	t.Helper()
	must(t, filepath.WalkDir(filepath.Dir(h.leases()), func(path string, d os.DirEntry, err error) error {
		must(t, err)
		fi, err := d.Info()
		must(t, err)
		var content []byte
		if fi.Mode().IsRegular() {
			content, err = os.ReadFile(path)
		}
		lines = append(lines, fmt.Sprintf("%s %v %q", d.Name(), fi.Mode(), content))
		return err
	}))
	return lines
}
