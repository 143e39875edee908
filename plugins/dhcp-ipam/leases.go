package dhcp

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/netcleat/netcleat/pkg/journal"
)

// Key names the attachment that a lease is for.
type Key struct {
	Network     string `json:"network"`
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

// Leases is the directory of the daemon's lease files. It is beside the socket,
// so that whoever can reach a daemon finds the leases of that daemon, and
// wherever the socket is shared with a container the leases are, too.
type Leases string

// LeasesOf returns the directory of the daemon with that socket.
func LeasesOf(socket string) Leases { return Leases(socket + ".leases") }

const (
	leaseSuffix = ".json"
	freedSuffix = ".freed"
	nameLimit   = 100 // bytes of a name in a file's name
)

// Path returns the file of a lease.
func (d Leases) Path(k Key) string {
	name := journal.Cut(k.Network, nameLimit) + ":" + journal.Cut(k.ContainerID, nameLimit) + ":" + k.IfName
	return filepath.Join(string(d), name+leaseSuffix)
}

// FreedPath returns the name that a lease's file has once the attachment is gone
// and the server has not been told.
func (d Leases) FreedPath(k Key) string {
	return strings.TrimSuffix(d.Path(k), leaseSuffix) + freedSuffix
}

// Free marks a lease for the daemon to release when it returns. It reports
// whether there was one.
func (d Leases) Free(k Key) (bool, error) {
	err := os.Rename(d.Path(k), d.FreedPath(k))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Files returns the paths of all lease files; freed tells those that Free marked.
func (d Leases) Files() (live, freed []string, err error) {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	for _, e := range entries {
		path := filepath.Join(string(d), e.Name())
		switch filepath.Ext(e.Name()) {
		case leaseSuffix:
			live = append(live, path)
		case freedSuffix:
			freed = append(freed, path)
		}
	}
	return live, freed, err
}

// holder is what a lease file says of its owner.
type holder struct {
	Key
	Netns string `json:"netns"`
}

// holders returns the owners of the network's leases. A file that is no lease's
// is joined to the error.
func (d Leases) holders(network string) ([]holder, error) {
	files, _, err := d.Files()
	errs := []error{err}
	var all []holder
	for _, path := range files {
		var h holder
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // released meanwhile
		}
		if err == nil {
			err = json.Unmarshal(b, &h)
		}
		errs = append(errs, err)
		if err == nil && h.Network == network {
			all = append(all, h)
		}
	}
	return all, errors.Join(errs...)
}
