package names

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/netcleat/netcleat/pkg/file"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/slot"
)

// dirName is where the cluster daemon says what names other hosts have, below the
// journal: a file for each network and host. No network's name begins with a dot.
const dirName = ".names"

// fresh begins the name of a file that is being written. No host's does.
const fresh = "."

func place(dir journal.Dir, network string) string {
	return filepath.Join(string(dir), dirName, network)
}

// Write has a file say what names a host has on a network; none removes it. It reports
// whether that is new.
func Write(dir journal.Dir, network, host string, all []Attachment) (changed bool, err error) {
	path := filepath.Join(place(dir, network), host)
	if len(all) == 0 {
		err := os.Remove(path)
		_ = os.Remove(place(dir, network)) // unless it has others
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	var text strings.Builder
	for _, a := range all[:min(len(all), MaxAttachments)] {
		line, err := a.Text()
		if err != nil {
			return false, err
		}
		if text.Len()+len(line) >= maxFile {
			break
		}
		text.WriteString(line + "\n")
	}
	if had, err := file.Read(path); err == nil && string(had) == text.String() {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, err
	}
	err = file.Replace(path, filepath.Join(filepath.Dir(path), fresh+host), []byte(text.String()))
	return err == nil, err
}

// Read returns what names a host has on a network. Lines that cannot be read are left
// out, with an error.
func Read(dir journal.Dir, network, host string) (all []Attachment, err error) {
	if !slot.IsHost(network) || !slot.IsHost(host) {
		return nil, fmt.Errorf("names of host %.80q on network %.80q: not names", host, network)
	}
	path := filepath.Join(place(dir, network), host)
	text, err := file.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for line := range strings.Lines(string(text)) {
		a, err := Parse(strings.TrimSuffix(line, "\n"))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		if all = append(all, a); len(all) == MaxAttachments {
			break
		}
	}
	return all, errors.Join(errs...)
}

// Hosts returns the hosts that have names on a network.
func Hosts(dir journal.Dir, network string) []string { return hosts(place(dir, network)) }

// Networks returns the networks on which other hosts have names.
func Networks(dir journal.Dir) []string { return hosts(filepath.Join(string(dir), dirName)) }

// hosts are the names in a directory that can be those of hosts, or networks.
func hosts(dir string) (list []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // there are none
	}
	for _, e := range entries {
		if slot.IsHost(e.Name()) {
			list = append(list, e.Name())
		}
	}
	return list
}
