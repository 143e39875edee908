package attached

import (
	"cmp"
	"path/filepath"
	"regexp"
	"strings"
)

// String names the attachment as people do: network, container, interface.
func (a Attachment) String() string { return a.Network + " " + a.called() + " " + a.IfName }

// called is the container's name, or its ID where that is all there is.
func (a Attachment) called() string {
	for _, r := range a.Records {
		if name := cmp.Or(Pod(r.Args), NameOf(a.ContainerID, r.Netns)); name != "" {
			return name
		}
	}
	return Short(a.ContainerID)
}

// cnitool's IDs are numbers made of the namespace's path, which says more.
var cnitoolID = regexp.MustCompile(`^cnitool-[0-9a-f]{20}$`)

// NameOf returns a readable name for a container with a generated ID: for cnitool the
// file name of the network namespace, else "".
func NameOf(containerID, netns string) string {
	if netns == "" || !cnitoolID.MatchString(containerID) {
		return ""
	}
	return filepath.Base(netns)
}

// Pod returns the name of the pod that CNI_ARGS speaks of, with its namespace, as
// NAMESPACE/NAME. podman passes a container's name in its place.
func Pod(args string) string {
	m := map[string]string{}
	for pair := range strings.SplitSeq(args, ";") {
		k, v, _ := strings.Cut(pair, "=")
		m[k] = v
	}
	if m["K8S_POD_NAME"] == "" {
		return ""
	}
	return strings.TrimPrefix(m["K8S_POD_NAMESPACE"]+"/"+m["K8S_POD_NAME"], "/")
}

// RuntimeID is the container's ID as its runtime shows it: nerdctl puts the namespace
// of containerd before it, which is of no use to people.
func RuntimeID(containerID string) string {
	namespace, id, found := strings.Cut(containerID, "-")
	if found && namespace != "" && len(id) == 64 && isHex(id) {
		return id
	}
	return containerID
}

// Short is the ID as its runtime shows it, of which a long number is cut to 12
// characters.
func Short(containerID string) string {
	const short = 12
	id := RuntimeID(containerID)
	if len(id) > short && isHex(id) {
		return id[:short]
	}
	return id
}

// isHex reports whether the ID is a runtime's long number, of which people read
// the beginning.
func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
