package fault

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/test/fault/stepper"
)

var errnos = []unix.Errno{unix.ENOSPC, unix.EIO, unix.ENOMEM, unix.EBUSY, unix.EPERM, unix.EINTR}

// refusals counts cases of a change that the kernel refuses once.
type refusals struct {
	tried, failed, tolerated int
	whole                    int // verbs that were gone through
}

// Whatever the kernel refuses once: an ADD that fails leaves no trace and says
// what failed, one that succeeds has done all; after a DEL that fails the next
// one succeeds, and nothing is left.
func TestRefused(t *testing.T) {
	for i, l := range lists() {
		t.Run(l.name, func(t *testing.T) {
			var all refusals
			for j, verb := range verbs {
				t.Run(verb, func(t *testing.T) {
					one := share()
					if !full() {
						one = len(errnos) * map[string]int{"nft": 11, "ipt": 31, "macvlan": 5, "ptp": 7}[l.name]
					}
					tr := &trial{T: t, judged: suite(t), list: l, verb: verb, judge: fails}
					all.add(tr.refuse(one, i+j))
					all.whole++
				})
			}
			t.Logf("%d changes refused: %d calls failed, %d could do without", all.tried, all.failed, all.tolerated)
			if all.whole == len(verbs) && !t.Failed() {
				all.row(suite(t), l).write(t, fmt.Sprintf("2-refused-%d", i))
			}
		})
	}
}

// row is the refusals in the table, where none went wrong.
func (r refusals) row(j judged, l list) row {
	return row{
		suite: j.name, what: fmt.Sprintf("each change refused once, with %d errors%s: %s", len(errnos), cases(), l.title()),
		tried: fmt.Sprintf("%d refusals, %d could be done without", r.tried, r.tolerated),
	}
}

func (r *refusals) add(o refusals) {
	r.tried += o.tried
	r.failed += o.failed
	r.tolerated += o.tolerated
}

// refuse has changes refused, each with each error; of all these cases it tries one
// in so many, with the errors in turn. The phase shifts which.
func (tr *trial) refuse(one, phase int) (all refusals) {
	stride, turn := (one+len(errnos)-1)/len(errnos), min(one, len(errnos))
	for n := 1 + phase%stride; !tr.Failed(); n += stride {
		for i, errno := range errnos {
			if (n/stride+phase+i)%turn != 0 {
				continue
			}
			r, hit := tr.refuseOne(n, errno)
			if !hit {
				return all
			}
			all.add(r)
		}
	}
	return all
}

func (tr *trial) refuseOne(n int, errno unix.Errno) (r refusals, hit bool) {
	reset(tr)
	by, bs := tr.attachment("bystander", 8001)
	defer bs.remove()
	if n%2 == 0 {
		must(tr, by.add(plain))
	}
	a, sb := tr.attachment("victim", 8000)
	defer sb.remove()
	before := snapshot(tr)
	st := &stepped{plan: stepper.Plan{At: n, Errno: errno}}
	err := tr.run(a, st)
	if st.hit == "" {
		if err != nil {
			tr.Errorf("nothing was refused, yet: %v", err)
		}
		return r, false
	}
	where := fmt.Sprintf("%s %s change %d (%s) refused with %v", tr.list.name, tr.verb, n, st.hit, errno)
	r.tried = 1
	if err != nil {
		r.failed = 1
		tr.named(where, err, errno)
	} else {
		r.tolerated = 1
		tr.whole(where, a)
	}
	if err := a.del(plain); err != nil {
		tr.Errorf("%s: DEL: %v", where, err)
	}
	if left := append(residue(before, snapshot(tr)), sb.links(tr)...); len(left) > 0 {
		tr.Errorf("%s: %v\n\t%s", where, err, strings.Join(left, "\n\t"))
	}
	return r, true
}

// run runs the verb with the fault. Where a plugin of an ADD fails, all that it
// did must be gone at once.
func (tr *trial) run(a *attachment, st *stepped) error {
	if tr.verb == "DEL" {
		must(tr, a.add(plain))
		return a.del(st.run)
	}
	var result []byte
	for _, p := range a.plugins {
		before, links := snapshot(tr), sandboxLinks(tr, a)
		r, err := a.call(st.run, "ADD", p, prev(result))
		if err == nil {
			result = r
			continue
		}
		if left := append(residue(before, snapshot(tr)), residue(links, sandboxLinks(tr, a))...); len(left) > 0 {
			tr.Errorf("%s ADD change %d (%s) refused with %v: %v\n\t%s", tr.list.name, st.plan.At, st.hit, st.plan.Errno, err, strings.Join(left, "\n\t"))
		}
		return err
	}
	a.result = result
	return nil
}

// sandboxLinks lists the links of the attachment's sandbox.
func sandboxLinks(t testing.TB, a *attachment) []string {
	t.Helper()
	return linksOf(t, a.netns)
}

// named judges what a failed call said.
func (tr *trial) named(where string, err error, errno unix.Errno) {
	tr.Helper()
	f := (*failure)(nil)
	if !errors.As(err, &f) {
		tr.Errorf("%s: %v", where, err)
		return
	}
	named := strings.Contains(f.text, errno.Error()) || tr.list.name == "ipt" // where iptables(8) has words of its own
	if f.killed || f.code == 0 || !named || strings.Contains(f.text, "panic") {
		tr.Errorf("%s: the error does not name it: %v", where, err)
	}
}

// whole judges a call that could do without what was refused.
func (tr *trial) whole(where string, a *attachment) {
	tr.Helper()
	if tr.verb == "DEL" {
		return
	}
	if err := a.check(plain); err != nil {
		tr.Errorf("%s: nobody noticed: %v", where, err)
	}
}
