package fault

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/test/fault/stepper"
)

// recovery is what follows a kill.
type recovery string

const (
	addAgain recovery = "ADD again, DEL"
	delAll   recovery = "DEL"
	delGone  recovery = "DEL without the sandbox"
	collect  recovery = "GC with an empty list"
)

var verbs = []string{"ADD", "DEL"}

var recoveries = []recovery{addAgain, delAll, delGone, collect}

// score counts cases, and what went wrong in them.
type score struct {
	Kills, Late, Leaks, Failures int
}

func (s *score) add(o score) {
	s.Kills += o.Kills
	s.Late += o.Late
	s.Leaks += o.Leaks
	s.Failures += o.Failures
}

func (s score) String() string {
	return fmt.Sprintf("%d kills, %d of them after the first change: %d leaks, %d failures", s.Kills, s.Late, s.Leaks, s.Failures)
}

// row is the score in the table.
func (s score) row(j judged, what string) row {
	return row{
		suite: j.name, what: what, tried: fmt.Sprintf("%d kills, %d of them after the first change", s.Kills, s.Late),
		leaks: int64(s.Leaks), failures: int64(s.Failures),
	}
}

// trial is one attachment whose ADD or DEL is killed.
type trial struct {
	*testing.T
	judged
	list
	verb  string
	after recovery
	judge func(t *testing.T, bad string)
	warm  bool // what a whole attachment leaves does not count, by whoever's design
}

// plain runs a plugin undisturbed.
func plain(c stepper.Command) (stepper.Outcome, error) { return (&process{}).run(c) }

// attachment makes a container that is not yet attached.
func (tr *trial) attachment(id string, port int) (*attachment, *sandbox) {
	s := newSandbox(tr)
	// The kernel takes its time to end a namespace: no two trials have the same
	// container, whose MAC address macvlan may have only once.
	id = fmt.Sprintf("%s-%s", id, filepath.Base(s.path))
	return &attachment{judged: tr.judged, list: tr.list, id: id, ifname: "eth0", netns: s.path, port: port}, s
}

// sweep kills at every stride-th change and returns the score. Every second kill
// is on a host that nothing was attached to before; on the others a bystander
// lives through it, but for where all are collected.
func (tr *trial) sweep(first, stride int) (all score) {
	for n := first; !tr.Failed(); n += stride {
		s, killed := tr.one(n, (n/stride)%2 == 0)
		all.add(s)
		if !killed {
			break
		}
	}
	return all
}

// sample kills at so many changes, evenly spread over all that an undisturbed
// call makes: at the same fractions of it, whoever makes how many. The phase, from
// 0 to 1, shifts them by a part of the distance between two.
func (tr *trial) sample(kills int, phase float64) (all score) {
	changes, last := tr.changes(), 0
	for i := range kills {
		n := 1 + int((float64(i)+phase)/float64(kills)*float64(changes))
		if n == last {
			continue
		}
		s, _ := tr.one(n, i%2 == 0)
		all.add(s)
		last = n
	}
	return all
}

// changes counts those of an undisturbed call.
func (tr *trial) changes() int {
	reset(tr)
	a, sb := tr.attachment("whole", 8000)
	defer sb.remove()
	st := &stepped{}
	if tr.verb == "ADD" {
		must(tr, a.add(st.run))
		return len(st.changes)
	}
	must(tr, a.add(plain))
	must(tr, a.del(st.run))
	return len(st.changes)
}

func (tr *trial) one(n int, cold bool) (s score, killed bool) {
	reset(tr)
	cold = cold || tr.after == collect
	by, bs := tr.attachment("bystander", 8001)
	defer bs.remove()
	if tr.warm {
		must(tr, errors.Join(by.add(plain), by.del(plain)))
	}
	if !cold {
		must(tr, by.add(plain))
	}
	before := snapshot(tr)
	a, sb := tr.attachment("victim", 8000)
	defer sb.remove()
	st := &stepped{plan: stepper.Plan{At: n}}
	var err error
	if tr.verb == "ADD" {
		err = a.add(st.run)
	} else {
		must(tr, a.add(plain))
		err = a.del(st.run)
	}
	if st.hit == "" {
		if err != nil {
			s.Failures = 1
			tr.judge(tr.T, fmt.Sprintf("%s was not killed, and failed: %v", tr.verb, err))
		}
		return s, false
	}
	s.Kills = 1
	if n > 1 {
		s.Late = 1
	}
	where := fmt.Sprintf("%s %s (cold %v) killed at change %d (%s), then %s: ", tr.list.name, tr.verb, cold, n, st.hit, tr.after)
	if err := tr.recover(a, sb); err != nil {
		s.Failures = 1
		tr.judge(tr.T, where+err.Error())
		return s, true
	}
	after := residue(before, snapshot(tr))
	if tr.after != delGone {
		after = append(after, sb.links(tr)...)
	}
	if len(after) > 0 {
		s.Leaks = 1
		tr.judge(tr.T, where+"\n\t"+strings.Join(after, "\n\t"))
	}
	return s, true
}

// recover does what the runtime does after the kill.
func (tr *trial) recover(a *attachment, s *sandbox) error {
	switch tr.after {
	case addAgain:
		if err := a.add(plain); err != nil {
			// A plugin whose part was finished refuses. The runtime then
			// removes the attachment before it tries once more.
			if err := a.del(plain); err != nil {
				return fmt.Errorf("DEL: %w", err)
			}
			if err := a.add(plain); err != nil {
				return fmt.Errorf("ADD: %w", err)
			}
		}
		if err := a.check(plain); err != nil {
			return fmt.Errorf("CHECK: %w", err)
		}
		return a.del(plain)
	case delGone:
		s.unmount()
		a.netns = ""
		return errors.Join(a.del(plain), a.del(plain))
	case delAll:
		return errors.Join(a.del(plain), a.del(plain))
	default:
		return a.gc(plain)
	}
}

// fails is the judge of plugins that must do no wrong.
func fails(t *testing.T, bad string) { t.Helper(); t.Error(bad) }

// Wherever an ADD or a DEL is killed, nothing is left of it in the end.
func TestKilled(t *testing.T) {
	for i, l := range lists() {
		t.Run(l.name, func(t *testing.T) {
			var all score
			whole := 0
			for j, verb := range verbs {
				for k, after := range recoveries {
					t.Run(fmt.Sprintf("%s %s", verb, after), func(t *testing.T) {
						stride := share()
						if !full() {
							stride = map[string]int{"nft": 23, "ipt": 67, "macvlan": 9, "ptp": 13}[l.name]
						}
						first := 1 + (i+j+k*stride/len(recoveries))%stride
						tr := &trial{T: t, judged: suite(t), list: l, verb: verb, after: after, judge: fails}
						s := tr.sweep(first, stride)
						if s.Kills == 0 {
							t.Error("nobody was killed: the stepper misses the changes")
						}
						all.add(s)
						whole++
					})
				}
			}
			t.Log(all)
			if whole == len(verbs)*len(recoveries) {
				all.row(suite(t), "killed before each change of ADD and DEL in turn"+cases()+": "+l.title()).write(t, fmt.Sprintf("1-killed-%d", i))
			}
		})
	}
}
