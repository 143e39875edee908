package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/fields"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/jsontext"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// The verbs of the specification.
const (
	Add     = "ADD"
	Del     = "DEL"
	Check   = "CHECK"
	Status  = "STATUS"
	GC      = "GC"
	verbVer = "VERSION"
)

// Call is one call of a plugin: what the runtime said, and what the suite
// remembers of the attachment.
type Call struct {
	Verb        string
	ContainerID string
	Netns       string // CNI_NETNS: the sandbox's path; "" when the runtime has none any more
	IfName      string
	Args        string // CNI_ARGS
	Path        string // CNI_PATH
	Stdin       []byte
	Conf        Conf

	// Journal is where records are kept, Entry this attachment's: nil where the
	// plugin keeps none.
	Journal journal.Dir
	Entry   *journal.Entry

	Gate   gate.Gate
	Stderr io.Writer // for notes that are no error

	// Within is what tap tells itself, where it runs itself (EnvWithin).
	Within string

	// Renewing is set where a DEL makes way for an ADD of the same attachment.
	Renewing bool

	// Delegated is set where a plugin of this suite called another in its own
	// process.
	Delegated bool

	table    Table
	fields   fields.Object // the configuration, taken apart
	opened   *nl.Pair      // by ADD, for the plugin's Open
	override bool          // CNI_NETNS_OVERRIDE: the sandbox may be the host
	gone     bool          // DEL: what is at Netns is not this attachment's sandbox
	valid    []Attachment
	created  string // EnvCreated
}

// What the programs of this suite tell the plugins travels in variables of the
// environment. Configurations are others' words: whoever may write one may not do
// more by it than the plugins' own keys allow.
const (
	// EnvCreated is for DEL by the operator: it removes the attachment only where
	// its record is of that time. A container that came back meanwhile keeps its
	// own.
	EnvCreated = "NETCLEAT_CREATED"
	// EnvWithin is for the process that tap starts in a sandbox.
	EnvWithin = "NETCLEAT_WITHIN"
)

// Key names the attachment in the journal of the plugin called name.
func (c *Call) Key(name string) journal.Key {
	return journal.Key{Network: c.Conf.Name, ContainerID: c.ContainerID, IfName: c.IfName, Plugin: name}
}

// Note tells the operator something that is no error.
func (c *Call) Note(format string, args ...any) {
	if c.Stderr != nil {
		fmt.Fprintf(c.Stderr, "netcleat: "+format+"\n", args...)
	}
}

// Open opens the host and the sandbox. ADD and CHECK fail with code 8 where
// there is no sandbox; for DEL the Pair then has none. The caller closes it.
func (c *Call) Open() (*nl.Pair, error) {
	if p := c.opened; p != nil {
		c.opened = nil
		return p, nil
	}
	path := c.sandbox()
	p, err := nl.Open(path, c.Gate)
	if err != nil && c.Verb == Del && path != "" {
		c.Note("sandbox: %v (taken for gone)", err)
		p, err = nl.Open("", c.Gate)
	}
	if err != nil {
		return nil, cnierr.Netns(fmt.Errorf("sandbox: %w", err))
	}
	if p.Sandbox == nil && c.Verb != Del {
		return nil, errors.Join(c.noSandbox(), p.Close())
	}
	if c.Verb == Del && c.recorded() && (p.NS == nil || !c.Entry.NetnsID.Same(p.NS.ID) || !c.thisBoot()) {
		return p, c.reopen(p)
	}
	return p, nil
}

// in runs fn with host and sandbox, which are open meanwhile.
func (c *Call) in(fn func(*nl.Pair) error) (err error) {
	p, err := c.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return fn(p)
}

// reopen opens the sandbox that the record is about by its identity: the path leads
// nowhere from here, or to another container's namespace, and what is attached may
// run all the same. One that the kernel does not find is taken for gone.
func (c *Call) reopen(p *nl.Pair) error {
	if err := p.Forget(); err != nil || !c.thisBoot() {
		return err
	}
	ns, err := netns.Reopen(c.Entry.NetnsID)
	if err != nil {
		return nil
	}
	c.Note("sandbox: %s does not lead to it: found as %s", c.Netns, ns.Path)
	return p.Enter(ns)
}

// sandbox returns the path to open. Where DEL is told none, or one that is gone
// or not the attachment's, the record may know it by another, behind which the
// attachment's links still answer.
func (c *Call) sandbox() string {
	path := c.Netns
	if c.gone {
		path = ""
	}
	if c.Verb != Del || !c.recorded() || c.Entry.Netns == "" {
		return path
	}
	if id, err := netns.Identify(path); path == "" || err != nil || !id.Same(c.Entry.NetnsID) {
		return c.Entry.Netns
	}
	return path
}

func (c *Call) noSandbox() error {
	if _, err := netns.Identify(c.Netns); err != nil {
		if p := (*fs.PathError)(nil); errors.As(err, &p) {
			err = fmt.Errorf("failed to Statfs %q: %w", p.Path, p.Err) // the reference's text
		}
		return cnierr.Netns(fmt.Errorf("failed to open netns %q: %w", c.Netns, err))
	}
	return cnierr.Netns(fmt.Errorf("failed to open netns %q: it vanished", c.Netns))
}

// lookAtSandbox compares the sandbox with the host before anything is done. ADD
// and CHECK refuse a sandbox that is the host; for DEL it counts as gone.
func (c *Call) lookAtSandbox() error {
	same, err := netns.Same(c.Netns, netns.Own)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // the plugins that need it say so; the others work without
	case err != nil && c.Verb == Del:
		c.gone = true
		return nil
	case err != nil:
		return cnierr.Netns(fmt.Errorf("sandbox: %w", err))
	case c.override || !same:
		return nil
	}
	if c.Verb == Del {
		c.gone = true
		return nil
	}
	return cnierr.Netns(fmt.Errorf("plugin's netns and netns from CNI_NETNS should not be the same: %s is the host's namespace (CNI_NETNS_OVERRIDE=1 allows it)", c.Netns))
}

// identities returns which namespaces the sandbox and the host are. A plugin that
// is chained may have no use for sockets in them: where the kernel tells the
// cookies without, none is opened.
func (c *Call) identities() (sandbox, host netns.ID, err error) {
	if c.hasPrev() {
		host, err = netns.Identify(netns.Own)
		sandbox, serr := netns.Identify(c.Netns)
		if err == nil && serr == nil && host.Cookie != 0 && sandbox.Cookie != 0 {
			return sandbox, host, nil
		}
	}
	p, err := c.Open()
	if err != nil {
		return sandbox, host, err
	}
	c.opened = p
	if host, err = netns.Identify(netns.Own); err != nil {
		return sandbox, host, cnierr.Netns(fmt.Errorf("own namespace: %w", err))
	}
	host.Cookie = netns.CookieOf(p.Host.Fd())
	return p.NS.ID, host, nil
}

// recorded reports whether the attachment has a record.
func (c *Call) recorded() bool { return c.Entry != nil && c.Entry.Found != journal.Nothing }

// thisBoot reports whether the record may be of this boot. The kernel begins its
// counts of inode numbers, cookies and indices again with each.
func (c *Call) thisBoot() bool { return !boot.Earlier(c.Entry.Boot) }

// OnItsHost reports whether the host's namespace, in which host is a socket, is the
// one that the attachment's record was made in, in this boot. Elsewhere the names and
// indices in it are of other links.
func (c *Call) OnItsHost(host *nl.Conn) (bool, error) {
	r := &c.Entry.Record
	if !c.thisBoot() {
		return false, nil
	}
	own, err := netns.Identify(netns.Own)
	if err != nil {
		return false, cnierr.Netns(fmt.Errorf("own namespace: %w", err))
	}
	own.Cookie = netns.CookieOf(host.Fd())
	return own.Same(r.HostID), nil
}

// hasPrev reports whether another plugin came before. null says that none did, as
// does no key.
func (c *Call) hasPrev() bool {
	return len(c.Conf.PrevResult) > 0 && string(c.Conf.PrevResult) != "null"
}

// Chained requires the result of the plugin before, which only chained plugins
// have, and otherwise fails with the text.
func (c *Call) Chained(otherwise string) error {
	if !c.hasPrev() {
		return cnierr.Config("%s", otherwise)
	}
	return nil
}

// PrevResult returns the result of the plugin before this one in the list, or
// nil where there is none.
func (c *Call) PrevResult() (*current.Result, error) {
	if !c.hasPrev() {
		return nil, nil
	}
	prev, v := c.versioned()
	if res, ok := decodePlain(prev, v); ok {
		return res, nil
	}
	r, err := create.Create(v, prev)
	if err != nil {
		return nil, cnierr.Decode(fmt.Errorf("could not parse prevResult: %w", err))
	}
	res, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, cnierr.Decode(fmt.Errorf("could not convert result to current version: %w", err))
	}
	if slices.Contains(res.Interfaces, nil) || slices.Contains(res.IPs, nil) || slices.Contains(res.Routes, nil) {
		return nil, cnierr.Decode(errors.New("could not parse prevResult: it holds null where an object belongs"))
	}
	return res, nil
}

// versioned returns prevResult with the version that it is written in: its own, or
// the configuration's, which is filled in, where it names none.
func (c *Call) versioned() (prev json.RawMessage, version string) {
	prev = c.Conf.PrevResult
	if v := versionOf(prev); v != "" {
		return prev, v
	}
	o, err := fields.Parse(prev)
	if err == nil && slices.Contains([]string{"", `""`, "null"}, string(o["cniVersion"])) {
		o["cniVersion"] = json.RawMessage(jsontext.String(c.Conf.CNIVersion))
		prev = text(o)
	}
	return prev, c.Conf.CNIVersion
}

// Reported reports whether the MAC address may be that of the attachment's
// interface: prevResult says so, or there is none to contradict. DEL asks where
// it has no record.
func (c *Call) Reported(mac net.HardwareAddr) bool {
	res, err := c.PrevResult()
	if err != nil || res == nil {
		return true
	}
	for _, i := range res.Interfaces {
		if i.Name == c.IfName && i.Sandbox != "" && i.Mac != "" {
			return strings.EqualFold(i.Mac, mac.String())
		}
	}
	return true
}

// AttachedBy reports whether another attachment than the call's has the call's
// interface name in the sandbox: the runtime then named a sandbox that has
// become another container's. It reads all records of all networks, so only DEL
// of what has no record may ask.
func (c *Call) AttachedBy(sandbox netns.ID) (bool, error) {
	networks, err := c.Journal.Networks()
	if err != nil {
		return false, err
	}
	for _, n := range networks {
		records, err := c.Journal.Readable(n)
		if err != nil {
			return false, err
		}
		for _, r := range records {
			same := r.Network == c.Conf.Name && r.ContainerID == c.ContainerID
			if r.IfName == c.IfName && r.NetnsID.Same(sandbox) && !same {
				return true, nil
			}
		}
	}
	return false, nil
}

// ValidAttachments returns what GC must leave alone: the attachments of its list, and those
// that the configuration's plugin has a record of by now, also where that cannot be
// read. Ask under the lock of what is collected: an ADD has its record before it makes
// anything, so one that came after the list was made is among them. Without the
// records nothing may be collected.
func (c *Call) ValidAttachments() ([]Attachment, error) {
	living := slices.Clone(c.valid)
	records, err := c.Journal.Readable(c.Conf.Name)
	if err != nil {
		return nil, cnierr.With(cnierr.IOFailure, err)
	}
	bad, err := c.Journal.Bad(c.Conf.Name)
	if err != nil {
		return nil, cnierr.With(cnierr.IOFailure, err)
	}
	for _, b := range bad {
		records = append(records, journal.Record{Key: b.Key})
	}
	for _, r := range records {
		if r.Plugin == c.Conf.Type && journal.NetworkName(r.Network) == journal.NetworkName(c.Conf.Name) {
			living = append(living, Attachment{ContainerID: r.ContainerID, IfName: r.IfName})
		}
	}
	return living, nil
}

// CheckDataDir refuses a directory of a configuration's that is among the records:
// what a plugin writes there is none. DEL and GC work with it.
func (c *Call) CheckDataDir(dir string) error {
	rel, err := filepath.Rel(string(c.Journal), filepath.Clean(dir))
	if c.Journal == "" || err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil
	}
	return cnierr.Config("dataDir %q: in %s, which is for the plugins' records", dir, string(c.Journal))
}

// Arg returns the value of a key of CNI_ARGS ("K=V;K=V"), of several the last, or
// "". Keys are compared as they are.
func (c *Call) Arg(key string) string {
	value := ""
	for pair := range strings.SplitSeq(c.Args, ";") {
		if k, v, ok := strings.Cut(pair, "="); ok && k == key {
			value = v
		}
	}
	return value
}

// CheckArgs enforces the grammar of CNI_ARGS: pairs, and no key but known and
// IgnoreUnknown unless that is set. Plugins call it whose reference does: bridge,
// macvlan, tap and host-local for ADD, static and tuning for every verb.
func (c *Call) CheckArgs(known ...string) error {
	if c.Args == "" {
		return nil
	}
	var unknown []string
	ignore := false
	for pair := range strings.SplitSeq(c.Args, ";") {
		k, v, ok := strings.Cut(pair, "=")
		if !ok || strings.Contains(v, "=") {
			return cnierr.Env("ARGS: invalid pair %q", pair)
		}
		switch {
		case k == "IgnoreUnknown":
			ignore = v == "1" || strings.EqualFold(v, "true")
		case !slices.Contains(known, k):
			unknown = append(unknown, pair)
		}
	}
	if len(unknown) > 0 && !ignore {
		return cnierr.Env("ARGS: unknown args %q", unknown)
	}
	return nil
}

// Decode reads the plugin's own keys from the configuration into v. For DEL and
// GC a field of the wrong type is skipped and noted, as is any other trouble but
// malformed JSON: removing needs none of it.
func (c *Call) Decode(v any) error {
	var err error
	if c.fields == nil {
		c.fields, err = fields.Parse(c.Stdin)
	}
	if err == nil {
		err = c.fields.Into(v)
	}
	if err == nil {
		return nil
	}
	return cnierr.Decode(fmt.Errorf("failed to load netconf: %w", err))
}

// Removing reports whether the call takes things away, for which a
// configuration need not be right.
func (c *Call) Removing() bool { return c.Verb == Del || c.Verb == GC }
