package names

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// Records are those of dnsname on this host.
type Records struct {
	dir  journal.Dir
	host netns.ID
}

// Local is an attachment of this host.
type Local struct {
	Attachment
	Created time.Time
}

// Open opens the records of the network namespace that this process is in.
func Open(dir journal.Dir) (*Records, error) {
	host, err := netns.Identify(netns.Own)
	return &Records{dir, host}, err
}

// All returns the attachments to a network, by ID. Records that cannot be read are
// passed over, as the dns daemon does not answer with them either.
func (r *Records) All(network string) (map[string]Local, error) {
	records, _, err := r.dir.Of(network, dnsname.Name)
	all := map[string]Local{}
	for _, rec := range records {
		if l, ok := r.read(rec); ok {
			all[ID(rec.ContainerID, rec.IfName)] = l
		}
	}
	return all, err
}

// One returns an attachment to a network. ok is false where it has no names, or has them
// no longer.
func (r *Records) One(network, id string) (l Local, ok bool) {
	container, ifName, _ := strings.Cut(id, ":")
	k := journal.Key{Network: network, ContainerID: container, IfName: ifName, Plugin: dnsname.Name}
	if r.dir.Leaving(k) {
		return l, false
	}
	e, err := r.dir.Peek(k)
	if err != nil || e.Found == journal.Nothing {
		return l, false
	}
	return r.read(e.Record)
}

// read takes a record apart: one of this boot and network namespace that the plugin has
// written completely.
func (r *Records) read(rec journal.Record) (l Local, ok bool) {
	var st dnsname.State
	if boot.Earlier(rec.Boot) || rec.HostID.Ino != 0 && !rec.HostID.Same(r.host) || rec.GetState(&st) != nil || len(st.Gateways) == 0 {
		return l, false
	}
	l = Local{Attachment{Names: st.Names, Aliases: st.Aliases}, rec.Created}
	for _, p := range st.Addrs {
		is4 := p.Addr().Is4()
		if !slices.ContainsFunc(l.Addrs, func(a netip.Addr) bool { return a.Is4() == is4 }) {
			l.Addrs = append(l.Addrs, p.Addr())
		}
	}
	l.bound()
	return l, len(l.Addrs) > 0 && len(l.All()) > 0 && IsID(ID(rec.ContainerID, rec.IfName))
}

// bound leaves out what others would not read: aliases from the end.
func (a *Attachment) bound() {
	a.Names = a.Names[:min(len(a.Names), maxNames)]
	a.Aliases = a.Aliases[:min(len(a.Aliases), maxNames-len(a.Names))]
	for len(a.Aliases) > 0 {
		if _, err := a.Text(); err == nil {
			return
		}
		a.Aliases = a.Aliases[:len(a.Aliases)-1]
	}
}
