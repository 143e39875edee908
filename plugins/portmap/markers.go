package portmap

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/nft"
)

// nerdctl chooses a random host port, and refuses a taken one, by what
// `iptables -t nat -S CNI-HOSTPORT-DNAT` prints: it takes the numbers behind
// --dports. What nftables publishes is not there, so each attachment has markers
// in that chain: rules of iptables' form with a match and no verdict. Nothing of
// ours jumps there. See docs/adr/0022.
//
// Markers are a service to nerdctl, nothing else: they have a transaction of
// their own, a failure is a note, and CHECK does not ask for them.

// nerdctlData is where nerdctl keeps its data unless it is told otherwise.
const nerdctlData = "/var/lib/nerdctl"

// natTable is iptables' own: nerdctl asks for no other, IPv6 included.
var natTable = nft.Table{Family: nft.IPv4, Name: "nat"}

func markers() nft.Chain { return nft.Chain{Table: natTable, Name: dnatChain} }

// isNerdctls reports whether nerdctl runs the container: it calls its containers
// by namespace and ID, default-0123….
func isNerdctls(containerID string) bool {
	i := strings.LastIndexByte(containerID, '-')
	b, err := hex.DecodeString(containerID[i+1:])
	return i > 0 && err == nil && len(b) == 32
}

// nerdctlHere reports whether nerdctl has run a container on this host.
func nerdctlHere() bool {
	_, err := os.Stat(nerdctlData)
	return err == nil
}

// marked reports whether nerdctl has to know of the attachment's ports: those of
// its own containers, and where it is in use those of all others.
func (j *job) marked() bool { return isNerdctls(j.key.ContainerID) || nerdctlHere() }

// unmarkable reports whether the host's iptables is the legacy one, which does
// not see markers.
func unmarkable() bool {
	tool := iptables.Tool{}
	return tool.Installed() && !tool.Translated()
}

// marks reports whether the attachment gets markers. With iptables its own rules
// say the same, and the old iptables would not see them.
func (j *job) marks() bool {
	return !j.byIPTables() && j.marked() && iptables.Tool{}.Translated()
}

// marker is the comment of the attachment's markers, the reference's: nerdctl 2
// looks for the container in it.
func (j *job) marker() string { return iptables.Comment("dnat ", j.key.Network, j.key.ContainerID) }

// isMarker tells a marker from the rules that iptables publishes with.
func isMarker(r nft.RuleInfo) bool {
	return r.Target == "" && strings.HasPrefix(r.Comment, "dnat name: ")
}

// IsMarker tells a marker by its chain and its text, as nft(8) writes them.
func IsMarker(place, text string) bool {
	return place == natTable.Family.String()+" "+natTable.Name+" "+dnatChain && !strings.Contains(text, "jump ") && !strings.Contains(text, "goto ")
}

// mark makes the attachment's markers.
func (j *job) mark(ctx context.Context) {
	if j.marks() {
		j.remark(ctx, j)
	}
}

// markOthers marks what was published before nerdctl was here, or by a version
// of this suite that made no markers: nerdctl has just chosen a port of it.
func (j *job) markOthers(ctx context.Context) {
	if !j.marks() {
		return
	}
	others, err := j.published()
	if err != nil {
		j.note("portmap: %v", err)
	}
	j.remark(ctx, others...)
}

// remark makes the markers that attachments lack.
func (j *job) remark(ctx context.Context, all ...*job) {
	c, err := nft.Dial(nil, j.gate)
	if err == nil {
		err = errors.Join(j.addMarkers(ctx, c, all), c.Close())
	}
	if err != nil {
		j.note("portmap: nerdctl may choose a port that is taken: %v", err)
	}
}

func (j *job) addMarkers(ctx context.Context, c *nft.Conn, all []*job) error {
	return j.updateMarkers(ctx, c, func(tx *nft.Tx) error {
		rules, err := c.Rules(markers())
		if err != nil {
			return err
		}
		for _, o := range all {
			for _, m := range o.markerRules() {
				if slices.ContainsFunc(rules, m.is) {
					continue
				}
				tx.EnsureTable(natTable, "")
				tx.EnsureChain(markers())
				tx.Append(m.Rule)
			}
		}
		return nil
	})
}

// unmark removes the attachment's markers, and the chain after the last.
// It takes the socket of what else is removed: each socket that has deleted rules
// waits when it is closed.
func (j *job) unmark(ctx context.Context, c *nft.Conn) {
	if !j.marked() {
		return
	}
	if err := j.dropOwnMarkers(ctx, c); err != nil {
		j.note("portmap: nerdctl takes a port that is free for taken: %v (netcleat doctor --fix removes the marker)", err)
	}
}

func (j *job) dropOwnMarkers(ctx context.Context, c *nft.Conn) error {
	return j.dropMarkers(ctx, c, func(r nft.RuleInfo) bool { return r.Comment == j.marker() })
}

// dropMarkers removes stale markers. What the container's other interfaces have
// published on the network has the same comment, and is marked again.
func (j *job) dropMarkers(ctx context.Context, c *nft.Conn, stale func(nft.RuleInfo) bool) error {
	found := false
	err := j.updateMarkers(ctx, c, func(tx *nft.Tx) error {
		rules, err := c.Rules(markers())
		if err != nil {
			return err
		}
		rules = slices.DeleteFunc(rules, func(r nft.RuleInfo) bool { return !isMarker(r) || !stale(r) })
		if found = len(rules) > 0; !found {
			return nil
		}
		for _, r := range rules {
			tx.DeleteRule(markers(), r.Handle)
		}
		siblings, err := j.markedSiblings()
		if err != nil {
			return err
		}
		for _, s := range siblings {
			for _, r := range s.markerRules() {
				tx.Append(r.Rule)
			}
		}
		info, err := c.GetChain(markers())
		if err == nil && info != nil && len(siblings) == 0 && int(info.Uses) == len(rules) {
			tx.DeleteChain(markers()) // no other rule is in it, and none jumps to it
		}
		return err
	})
	if err != nil || !found {
		return err
	}
	return c.DeleteBare(ctx, natTable)
}

// updateMarkers changes the chain of markers. A kernel without nf_tables has none.
func (j *job) updateMarkers(ctx context.Context, c *nft.Conn, build func(*nft.Tx) error) error {
	err := c.Update(ctx, "mark ports of "+j.key.ContainerID, build)
	if nft.Missing(err) {
		err = nil
	}
	return err
}

// published returns what is published by nftables on this host, as the records
// say.
func (j *job) published() (list []*job, err error) {
	names, err := j.dir.Networks()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		records, err := j.dir.Network(n)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			o := &job{key: r.Key, dir: j.dir, gate: j.gate, note: j.note}
			if r.Plugin == "portmap" && r.Key != j.key && r.GetState(&o.publication) == nil && !o.byIPTables() {
				list = append(list, o)
			}
		}
	}
	return list, nil
}

// markedSiblings returns what the container's other interfaces publish on the
// network by nftables.
func (j *job) markedSiblings() ([]*job, error) {
	all, err := j.published()
	return slices.DeleteFunc(all, func(o *job) bool {
		return o.key.Network != j.key.Network || o.key.ContainerID != j.key.ContainerID
	}), err
}

// markerRule is a marker and what tells it from others.
type markerRule struct {
	nft.Rule
	comment string
	proto   proto
	ports   []uint16
}

// is reports whether a rule is the marker.
func (m markerRule) is(r nft.RuleInfo) bool {
	ofProto := func(v []byte) bool { return len(v) == 1 && v[0] == byte(m.proto) }
	return isMarker(r) && r.Comment == m.comment && slices.Equal(r.Ports, m.ports) && slices.ContainsFunc(r.Values, ofProto)
}

// markerRules returns the attachment's markers: of each protocol as many as its
// ports need.
func (j *job) markerRules() (list []markerRule) {
	if !slices.ContainsFunc(j.Targets, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		return nil
	}
	for _, p := range protos {
		for ports := range slices.Chunk(j.markedPorts(p), slots) {
			e := []nft.Expr{
				nft.Meta(unix.NFT_META_L4PROTO, 0), nft.Cmp(nft.Equal, 0, []byte{byte(p)}),
				nft.Comment(j.marker()), nft.Multiport(ports), nft.Counter(),
			}
			list = append(list, markerRule{nft.Rule{Chain: markers(), Exprs: e, Proto: uint8(p)}, j.marker(), p, ports})
		}
	}
	return list
}

// markedPorts returns a protocol's host ports, each once: nerdctl does not read
// ranges.
func (j *job) markedPorts(p proto) (ports []uint16) {
	for _, m := range j.pick(false) {
		if m.Proto != p {
			continue
		}
		for i := range m.Count {
			ports = append(ports, m.Host+i)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
