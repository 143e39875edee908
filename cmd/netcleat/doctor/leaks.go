package doctor

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/ruleset"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/evidence"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/lease"
	"github.com/netcleat/netcleat/pkg/masq"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/veth"
	"github.com/netcleat/netcleat/plugins/firewall"
	"github.com/netcleat/netcleat/plugins/portmap"
)

// That nothing remembers a container (no record, no entry of libcni's cache, no lease,
// no end on the host) does not prove that it no longer exists: what is left of it is
// named, with the command that removes it, and --fix leaves it. Rules of a network are
// for addresses or for a bridge: --fix removes them where no namespace has one of the
// addresses, and the bridge no port. It looks again before it removes anything.

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
		return l.Kind == "veth" && aliasNames(l.Alias, network)
	}) || slices.ContainsFunc(e.rows, func(r show.Row) bool {
		return journal.IsCut(network, r.Network)
	})
}

// aliasNames reports whether a link's alias names the network, the name of which a
// comment or the alias may have cut.
func aliasNames(alias, network string) bool {
	const hashed, limit = 17, 255 // what journal.Cut ends a name with, and the kernel's limit
	if start := "netcleat " + network; len(alias) == limit && len(start) > limit-hashed {
		return strings.HasPrefix(start, alias[:limit-hashed])
	}
	words := strings.Fields(alias)
	return len(words) > 1 && words[0] == "netcleat" && journal.IsCut(network, words[1])
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
			if !e.remembers(words[2]) {
				e.add(finding.Warning, unsure(words[1], words[2]), "shaper %s is of container %s %s: %s", l.Name, words[2], words[3], unproven)
			}
		case strings.HasPrefix(l.Name, "bwp") && l.Alias == "" && !theirs[l.Name]:
			e.add(finding.Warning, finding.Do("it is not known who uses it: the link of which tc filter show says that it redirects to "+l.Name+"; what made it removes it"), "shaper %s belongs to no known attachment", l.Name)
		}
	}
}

// journals reports whether the journal is here at all: the plugins make it with
// the first attachment, and nothing removes it. Where it is not, this is the mount
// namespace of somebody else, and nothing is proven.
func (e *exam) journals() bool {
	_, err := os.Stat(string(e.Journal))
	return err == nil
}

// leak is what one network, or one container, has left in the firewall. fix is nil
// where nothing proves that it is a leak.
type leak struct {
	marks []ruleset.Mark
	mend  finding.Mend
	why   string
	fix   func(context.Context) error
}

// unproven is what nothing but its rules speaks of.
const unproven = "no record, lease, libcni entry or end on the host names it, and nothing proves that it no longer exists"

// marks looks for rules and elements of networks and containers that no longer exist.
func (e *exam) marks(ctx context.Context) {
	rules, err := e.ruleset(ctx)
	if err != nil {
		e.broken(err)
		return
	}
	marks, err := rules.Marks()
	if err != nil {
		e.broken(err)
	}
	leaks, order := map[string]*leak{}, []string{}
	e.marked, e.needs = marks, map[string]evidence.Verdict{}
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
	if err := e.leasesIn(network); err != nil {
		e.leased[network] = true // perhaps
		e.broken(err)
	}
}

// leasesIn looks for leases of a network where host-local has them unless it is told
// otherwise.
func (e *exam) leasesIn(network string) error {
	dir := lease.DirOf("", network)
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		if _, err := netip.ParseAddr(f.Name()); err != nil {
			continue
		}
		b, _ := os.ReadFile(filepath.Join(dir, f.Name())) // one that cannot be read is a lease all the same
		id, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\r")
		e.holders[id], e.leased[network] = true, true
	}
	return nil
}

// tell adds what was found of one leak.
func (e *exam) tell(who string, l *leak) {
	places := []string{}
	for _, m := range l.marks {
		if !slices.Contains(places, m.Place) {
			places = append(places, m.Place)
		}
	}
	what := fmt.Sprintf("%s: %d rules or elements in %s", who, len(l.marks), strings.Join(places, ", "))
	switch {
	case l.fix != nil && e.journals():
		e.fixable(l.fix, "%s are left of it", what)
	case l.fix != nil:
		e.add(finding.Warning, finding.Do("attach to the network again, or look with nft list ruleset"), "%s: no record, lease or end on the host names it, and there is no journal here", what)
	default:
		e.add(finding.Warning, l.mend, "%s: %s", what, l.why)
	}
}

// ofContainer is what is left of a container.
func (e *exam) ofContainer(k journal.Key) *leak {
	l := &leak{mend: unsure(k.Network, k.ContainerID), why: unproven}
	if e.hasEnd(k) {
		l.why = "its end on the host exists, and its record was lost"
	}
	return l
}

// ofNetwork is what is left of a network: fix removes it, where nothing is attached
// to the network by then.
func (e *exam) ofNetwork(network string, fix func(context.Context) error) *leak {
	v, judged := e.needs[network]
	if !judged {
		v = e.networkNeeds(network)
		e.needs[network] = v
	}
	if v.State != evidence.Dead {
		return &leak{
			mend: finding.Do("if no container of network " + network + " runs, attach one and detach it again, which removes what the network has left"),
			why:  "no record, lease, libcni entry or end on the host names it, and nothing proves that no container of it runs: " + v.Why,
		}
	}
	return &leak{fix: func(ctx context.Context) error {
		now := newExam(e.Options)
		now.marked = e.marked
		if err := now.gather(ctx, network); err != nil {
			return err
		}
		if now.inUse(network) {
			return fmt.Errorf("network %s: something is attached to it by now", network)
		}
		if v := now.networkNeeds(network); v.State != evidence.Dead {
			return fmt.Errorf("network %s: it may be in use by now: %s", network, v.Why)
		}
		return fix(ctx)
	}}
}

// networkNeeds judges whether anything needs a network's rules, by what they are for.
func (e *exam) networkNeeds(network string) evidence.Verdict {
	var prefixes []netip.Prefix
	for _, m := range e.marked {
		if n, _ := m.Owner(); n != network {
			continue
		}
		name, _, _ := strings.Cut(strings.Trim(m.Text, `"`), `"`) // the first of a key
		if bridge := e.link(name); m.Element && bridge != nil && e.hasPorts(bridge) {
			return evidence.Verdict{State: evidence.Unknown, Why: "bridge " + bridge.Name + " has ports"}
		}
		for _, word := range strings.Fields(m.Comment) {
			if p, err := netip.ParsePrefix(word); err == nil {
				prefixes = append(prefixes, p)
			}
		}
	}
	if len(prefixes) == 0 {
		return evidence.Verdict{State: evidence.Dead, Why: "what it has left is for no address, and its bridges have no port"}
	}
	judge, err := evidence.New()
	if err != nil {
		return evidence.Verdict{State: evidence.Unknown, Why: err.Error()}
	}
	defer func() { _ = judge.Close() }() // it was only asked
	return judge.Addresses(prefixes)
}

func (e *exam) link(name string) *nl.Link {
	i := slices.IndexFunc(e.links, func(l *nl.Link) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return e.links[i]
}

func (e *exam) hasPorts(bridge *nl.Link) bool {
	return slices.ContainsFunc(e.links, func(l *nl.Link) bool { return l.Master == bridge.Index })
}

// gather looks at all that could show that a network is in use. What cannot be read
// is an error.
func (e *exam) gather(ctx context.Context, network string) (err error) {
	if e.networks, err = show.Networks(ctx, e.Places); err != nil {
		return err
	}
	for _, n := range e.networks {
		e.rows = append(e.rows, n.Containers...)
		if lease.KeptBy(n.IPAM.Driver) {
			if err := e.leasesOf(ctx, n); err != nil {
				return err
			}
		}
	}
	if err := e.leasesIn(network); err != nil {
		return err
	}
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	e.links, err = c.Links()
	return errors.Join(err, c.Close())
}

// leakOf says whose a rule or element is where that is gone, and how it is
// removed; nil where it is not a leak, or not this suite's.
func (e *exam) leakOf(m ruleset.Mark) (who string, _ *leak) {
	network, id := m.Owner()
	words := strings.Fields(m.Place)
	table, place := words[1], words[len(words)-1]
	switch {
	case m.Element && table == "cni_hostport" && id != "":
		if e.remembers(id) {
			return "", nil
		}
		return "container " + id + " of network " + network, e.ofContainer(journal.Key{Network: network, ContainerID: id, IfName: strings.Fields(m.Comment)[1]})
	case portmap.IsMarker(m.Place, m.Text) && id != "":
		if e.remembers(id) {
			return "", nil
		}
		return "container " + id + " of network " + network + " (markers for nerdctl)", e.ofContainer(journal.Key{Network: network, ContainerID: id})
	case m.Element && table == "cni_spoofcheck" && id != "":
		if e.remembers(id) || e.hasLink(strings.Trim(m.Text, `"`)) {
			return "", nil
		}
		return "container " + id, &leak{mend: unsure("", id), why: unproven}
	case id != "" || network == "" || e.inUse(network):
		return "", nil
	case table == "cni_plugins_masquerade" && place != "masq_checks":
		return "", nil // the one that leads there counts
	case table == "cni_plugins_masquerade":
		return "network " + network + " (masquerading)", e.ofNetwork(network, func(ctx context.Context) error {
			return masq.Del(ctx, masq.Attachment{Journal: e.Journal, Network: network})
		})
	case place == "CNI-FORWARD" || table == "cni_firewall":
		return "network " + network + " (firewall)", e.ofNetwork(network, func(ctx context.Context) error {
			return firewall.Collect(ctx, nil, e.Journal, network)
		})
	case table == "cni_hostport" && place == "networks":
		return "network " + network + " (published ports)", e.ofNetwork(network, func(ctx context.Context) error {
			return portmap.Collect(ctx, nil, e.Journal, journal.Key{Network: network})
		})
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
		e.add(finding.Warning, unsure(network, id), "chain %s of %s is of container %s: %s", chain, name, id, unproven)
	}
}

// backups looks for tuning's files of containers that are not known.
func (e *exam) backups() {
	const dir = "/run/cni/tuning"
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.broken(err)
	}
	for _, entry := range files {
		f := filepath.Join(dir, entry.Name())
		name, is := strings.CutSuffix(entry.Name(), ".json")
		if !is {
			continue
		}
		known := slices.ContainsFunc(e.rows, func(r show.Row) bool { return name == r.Container+"_"+r.Interface })
		if !known {
			e.add(finding.Warning, finding.Do("it is not known whether that container still exists: ask its runtime; the file goes with a reboot, and does no harm"), "%s: tuning kept it for a container that is not known", f)
		}
	}
}
