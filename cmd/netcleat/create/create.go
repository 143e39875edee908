// Package create makes networks as docker network create does: it turns flags
// into a list of plugins, refuses what cannot work on this host, and writes the
// list to where runtimes look.
//
// The list has version 1.0.0 of the specification, which every runtime in use
// reads, and names 1.1.0 in "cniVersions", for runtimes that know the key: podman
// 4, nerdctl 1 and containerd 1 do not, and refuse a result of 1.1.0. GC is
// disabled in it, since a directory of networks is shared: CRI-O, when it starts,
// would have libcni detach what others have attached.
package create

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/lint"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/command"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// Options say where to create networks.
type Options struct {
	show.Places
	// Command is where this program is installed for runtimes to find; "" is nowhere.
	Command string
	// Warn is told what is no reason to stop.
	Warn func(format string, args ...any)
}

// Run creates the network that the flags ask for, and returns its file's path.
func Run(ctx context.Context, o Options, f Flags) (path string, err error) {
	unlock, err := Lock(ctx, o.NetConf)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	text, err := Preview(ctx, o, f)
	if err != nil {
		return "", err
	}
	path = File(o.NetConf, f.Name)
	if err := writeNew(path, text); err != nil {
		return "", err
	}
	o.warnIfFirst(path)
	if strings.Contains(string(text), `"`+dnsname.Name+`"`) && o.Command == "" {
		o.Warn("%s is neither in /usr/local/bin nor in /usr/bin: unless a runtime finds it on its PATH or next to the plugins, containers of the network do not start (--no-dns creates it without names)", command.Name)
	}
	return path, nil
}

// Preview returns the list that Run would write.
func Preview(ctx context.Context, o Options, f Flags) ([]byte, error) {
	r, err := f.parse()
	if err != nil {
		return nil, err
	}
	h, err := look(ctx, o)
	if err != nil {
		return nil, err
	}
	l, err := plan(r, h)
	if err != nil {
		return nil, err
	}
	text, err := l.text()
	if err != nil {
		return nil, err
	}
	return text, check(r.Name, text)
}

// check looks whether the plugins read the list, in a directory of its own.
func check(name string, text []byte) (err error) {
	dir, err := os.MkdirTemp("", "netcleat-create-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := File(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	var wrong []string
	for _, f := range lint.Check(path) {
		if f.Level == lint.Error {
			wrong = append(wrong, f.Message)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("network %q: the plugins refuse it: %s", name, strings.Join(wrong, "; "))
	}
	return nil
}

// File is the path of the network's file. The prefix, as nerdctl has one, keeps
// it behind the numbered file that containerd's CRI takes for its pods.
func File(dir, name string) string { return filepath.Join(dir, filePrefix+name+".conflist") }

const filePrefix = "netcleat-"

// Made reports whether the file is one that this package wrote.
func Made(path string) (bool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	var l struct {
		Mark string `json:"netcleat.dev/made-by"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return l.Mark == mark, nil
}

// warnIfFirst tells that the network, by its file's name, has come before that of
// somebody else, which the CRI's pods had so far.
func (o Options) warnIfFirst(path string) {
	names, err := Files(filepath.Dir(path))
	if err != nil {
		return // it just was written to
	}
	if len(names) > 1 && names[0] == filepath.Base(path) && !strings.HasPrefix(names[1], filePrefix) {
		o.Warn("%s comes before %s: containerd gives the first file's network to its pods", names[0], names[1])
	}
}

// Files returns the names of the files of a directory that runtimes read, in their order.
func Files(dir string) (names []string, err error) {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(f.Name())) {
			names = append(names, f.Name())
		}
	}
	return names, err
}

// writeNew writes a file that does not exist. The directory's lock keeps others away
// meanwhile.
func writeNew(path string, text []byte) error {
	switch _, err := os.Lstat(path); {
	case err == nil:
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return Write(path, text)
}

// Write writes a network's file, or replaces it: all of it or nothing.
func Write(path string, text []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
