package clusterd

import (
	"context"
	"fmt"
	"strings"
)

// Reset has every host say again what it uses, after etcd has forgotten some of it.
// Until Resume nothing else is handed out.
//
// The order matters. First nothing can be claimed; then the hosts' keys are marked,
// after which no earlier request takes effect; then all owners are removed; and only
// then the daemons are told.
func Reset(ctx context.Context, s *Settings) (hosts []string, err error) {
	err = operate(ctx, s, func(e *etcd) error {
		id := newSession()
		if err := e.put(stopKey, "reset "+id+": when each host has adopted its blocks, `netcleat cluster resume`"); err != nil {
			return err
		}
		if hosts, err = e.markHosts(); err != nil {
			return err
		}
		l := e.read()
		if l.err != nil {
			return l.err
		}
		for _, k := range l.keys {
			if _, ok := netKey(k.key); ok {
				if err := e.set(k, ""); err != nil {
					return err
				}
			}
		}
		return e.put(resetKey, id)
	})
	return hosts, err
}

// markHosts marks the keys of all hosts, also of those that join meanwhile.
func (e *etcd) markHosts() (hosts []string, err error) {
	for {
		l := e.read()
		if l.err != nil {
			return nil, l.err
		}
		hosts = nil
		marked := true
		for _, k := range l.keys {
			host, ok := strings.CutPrefix(k.key, hostKeys)
			if !ok || k.value == removedSession {
				continue
			}
			hosts = append(hosts, host)
			if k.value == resetSession {
				continue
			}
			marked = false
			if a := e.do(txn{compare: compare{k.key, k.rev}, value: resetSession}); a.err != nil {
				return nil, a.err
			}
		}
		if marked {
			return hosts, nil
		}
	}
}

// Resume ends a reset: blocks change hands again.
func Resume(ctx context.Context, s *Settings) error {
	return operate(ctx, s, func(e *etcd) error {
		l := e.read()
		if l.err != nil {
			return l.err
		}
		var late []string
		var stop kv
		for _, k := range l.keys {
			if host, ok := strings.CutPrefix(k.key, hostKeys); ok && k.value == resetSession {
				late = append(late, host)
			}
			if k.key == stopKey {
				stop = k
			}
		}
		if len(late) > 0 {
			return fmt.Errorf("hosts that have not adopted their blocks: %s. Start their daemons or, if they no longer exist, `netcleat cluster release-host HOST`", strings.Join(late, ", "))
		}
		if stop.rev == 0 {
			return nil
		}
		return e.set(stop, "")
	})
}

// put gives a key a value, whatever it has.
func (e *etcd) put(key, value string) error {
	l := e.read()
	if l.err != nil {
		return l.err
	}
	now := kv{key: key}
	for _, k := range l.keys {
		if k.key == key {
			now = k
		}
	}
	return e.set(now, value)
}

// set changes a key that is still as it was.
func (e *etcd) set(now kv, value string) error {
	a := e.do(txn{compare: compare{now.key, now.rev}, value: value})
	if a.err == nil && !a.ok {
		return fmt.Errorf("%s: %w", now.key, errChanged)
	}
	return a.err
}
