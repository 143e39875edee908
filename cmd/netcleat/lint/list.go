package lint

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/runtimes"
	"github.com/netcleat/netcleat/docs/schema"
	"github.com/netcleat/netcleat/pkg/semver"
)

// list is a network: a list of plugins, or one plugin's configuration.
type list struct {
	*document
	name    string
	version string // of results: the newest that is named and known
	single  bool   // one plugin's configuration
	plugins []*entry
	pools   []pool // that host-local hands out of
	way     way
}

// entry is one plugin of a list.
type entry struct {
	*document // which may be a file beside the list
	conf      *value
	typ       string
	ipam      *value // nil: there is none
	ipamType  string
}

// versions are those of the specification, oldest first.
var versions = version.All.SupportedVersions()

// list checks one network.
func (l *linter) list(d *document) *list {
	n := l.read(d)
	l.duplicates(d, d.root)
	l.head(n)
	for _, e := range n.plugins {
		if e.document != d {
			l.duplicates(e.document, e.root)
		}
		l.plugin(n, e)
	}
	l.sequence(n)
	l.capabilities(n)
	l.addresses(n)
	n.way = wayOf(n)
	return n
}

// read takes a list apart.
func (l *linter) read(d *document) *list {
	n := &list{document: d, name: d.root.string("name")}
	n.single = d.root.get("plugins") == nil && d.root.given("type")
	l.version(n)
	if n.single {
		n.plugins = []*entry{newEntry(d, d.root)}
		return n
	}
	if plugins := d.root.get("plugins"); plugins != nil && plugins.kind != '[' {
		l.say(Error, d, plugins.at, "plugins: not an array: want [{…}]")
	} else if plugins != nil {
		for _, p := range plugins.items {
			if p.kind != '{' {
				l.say(Error, d, p.at, "plugin: not an object: want {…}")
				continue
			}
			n.plugins = append(n.plugins, newEntry(d, p))
		}
	}
	if !d.root.isTrue("loadOnlyInlinedPlugins") && n.name == filepath.Base(n.name) {
		l.beside(n)
	}
	if len(n.plugins) == 0 {
		l.say(Error, d, d.root.at, "plugins is missing: a list has at least one")
	}
	return n
}

// beside adds the plugins in the directory beside the list that has the
// network's name, as libcni does.
func (l *linter) beside(n *list) {
	dir := filepath.Join(filepath.Dir(n.file), n.name)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ENAMETOOLONG) { // mostly there is none
		l.unreadable(dir, err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".conf" {
			continue
		}
		if d := l.open(filepath.Join(dir, e.Name())); d != nil {
			n.plugins = append(n.plugins, newEntry(d, d.root))
		}
	}
}

func newEntry(d *document, conf *value) *entry {
	e := &entry{document: d, conf: conf, typ: conf.string("type")}
	if ipam := conf.get("ipam"); ipam != nil && ipam.kind == '{' {
		e.ipam, e.ipamType = ipam, ipam.string("type")
	}
	return e
}

// head checks what a list has beside plugins.
func (l *linter) head(n *list) {
	name := n.root.get("name")
	switch {
	case name == nil:
		l.say(Error, n.document, n.root.at, "name is missing")
	case name.kind != '"':
		l.say(Error, n.document, name.at, "name: not a string")
	case !isName(n.name):
		l.say(Error, n.document, name.at, "name %q: want letters, digits, and then also . _ -", n.name)
	}
	ext := filepath.Ext(n.file)
	switch {
	case n.single && ext == ".conflist":
		l.say(Error, n.document, n.root.at, `one plugin's configuration: a file called *.conflist has to have "plugins": [{…}]`)
	case n.single && semver.AtLeast(n.version, "1.0.0"):
		l.say(Warning, n.document, n.root.at, `one plugin's configuration: version 1.0.0 has only lists; put it into "plugins": [{…}] of a file called *.conflist`)
	case !n.single && (ext == ".conf" || ext == ".json"):
		l.say(Error, n.document, n.root.at, "a list of plugins: runtimes read it from files called *.conflist only")
	case !n.single && !semver.AtLeast(n.version, "0.3.0") && len(n.plugins) > 1:
		l.say(Warning, n.document, n.root.at, "a list of plugins: results of cniVersion %s name no interface for the next plugin; want 0.3.0 or later", n.version)
	}
	if n.single {
		return
	}
	l.keys(n.document, n.root, l.schemas[schema.List])
	for _, key := range []string{"disableCheck", "disableGC"} {
		if v := n.root.get(key); v != nil && v.kind != 't' && v.kind != 'f' && !slices.Contains([]string{"true", "false"}, text(v.raw)) {
			l.say(Error, n.document, v.at, "%s: want true or false", key)
		}
	}
}

// isName reports whether a network can be called so.
func isName(s string) bool {
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return s != "" && strings.Trim(s[:1], alnum) == "" && strings.Trim(s, alnum+"._-") == ""
}

// readable says which of the host's runtimes refuse the list for its cniVersion.
// Older ones do not know cniVersions.
func (l *linter) readable(n *list, v *value) {
	if who := runtimes.Refuses(l.readers, n.version); who != "" {
		l.say(Warning, n.document, v.at, `cniVersion %s: %s, and refuses the list; "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"] suits old and new runtimes`, n.version, who)
	}
}

// version finds the version that the list's results are in.
func (l *linter) version(n *list) {
	n.version = versions[0]
	v, more := n.root.get("cniVersion"), n.root.get("cniVersions")
	switch {
	case v == nil && more == nil:
		l.say(Warning, n.document, n.root.at, "cniVersion is missing: %s is assumed, in which results say little; the newest is %s", versions[0], versions[len(versions)-1])
	case v != nil && v.kind != '"':
		l.say(Error, n.document, v.at, "cniVersion: not a string")
	case v != nil && slices.Contains(versions, text(v.raw)):
		n.version = text(v.raw)
		l.readable(n, v)
	case v != nil && more == nil:
		l.say(Error, n.document, v.at, "cniVersion %q: want one of %s", text(v.raw), strings.Join(versions, ", "))
	}
	if more == nil {
		return
	}
	if more.kind != '[' {
		l.say(Error, n.document, more.at, "cniVersions: not an array")
	}
	for _, e := range more.items {
		switch s := text(e.raw); {
		case e.kind != '"':
			l.say(Error, n.document, e.at, "cniVersions: not a string")
		case slices.Contains(versions, s):
			if semver.AtLeast(s, n.version) {
				n.version = s
			}
		}
	}
}
