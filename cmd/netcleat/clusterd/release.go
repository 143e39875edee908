package clusterd

import (
	"errors"
	"fmt"

	"github.com/netcleat/netcleat/pkg/slot"
)

// release gives back all that a host owns. It is for hosts that do not exist any
// more: nothing tells one from a host that only cannot be reached.
//
// The host's key is marked first, after which no request of its daemon takes effect.
// When all is given back it gets another mark, after which the host may join again.
type release struct {
	store store
	host  string
	mark  int64 // the revision of the marked key
	freed uint64
	done  func(freed uint64, err error)
}

var errChanged = errors.New("it was changed meanwhile: run the command again")

// begin marks the host.
func (r *release) begin() {
	r.store.list(func(l listing) {
		if l.err != nil {
			r.done(0, l.err)
			return
		}
		var now kv
		for _, k := range l.keys {
			if k.key == hostKeys+r.host {
				now = k
			}
		}
		if now.value == releasedSession {
			r.mark = now.rev
			r.read()
			return
		}
		r.store.txn(txn{compare: compare{hostKeys + r.host, now.rev}, value: releasedSession}, func(a answer) {
			if a.err != nil || !a.ok {
				r.done(0, errors.Join(a.err, errChanged))
				return
			}
			r.mark = a.rev
			r.read()
		})
	})
}

// read finds what the host owns, now that it cannot get more.
func (r *release) read() {
	r.store.list(func(l listing) {
		if l.err != nil {
			r.done(r.freed, l.err)
			return
		}
		bits := map[string]uint8{}
		for _, k := range l.keys {
			if of, ok := netKey(k.key); ok && of.part == layoutPart {
				if layout, err := slot.ParseLayout(k.value); err == nil {
					bits[of.net] = layout.Bits()
				}
			}
		}
		var todo []txn
		for _, k := range l.keys {
			if t, n, ok := r.change(k, bits); ok {
				todo = append(todo, t)
				r.freed += n
			}
		}
		r.next(todo)
	})
}

// change is what is to be done to a key.
func (r *release) change(k kv, bits map[string]uint8) (t txn, freed uint64, ok bool) {
	t = txn{compare: compare{k.key, k.rev}, guards: []compare{{hostKeys + r.host, r.mark}}}
	of, isNet := netKey(k.key)
	named, isName := nameKey(k.key)
	switch {
	case k.key == statusKeys+r.host, isName && named.host == r.host, isNet && (of.part == needPart || of.part == denyPart || of.part == vtepPart) && of.rest == r.host:
		return t, 0, true
	case !isNet || of.part != slotPart:
		return t, 0, false
	}
	i, isSlot := slotNumber(of.rest)
	b, known := bits[of.net]
	owners, err := slot.ParseOwners(i, b, k.value)
	if !isSlot || !known || err != nil || len(owners[r.host]) == 0 {
		return t, 0, false
	}
	t.value = owners.Set(r.host, nil).String()
	return t, owners[r.host].Size(), true
}

// next makes the changes one after the other, and then forgets the host.
func (r *release) next(todo []txn) {
	if len(todo) == 0 {
		r.store.txn(txn{compare: compare{hostKeys + r.host, r.mark}, value: removedSession}, func(a answer) {
			if a.err == nil && !a.ok {
				a.err = errChanged
			}
			r.done(r.freed, a.err)
		})
		return
	}
	r.store.txn(todo[0], func(a answer) {
		switch {
		case a.err != nil:
			r.done(r.freed, fmt.Errorf("%s: %w", todo[0].key, a.err))
		case !a.ok: // another host has changed it: look again
			r.read()
		default:
			r.next(todo[1:])
		}
	})
}
