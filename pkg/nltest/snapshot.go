package nltest

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Snapshot returns the links, addresses, routes, rules, qdiscs and firewall
// rules of host and sandbox and the files of Dir as text, without what differs
// from run to run. It starts a process only for what takes one to read: in the
// VM that is most of a test's time.
func (b *Bed) Snapshot() string {
	b.t.Helper()
	var out strings.Builder
	for _, ns := range []*netns.NS{b.Host, b.Sandbox} {
		b.In(ns, func() {
			out.WriteString(stable(b.IPBatch("link\naddr\nroute show table all\nrule\n", "-d", "-o")))
			out.WriteString(stable(b.rules6() + b.qdiscs()))
			if b.hasRuleset() {
				out.WriteString(b.Run("nft", "list", "ruleset"))
			}
		})
		out.WriteString("--\n")
	}
	out.WriteString(b.files())
	return out.String()
}

// rules6 lists the routing rules of IPv6, byte by byte: none where the kernel was
// booted without it.
func (b *Bed) rules6() string {
	b.t.Helper()
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return ""
	}
	h := make([]byte, unix.SizeofRtMsg)
	h[0] = unix.AF_INET6
	var out strings.Builder
	for _, body := range b.dump(unix.NETLINK_ROUTE, nl.NewMessage("list IPv6 rules", unix.RTM_GETRULE, 0, h...)) {
		fmt.Fprintf(&out, "IPv6 rule %x\n", body)
	}
	return out.String()
}

// qdiscs lists all qdiscs, with their options byte by byte.
func (b *Bed) qdiscs() string {
	b.t.Helper()
	const sizeofTcMsg = 20
	var out strings.Builder
	for _, body := range b.dump(unix.NETLINK_ROUTE, nl.NewMessage("list qdiscs", unix.RTM_GETQDISC, 0, make([]byte, sizeofTcMsg)...)) {
		q, err := nl.ParseTC(body)
		must(b.t, err)
		fmt.Fprintf(&out, "qdisc %s %x dev %s parent %x info %d options %x\n", q.Kind, q.Handle, b.nameOf(q.Index), q.Parent, q.Info, settings(q))
	}
	return out.String()
}

// settings returns the qdisc's options without HTB's count of the packets that no
// class took (struct tc_htb_glob), which the kernel tells among them.
func settings(q *nl.TC) []byte {
	const (
		htbInit    = 2 // TCA_HTB_INIT
		sizeofGlob = 20
	)
	options := bytes.Clone(q.Options)
	if q.Kind == "htb" {
		nl.Attrs(options, func(typ uint16, glob []byte) {
			if typ == htbInit && len(glob) == sizeofGlob {
				clear(glob[16:])
			}
		})
	}
	return options
}

// nameOf returns the name of the link with the index.
func (b *Bed) nameOf(index int) string {
	b.t.Helper()
	i, err := net.InterfaceByIndex(index)
	must(b.t, err)
	return i.Name
}

// hasRuleset reports whether there is a table of nftables, which iptables' own
// are too.
func (b *Bed) hasRuleset() bool {
	b.t.Helper()
	m := nl.NewMessage("list tables", unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, 0, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	m.Query = true
	return len(b.dump(unix.NETLINK_NETFILTER, m)) > 0
}

// dump returns the kernel's answers to a query in the thread's namespace.
func (b *Bed) dump(protocol int, m *nl.Message) (bodies [][]byte) {
	b.t.Helper()
	c, err := nl.Dial(nil, protocol, nil)
	must(b.t, err)
	defer func() { _ = c.Close() }()
	m.Reply = func(body []byte) error {
		bodies = append(bodies, slices.Clone(body))
		return nil
	}
	must(b.t, c.Dump(m, func() { bodies = nil }))
	return bodies
}

// files lists the regular files of Dir with their contents.
func (b *Bed) files() string {
	var out strings.Builder
	must(b.t, filepath.WalkDir(b.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(&out, "%s: %q\n", strings.TrimPrefix(path, b.Dir), content)
		return err
	}))
	return out.String()
}

var (
	volatile = regexp.MustCompile(`direct_packets_stat \d+|linkdown |NO-CARRIER,|,LOWER_UP|state [A-Z]+|@\S+|([0-9a-f]{2}:){5}[0-9a-f]{2}|fe80::\S+|expires \w+|(valid|preferred)_lft \w+|numtxqueues.*|promiscuity.*| minmtu.*|^\d+: `)
	noise    = regexp.MustCompile(`multicast|^local [0-9a-f]*:|fe80|^anycast|state (UNKNOWN|LOWERLAYERDOWN)\b.*tunl`)
)

// stable leaves out of ip(8)'s text what differs from run to run.
func stable(text string) string {
	lines := strings.Split(text, "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return noise.MatchString(l) })
	for i, l := range lines {
		lines[i] = volatile.ReplaceAllString(l, "")
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}
