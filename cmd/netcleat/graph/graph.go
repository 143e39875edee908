// Package graph draws networks: what leads from the host to each container.
package graph

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/cmd/netcleat/term"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Formats are how a picture is written.
var Formats = []string{"text", "dot", "mermaid", "svg"}

// node is a network with its link on the host.
type node struct {
	show.Network
	hub     string // the link, its index and addresses
	remotes []Remote
}

// Remote is another host of an overlay network.
type Remote struct {
	Host   string     // its name; "" where it is not known
	VTEP   netip.Addr // to which the uplink sends
	Uplink string     // of this host
	Blocks []string   // of addresses that the host has
	// Forwarded is to how many MAC addresses behind the host this one forwards.
	Forwarded int
}

// lines are what the box of a remote host says.
func (r Remote) lines() []string {
	who := strings.TrimSpace("host " + r.Host)
	all := []string{who + " at " + r.VTEP.String()}
	if len(r.Blocks) > 0 {
		all = append(all, term.Brief(r.Blocks))
	} else {
		all = append(all, fmt.Sprintf("MAC addresses: %d", r.Forwarded))
	}
	if r.Forwarded == 0 {
		all = append(all, "not reached: this host has no entries for it")
	}
	return all
}

// Draw draws the networks in the format. remotes are the other hosts of each.
func Draw(w io.Writer, networks []show.Network, remotes map[string][]Remote, format string) error {
	draw := map[string]func([]node) string{"text": text, "dot": dot, "mermaid": mermaid, "svg": svg}[format]
	if draw == nil {
		return fmt.Errorf("format %q: want %s", format, strings.Join(Formats, ", "))
	}
	nodes, err := look(networks)
	if err != nil {
		return err
	}
	for i, n := range nodes {
		nodes[i].remotes = remotes[n.Name]
	}
	_, err = io.WriteString(w, draw(nodes))
	return err
}

// look finds the networks' links.
func look(networks []show.Network) (nodes []node, err error) {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	addrs, err := c.Addrs(0)
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		hub := n.Link
		if l, err := c.LinkByName(n.Link); err == nil {
			hub = fmt.Sprintf("%s #%d", l.Name, l.Index)
			for _, a := range addrs {
				if a.Index == l.Index && !a.Prefix.Addr().IsLinkLocalUnicast() {
					hub += " " + a.Prefix.String()
				}
			}
		} else if n.Link != "" {
			hub += " (not there)"
		}
		nodes = append(nodes, node{Network: n, hub: hub})
	}
	return nodes, nil
}

// title is what the network's box says.
func (n node) title() string {
	words := []string{n.Name, n.Driver}
	for _, p := range n.IPAM.Pools {
		words = append(words, strings.Join(p.Subnets, " "), "("+p.Use+")")
	}
	if n.Masquerade {
		words = append(words, "NAT")
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), "  ")
}

// ends are what the line to a container says: the host's end and the sandbox's.
func ends(r show.Row) (host, sandbox string) {
	host, sandbox = r.HostEnd, r.Interface
	if r.HostIndex > 0 && host != "" {
		host = fmt.Sprintf("%s #%d", host, r.HostIndex)
	}
	if r.Index > 0 {
		sandbox = fmt.Sprintf("%s #%d", sandbox, r.Index)
	}
	return host, sandbox
}

// text draws with the characters of a terminal.
func text(nodes []node) string {
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s\n", n.title())
		if n.hub != "" {
			fmt.Fprintf(&b, " │\n %s\n", n.hub)
		}
		last := len(n.Containers) + len(n.remotes) - 1
		for i, r := range n.Containers {
			textContainer(&b, r, i == last)
		}
		for i, r := range n.remotes {
			branch, _ := arms(len(n.Containers)+i == last)
			fmt.Fprintf(&b, "  %s── %s ═══ %s\n", branch, r.Uplink, strings.Join(r.lines(), "  "))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// arms are what joins a line to those above and below it.
func arms(last bool) (branch, trunk string) { //nolint:revive // a place in the picture
	if last {
		return "└", " "
	}
	return "├", "│"
}

// textContainer draws the line to a container.
func textContainer(b *strings.Builder, r show.Row, last bool) {
	branch, trunk := arms(last)
	host, sandbox := ends(r)
	if host != "" {
		host += " ═══ "
	}
	fmt.Fprintf(b, "  %s── %s%s in %s  %s", branch, host, sandbox, r.Called(), strings.Join(r.Addresses, " "))
	if r.Health != show.Healthy {
		fmt.Fprintf(b, "  (%s)", r.Health)
	}
	b.WriteString("\n")
	for _, p := range r.Ports {
		fmt.Fprintf(b, "  %s     published %s\n", trunk, p)
	}
}

// dot draws for Graphviz.
func dot(nodes []node) string {
	var b strings.Builder
	b.WriteString("graph netcleat {\n  rankdir=LR;\n  node [shape=box];\n")
	all := containers(nodes)
	for i, c := range all {
		fmt.Fprintf(&b, "  c%d [label=%q];\n", i, box(c, "\n"))
	}
	for i, n := range nodes {
		fmt.Fprintf(&b, "  n%d [label=%q];\n", i, n.title()+"\n"+n.hub)
		for _, r := range n.Containers {
			host, sandbox := ends(r)
			fmt.Fprintf(&b, "  n%d -- c%d [taillabel=%q, headlabel=%q];\n", i, indexOf(all, r), host, sandbox)
		}
		for j, r := range n.remotes {
			fmt.Fprintf(&b, "  r%d_%d [label=%q];\n  n%d -- r%d_%d [taillabel=%q, style=dashed];\n", i, j, strings.Join(r.lines(), "\n"), i, i, j, r.Uplink)
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// mermaid draws for Markdown.
func mermaid(nodes []node) string {
	var b strings.Builder
	b.WriteString("graph LR\n")
	all := containers(nodes)
	for i, c := range all {
		fmt.Fprintf(&b, "  c%d[\"%s\"]\n", i, plain(box(c, "<br/>")))
	}
	for i, n := range nodes {
		fmt.Fprintf(&b, "  n%d[\"%s\"]\n", i, plain(n.title()+"<br/>"+n.hub))
		for _, r := range n.Containers {
			host, sandbox := ends(r)
			fmt.Fprintf(&b, "  n%d ---|\"%s\"| c%d\n", i, plain(host+" = "+sandbox), indexOf(all, r))
		}
		for j, r := range n.remotes {
			fmt.Fprintf(&b, "  r%d_%d[\"%s\"]\n  n%d -.-|\"%s\"| r%d_%d\n", i, j, plain(strings.Join(r.lines(), "<br/>")), i, plain(r.Uplink), i, j)
		}
	}
	return b.String()
}

// containers returns the attachments of each container, in order. What has one network
// namespace is one container.
func containers(nodes []node) (all [][]show.Row) {
	for _, n := range nodes {
		for _, r := range n.Containers {
			if i := indexOf(all, r); i >= 0 {
				all[i] = append(all[i], r)
				continue
			}
			all = append(all, []show.Row{r})
		}
	}
	return all
}

func indexOf(all [][]show.Row, r show.Row) int {
	return slices.IndexFunc(all, func(rows []show.Row) bool {
		return rows[0].Container == r.Container || rows[0].Netns != "" && rows[0].Netns == r.Netns
	})
}

// box is what a container's box says.
func box(rows []show.Row, newline string) string {
	lines := []string{rows[0].Called()}
	for _, r := range rows {
		lines = slices.Concat(lines, r.Addresses, r.Ports)
		if r.Health != show.Healthy {
			lines = append(lines, r.Health)
		}
	}
	return strings.Join(lines, newline)
}

// plain writes what mermaid takes for syntax by its name. ("#" begins one.)
func plain(s string) string { return strings.NewReplacer("#", "#35;", `"`, "#quot;").Replace(s) }
