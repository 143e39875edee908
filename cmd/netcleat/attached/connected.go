package attached

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/netns"
)

// ConnectID is the ID of a container of which nothing is known but its network
// namespace: the namespace's number, which lsns and ls -l /proc/PID/ns/net show,
// its cookie, which no other namespace of the boot ever gets (Linux 5.14), and a
// part of the boot's ID. It is the same by whichever path one comes.
func ConnectID(ns netns.ID) string {
	return fmt.Sprintf("net-%d-%d-%08x", ns.Ino, ns.Cookie, uint32(lease.ThisBoot().ID))
}

var connectID = regexp.MustCompile(`^net-([1-9]\d*)-(\d+)-([0-9a-f]{8})$`)

// Connected returns the namespace that ConnectID has made an ID of, and whether
// that was in this boot: no namespace outlives one. ok is false where the ID is a
// runtime's.
func Connected(containerID string) (ns netns.ID, thisBoot, ok bool) {
	m := connectID.FindStringSubmatch(containerID)
	if m == nil {
		return ns, false, false
	}
	var err, cerr error
	ns.Ino, err = strconv.ParseUint(m[1], 10, 64)
	ns.Cookie, cerr = strconv.ParseUint(m[2], 10, 64)
	return ns, ConnectID(ns) == containerID, err == nil && cerr == nil
}
