package doctor

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/spoof"
	"github.com/netcleat/netcleat/pkg/veth"
	"github.com/netcleat/netcleat/plugins/firewall"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// What is left of an attachment is proven to be a leak where nothing remembers
// the container (no record, no entry of libcni's cache, no lease), and the link
// is not there that its end on the host would be. The mending looks at the journal
// or at the link again: what is being attached just now has those first.

// remembers reports whether anything knows the container, whose ID a comment may
// have cut.
func (e *exam) remembers(container string) bool {
	if e.holders[container] {
		return true
	}
	return slices.ContainsFunc(e.rows, func(r show.Row) bool {
		return journal.IsCut(container, r.Container)
	})
}

// inUse reports whether anything is attached to the network, or holds a lease of
// it, or has an end on the host.
func (e *exam) inUse(network string) bool {
	return e.leased[network] || slices.ContainsFunc(e.links, func(l *nl.Link) bool {
		return l.Kind == "veth" && strings.HasPrefix(l.Alias, "netcleat "+network+" ")
	}) || slices.ContainsFunc(e.rows, func(r show.Row) bool {
		return journal.IsCut(network, r.Network)
	})
}

// hasEnd reports whether the host has the end of a pair of the attachment.
func (e *exam) hasEnd(k journal.Key) bool {
	return slices.ContainsFunc(e.links, func(l *nl.Link) bool {
		return l.Name == veth.HostName(k) || l.Kind == "veth" && aliasOf(l.Alias, k)
	})
}

// aliasOf reports whether a link's alias names the attachment, whose names a comment
// may have cut.
func aliasOf(alias string, k journal.Key) bool {
	if alias == veth.Alias(k) {
		return true
	}
	words := strings.Fields(alias)
	if len(words) != 4 || words[0] != "netcleat" || words[3] != k.IfName {
		return false
	}
	return journal.IsCut(k.Network, words[1]) && journal.IsCut(k.ContainerID, words[2])
}

func (e *exam) hasLink(name string) bool {
	return slices.ContainsFunc(e.links, func(l *nl.Link) bool { return l.Name == name })
}

// shapers looks for ifb devices of bandwidth that limit nothing any more.
func (e *exam) shapers() {
	theirs := map[string]bool{} // names that the reference gives, by what is known
	for _, r := range e.rows {
		sum := sha512.Sum512([]byte(r.Network + r.Container))
		theirs["bwp"+hex.EncodeToString(sum[:6])] = true
	}
	for _, l := range e.links {
		if l.Kind != "ifb" {
			continue
		}
		words := strings.Fields(l.Alias)
		switch {
		case len(words) == 4 && words[0] == "netcleat":
			k := journal.Key{Network: words[1], ContainerID: words[2], IfName: words[3], Plugin: "bandwidth"}
			switch {
			case e.remembers(k.ContainerID):
			case e.hasEnd(k) || !e.journals():
				e.add(finding.Warning, unsure(k.Network, k.ContainerID), "shaper %s is of container %s, which is not known", l.Name, k.ContainerID)
			default:
				e.fixable(e.unshape(l, k), "shaper %s is of container %s %s, which is gone", l.Name, k.ContainerID, k.IfName)
			}
		case strings.HasPrefix(l.Name, "bwp") && l.Alias == "" && !theirs[l.Name]:
			e.add(finding.Warning, finding.Do("it is not known who uses it: the link of which tc filter show says that it redirects to "+l.Name+"; what made it removes it"), "shaper %s belongs to no known attachment", l.Name)
		}
	}
}

// unshape deletes an ifb device.
func (e *exam) unshape(l *nl.Link, k journal.Key) func(context.Context) error {
	return func(context.Context) (err error) {
		if err := e.again(k); err != nil {
			return err
		}
		c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		if now, err := c.LinkByIndex(l.Index); err != nil || now.Alias != l.Alias {
			return err // it has gone meanwhile
		}
		return c.Do(nl.DelLinkIndex(l.Name, l.Index))
	}
}

// again judges a leak a second time, just before it is removed.
func (e *exam) again(k journal.Key) (err error) {
	if err := e.recordless(k); err != nil {
		return err
	}
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	links, err := c.Links()
	if err == nil && (&exam{links: links}).hasEnd(k) {
		err = fmt.Errorf("container %s: its end on the host exists", k.ContainerID)
	}
	return err
}

// recordless is an error where the attachment has a record by now.
func (e *exam) recordless(k journal.Key) error {
	records, err := e.Journal.Network(k.Network)
	for _, r := range records {
		if r.ContainerID == k.ContainerID {
			return fmt.Errorf("container %s: has been attached meanwhile", k.ContainerID)
		}
	}
	return err
}

// journals reports whether the journal is here at all: the plugins make it with
// the first attachment, and nothing removes it. Where it is not, this is the mount
// namespace of somebody else, and nothing is proven.
func (e *exam) journals() bool {
	_, err := os.Stat(string(e.Journal))
	return err == nil
}

// leak is what one network, or one container, has left in the firewall.
type leak struct {
	marks  []ruleset.Mark
	proven bool
	fix    func(context.Context) error
}

// marks looks for rules and elements of networks and containers that no longer exist.
func (e *exam) marks(ctx context.Context) {
	rules, err := ruleset.Read(ctx)
	if err != nil {
		e.broken(err)
		return
	}
	marks, err := rules.Marks()
	if err != nil {
		e.broken(err)
	}
	leaks, order := map[string]*leak{}, []string{}
	for _, m := range marks {
		e.leasesOfOthers(m)
		who, l := e.leakOf(m)
		if l == nil {
			continue
		}
		if leaks[who] == nil {
			leaks[who] = l
			order = append(order, who)
		}
		leaks[who].marks = append(leaks[who].marks, m)
		leaks[who].proven = leaks[who].proven && l.proven
	}
	for _, who := range order {
		e.tell(who, leaks[who])
	}
	if len(order) == 0 {
		e.add(finding.Fine, nothing, "the firewall has nothing left of others")
	}
}

// leasesOfOthers looks for leases of a network that nothing else speaks of, where
// host-local has them unless it is told otherwise.
func (e *exam) leasesOfOthers(m ruleset.Mark) {
	network, _ := m.Owner()
	if network == "" || e.looked[network] || slices.ContainsFunc(e.networks, func(n show.Network) bool { return n.Name == network }) {
		return
	}
	e.looked[network] = true
	files, _ := filepath.Glob(filepath.Join("/var/lib/cni/networks", network, "*")) // a pattern that is good
	for _, f := range files {
		if _, err := netip.ParseAddr(filepath.Base(f)); err != nil {
			continue
		}
		b, _ := os.ReadFile(f) // one that cannot be read is a lease all the same
		id, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\r")
		e.holders[id], e.leased[network] = true, true
	}
}

// tell adds what was found of one leak.
func (e *exam) tell(who string, l *leak) {
	places := []string{}
	for _, m := range l.marks {
		if !slices.Contains(places, m.Place) {
			places = append(places, m.Place)
		}
	}
	what := fmt.Sprintf("%s: %d rules or elements in %s are left of it", who, len(l.marks), strings.Join(places, ", "))
	if l.proven && e.journals() {
		e.fixable(l.fix, "%s", what)
		return
	}
	mend := finding.Do("attach to the network again, or look with nft list ruleset")
	if network, id := l.marks[0].Owner(); id != "" {
		mend = unsure(network, id)
	}
	e.add(finding.Warning, mend, "%s, which is not known", what)
}

// leakOf says whose a rule or element is where that is gone, and how it is
// removed; nil where it is not a leak, or not this suite's.
func (e *exam) leakOf(m ruleset.Mark) (who string, _ *leak) {
	network, id := m.Owner()
	words := strings.Fields(m.Place)
	table, place := words[1], words[len(words)-1]
	switch {
	case m.Element && table == "cni_hostport" && id != "":
		k := journal.Key{Network: network, ContainerID: id, IfName: strings.Fields(m.Comment)[1], Plugin: "portmap"}
		if e.remembers(id) {
			return "", nil
		}
		return "container " + id + " of network " + network, &leak{proven: !e.hasEnd(k), fix: func(ctx context.Context) error {
			if err := e.again(k); err != nil {
				return err
			}
			return portmap.Collect(ctx, nil, e.Journal, k)
		}}
	case portmap.IsMarker(m.Place, m.Text) && id != "":
		if e.remembers(id) {
			return "", nil
		}
		return "container " + id + " of network " + network + " (markers for nerdctl)", &leak{proven: true, fix: func(ctx context.Context) error {
			if err := e.again(journal.Key{Network: network, ContainerID: id}); err != nil {
				return err
			}
			return portmap.Collect(ctx, nil, e.Journal, journal.Key{Network: network, ContainerID: id})
		}}
	case m.Element && table == "cni_spoofcheck" && id != "":
		port := strings.Trim(m.Text, `"`)
		if e.remembers(id) || e.hasLink(port) {
			return "", nil
		}
		return "container " + id, &leak{proven: true, fix: func(ctx context.Context) error {
			return spoof.Collect(ctx, nil, port)
		}}
	case id != "" || network == "" || e.inUse(network):
		return "", nil
	case table == "cni_plugins_masquerade" && place != "masq_checks":
		return "", nil // the one that leads there counts
	case table == "cni_plugins_masquerade":
		return "network " + network + " (masquerading)", &leak{proven: true, fix: func(ctx context.Context) error {
			return masq.Del(ctx, masq.Attachment{Journal: e.Journal, Network: network})
		}}
	case place == "CNI-FORWARD" || table == "cni_firewall":
		return "network " + network + " (firewall)", &leak{proven: true, fix: func(ctx context.Context) error {
			return firewall.Collect(ctx, nil, e.Journal, network)
		}}
	case table == "cni_hostport" && place == "networks":
		return "network " + network + " (published ports)", &leak{proven: true, fix: func(ctx context.Context) error {
			return portmap.Collect(ctx, nil, e.Journal, journal.Key{Network: network})
		}}
	}
	return "", nil
}

// chains looks for iptables' chains of containers that are not known, as the
// comments of what enters them say. That proves nothing: the reference keeps no
// record.
func (e *exam) chains(ctx context.Context) {
	for _, tool := range iptables.Present("nat") {
		saved, err := tool.Save(ctx, "nat")
		if err != nil {
			e.broken(err)
			continue
		}
		e.chainsOf(tool, iptables.Parse(saved))
	}
}

func (e *exam) chainsOf(tool iptables.Tool, lines []iptables.Line) {
	name := map[bool]string{false: "iptables", true: "ip6tables"}[tool.V6]
	if tool.Legacy {
		name += "-legacy"
	}
	seen := map[string]bool{}
	for _, l := range lines {
		chain := l.Value("-j")
		network, id := ruleset.Mark{Place: "ip nat " + l.Chain, Comment: l.Value("--comment")}.Owner()
		if id == "" || !strings.HasPrefix(chain, "CNI-") || seen[chain] || e.remembers(id) {
			continue
		}
		seen[chain] = true
		e.add(finding.Warning, unsure(network, id), "chain %s of %s is of container %s, which is not known", chain, name, id)
	}
}

// backups looks for tuning's files of containers that are not known.
func (e *exam) backups() {
	files, _ := filepath.Glob("/run/cni/tuning/*.json") // a pattern that is good
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		known := slices.ContainsFunc(e.rows, func(r show.Row) bool { return name == r.Container+"_"+r.Interface })
		if !known {
			e.add(finding.Warning, finding.Do("it is not known whether that container still exists: ask its runtime; the file goes with a reboot, and does no harm"), "%s: tuning kept it for a container that is not known", f)
		}
	}
}
