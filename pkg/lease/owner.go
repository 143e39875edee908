package lease

import (
	"bytes"
	"cmp"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Owner is who holds an address: an interface of a container. A lease written
// by a very old host-local names no interface.
type Owner struct {
	ContainerID string
	IfName      string
}

// DefaultDir has a directory of leases for each network whose configuration names no
// other place.
const DefaultDir = "/var/lib/cni/networks"

// DirOf returns the directory of a network's leases. dataDir is what the configuration
// says; "" is DefaultDir.
func DirOf(dataDir, network string) string {
	return filepath.Join(cmp.Or(dataDir, DefaultDir), network)
}

// OwnerOf returns who a network's directory of leases says has the address. It is not
// locked: what is not there, or is no owner's, has none.
func OwnerOf(dir string, addr netip.Addr) (o Owner, ok bool) {
	b, err := os.ReadFile(filepath.Join(dir, addr.String()))
	if err != nil {
		return o, false
	}
	return parseOwner(b)
}

const lineBreak = "\r\n"

// String is the content of the owner's lease files.
func (o Owner) String() string {
	if o.IfName == "" {
		return o.ContainerID
	}
	return o.ContainerID + lineBreak + o.IfName
}

// owns reports whether a file with the content is a lease of o. As in the
// reference, one without an interface name belongs to all of the container's.
func (o Owner) owns(content []byte) bool {
	s := string(bytes.TrimSpace(content))
	return s == o.String() || s == o.ContainerID
}

// parseOwner reads the content of a lease file. ok is false for what no runtime
// wrote, such as an address that somebody reserved by hand.
func parseOwner(content []byte) (o Owner, ok bool) {
	id, ifName, _ := strings.Cut(string(bytes.TrimSpace(content)), lineBreak)
	return Owner{id, ifName}, isContainerID(id) && !strings.ContainsFunc(ifName, unicode.IsSpace)
}

func isContainerID(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return s != ""
}

// isGarbage reports whether a file that names no owner holds nothing that
// anybody wrote: it is empty, or has bytes that are no text. A crash between
// creating and writing leaves the first, a loss of power either.
func isGarbage(content []byte) bool {
	if len(bytes.TrimSpace(content)) == 0 || !utf8.Valid(content) {
		return true
	}
	return bytes.ContainsFunc(content, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) })
}
