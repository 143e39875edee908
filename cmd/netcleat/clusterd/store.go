package clusterd

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/pkg/slot"
)

// store is where the cluster's state is: etcd below the prefix, or a simulation.
// Answers come in the daemon's loop, in any order, or not at all before a time limit:
// then they have an error, and the request may take effect at any later time.
type store interface {
	txn(t txn, done func(answer))
	list(done func(listing))
	// rewatch has the changes watched from what the next listing says.
	rewatch()
}

// kv is a key as it was at a revision. Without the key, rev is 0.
type kv struct {
	key, value string
	rev        int64 // of its last change (ModRevision)
}

// compare is a condition: the key's last change is that of the revision, or 0: there
// is no such key.
type compare struct {
	key string
	rev int64
}

// txn changes one key, if all conditions hold.
type txn struct {
	compare        // of the key that is changed
	value   string // "" removes it
	guards  []compare
	lease   int64 // with which the key ends; 0: it does not
}

// answer is the outcome of a txn.
type answer struct {
	err error // it is not known
	ok  bool
	rev int64 // of the store, when it decided; if ok, the revision of the change
	now []kv  // if not ok: the key and those of the guards
}

// listing is all keys at a revision.
type listing struct {
	err     error
	rev     int64
	cluster uint64 // the ID of the etcd cluster
	keys    []kv
}

// The keys, below the prefix:
//
//	host/HOST            the session of the host's daemon
//	status/HOST          what the daemon last said of itself
//	net/NAME/layout      how the network is cut
//	net/NAME/slot/SLOT   who owns what of a slot
//	net/NAME/need/HOST   the host is short
//	net/NAME/deny/HOST   why it does not get the address that it wants
//	net/NAME/vtep/HOST   how the host is reached on an overlay network
//	names/NAME/HOST/ID   the names of an attachment to an overlay network, with a lease
//	stop                 why the cluster hands out no more blocks
//	reset                the name of the last reset, in which hosts say again what they use
const (
	hostKeys   = "host/"
	statusKeys = "status/"
	netKeys    = "net/"
	nameKeys   = "names/"
	stopKey    = "stop"
	// overlay/NAME is a network that is to be on all hosts, vni/N the network of a VNI.
	overlayKeys = "overlay/"
	vniKeys     = "vni/"
	resetKey    = "reset"

	layoutPart = "layout"
	slotPart   = "slot"
	needPart   = "need"
	denyPart   = "deny"
	vtepPart   = "vtep"
)

func slotKey(net string, n uint64) string {
	return fmt.Sprintf("%s%s/%s/%016x", netKeys, net, slotPart, n)
}
func layoutKey(net string) string     { return netKeys + net + "/" + layoutPart }
func needKey(net, host string) string { return netKeys + net + "/" + needPart + "/" + host }
func denyKey(net, host string) string { return netKeys + net + "/" + denyPart + "/" + host }
func vtepKey(net, host string) string { return netKeys + net + "/" + vtepPart + "/" + host }

// maxValue bounds what is read of a key.
const maxValue = 256 << 10

// keyOfNet is a key below net/: net/NET/PART/REST.
type keyOfNet struct{ net, part, rest string }

// netKey splits a key below net/. ok is false for what is not written by a daemon.
func netKey(key string) (k keyOfNet, ok bool) {
	key, ok = strings.CutPrefix(key, netKeys)
	if !ok {
		return k, false
	}
	f := strings.SplitN(key, "/", 3)
	if len(f) < 2 || !isNetwork(f[0]) {
		return k, false
	}
	k = keyOfNet{net: f[0], part: f[1]}
	if len(f) == 3 {
		k.rest = f[2]
	}
	return k, true
}

// isNetwork reports whether s can be a network's name.
func isNetwork(s string) bool { return slot.IsHost(s) }

func slotNumber(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil && len(s) == 16 && s == fmt.Sprintf("%016x", n)
}

// session is the value of a host's key.
type session struct {
	id       string // of the daemon's start
	released bool   // release-host is at work
	removed  bool   // it has finished
	reset    bool   // reset is at work, or has finished
}

// The values of a host's key that name no session. The key is never deleted: a
// request that compares with a key that does not exist could take effect at any
// later time.
const (
	releasedSession = "released"
	removedSession  = "removed"
	resetSession    = "reset"
)

func parseSession(s string) (session, error) {
	switch s {
	case releasedSession:
		return session{released: true}, nil
	case removedSession:
		return session{removed: true}, nil
	case resetSession:
		return session{reset: true}, nil
	}
	if !slot.IsHost(s) {
		return session{}, fmt.Errorf("session %.80q", s)
	}
	return session{id: s}, nil
}

// need is what a host is short of: any address, or one.
type need struct {
	token string
	any   bool
	at    slot.Part
}

func (n need) String() string {
	if n.any {
		return n.token + " any"
	}
	return fmt.Sprintf("%s %d %d", n.token, n.at.Slot, n.at.Off)
}

func parseNeed(s string) (n need, err error) {
	f := strings.Fields(s)
	if len(s) > maxLine || len(f) < 2 || !slot.IsHost(f[0]) {
		return n, fmt.Errorf("need %.80q", s)
	}
	n.token = f[0]
	if len(f) == 2 && f[1] == "any" {
		n.any = true
		return n, nil
	}
	if len(f) != 3 {
		return n, fmt.Errorf("need %.80q", s)
	}
	if n.at.Slot, err = strconv.ParseUint(f[1], 10, 64); err == nil {
		n.at.Off, err = strconv.ParseUint(f[2], 10, 64)
	}
	return n, err
}

const maxLine = 600

// denial answers a need that has the same token.
type denial struct{ token, host, why string }

func (d denial) String() string { return d.token + " " + d.host + " " + d.why }

func parseDenial(s string) (d denial, err error) {
	f := strings.SplitN(s, " ", 3)
	if len(s) > maxLine || len(f) != 3 || !slot.IsHost(f[0]) || !slot.IsHost(f[1]) || f[2] != denyHeld && f[2] != denyReserved {
		return d, fmt.Errorf("denial %.80q", s)
	}
	return denial{f[0], f[1], f[2]}, nil
}

// Why an address is denied.
const (
	denyHeld     = "held"
	denyReserved = "reserved"
)
