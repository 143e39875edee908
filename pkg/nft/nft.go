// Package nft speaks to nf_tables over netlink: it reads rules and sets, and
// changes several of them in one transaction that the kernel makes whole or not
// at all. It knows the expressions that this suite's rules are made of, and
// encodes them as nft(8) does, so that `nft list ruleset` shows them in words.
package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/look"
	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
)

// Family is the address family of a table.
type Family uint8

// The families that the suite has tables in.
const (
	Inet   Family = unix.NFPROTO_INET
	IPv4   Family = unix.NFPROTO_IPV4
	IPv6   Family = unix.NFPROTO_IPV6
	Bridge Family = unix.NFPROTO_BRIDGE
)

// String returns the family's name as nft(8) writes it.
func (f Family) String() string {
	switch f {
	case Inet:
		return "inet"
	case IPv4:
		return "ip"
	case IPv6:
		return "ip6"
	default:
		return "bridge"
	}
}

// Table names a table.
type Table struct {
	Family Family
	Name   string
}

// String returns the table as nft(8) writes it.
func (t Table) String() string { return "table " + t.Family.String() + " " + t.Name }

// Conn is a socket to nf_tables. It is not safe for concurrent use.
type Conn struct {
	nl    *nl.Conn
	there bool // nf_tables has answered
	look  *look.Look
}

// Dial opens a socket in ns; a nil ns is the calling thread's namespace.
func Dial(ns *netns.NS, g gate.Gate) (*Conn, error) {
	c, err := nl.Dial(ns, unix.NETLINK_NETFILTER, g)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &Conn{nl: c}, nil
}

// Look opens a socket to look with, in the calling thread's namespace. Where ctx shares what
// is read (package look), tables, chains and sets are listed once for all.
func Look(ctx context.Context) (*Conn, error) {
	c, err := Dial(nil, nil)
	if err == nil {
		c.look = look.Of(ctx)
	}
	return c, err
}

// listed names what is listed once by those who share a look: the things of that kind in a
// table, or in a chain or set of it.
type listed struct {
	kind  string
	table Table
	name  string
}

// list returns what read lists, to a caller who may change it.
func list[T any](c *Conn, what any, read func() ([]T, error)) ([]T, error) {
	if c.look == nil {
		return read()
	}
	all, err := look.Once(c.look, what, read)
	return slices.Clone(all), err
}

// Close closes the socket. After a deletion that takes 8 to 17 ms, also for
// other sockets of the namespace: the kernel waits until what was deleted has
// been freed. See docs/adr/0017.
func (c *Conn) Close() error { return c.nl.Close() }

// errMissing says that the kernel has no nf_tables.
var errMissing = errors.New("the kernel has no nf_tables")

// Missing reports whether err says that the kernel has no nf_tables, or not the
// family asked for: what is to be removed is not there.
func Missing(err error) bool {
	return errors.Is(err, errMissing) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)
}

// Available reports whether the kernel has nf_tables.
func (c *Conn) Available() bool {
	if !c.there {
		_, err := c.generation()
		c.there = err == nil
	}
	return c.there
}

// message starts an nf_tables message.
func message(what string, f Family, typ, flags uint16) *nl.Message {
	return nl.NewMessage(what, unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, uint8(f), unix.NFNETLINK_V0, 0, 0)
}

// query is a message that only asks.
func query(what string, f Family, typ uint16) *nl.Message {
	m := message(what, f, typ, 0)
	m.Query = true
	return m
}

const headerLen = 4 // struct nfgenmsg

// attrs walks the attributes of an answer.
func attrs(body []byte, fn func(typ uint16, data []byte)) {
	nl.Attrs(nl.After(body, headerLen), fn)
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func u64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// generation returns the number that each transaction of the namespace counts
// up.
func (c *Conn) generation() (id uint32, err error) {
	m := query("nftables generation", 0, unix.NFT_MSG_GETGEN)
	m.Reply = func(b []byte) error {
		attrs(b, func(typ uint16, d []byte) {
			if typ == unix.NFTA_GEN_ID {
				id = u32(d)
			}
		})
		return nil
	}
	err = c.nl.Do(m)
	if errors.Is(err, unix.EINVAL) { // nfnetlink's answer for a subsystem that it lacks
		err = errMissing
	}
	c.there = err == nil
	return id, err
}

// Tx is a transaction that is being put together.
type Tx struct {
	conn  *Conn
	what  string
	msgs  []*nl.Message
	new   map[Table]bool     // tables that this transaction makes
	seen  map[chainName]bool // chains that are there, or that it makes
	first map[string]bool    // rules that it inserts (EnsureFirst)
	err   error              // of a look that Ensure… took
}

// Empty reports whether the transaction would change nothing.
func (tx *Tx) Empty() bool { return len(tx.msgs) == 0 }

func (tx *Tx) add(m *nl.Message) *nl.Message {
	tx.msgs = append(tx.msgs, m)
	return m
}

// tries bounds how often Update starts over because others changed the ruleset.
const tries = 1000

// Update makes a change that depends on what is there. build reads by c and
// fills the transaction, which is made only if nobody has changed the ruleset
// since build began; else build is called again with an empty one. An empty
// transaction is not sent. what says in words what the change is for.
func (c *Conn) Update(ctx context.Context, what string, build func(*Tx) error) error {
	var err error
	for range tries {
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		var gen uint32
		if gen, err = c.generation(); err != nil {
			return err
		}
		tx := &Tx{conn: c, what: what, new: map[Table]bool{}, seen: map[chainName]bool{}, first: map[string]bool{}}
		if err = errors.Join(build(tx), tx.err); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		err = c.commit(tx, gen)
		if !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return err
}

func (c *Conn) commit(tx *Tx, gen uint32) error {
	if tx.Empty() {
		return nil
	}
	begin := nl.NewMessage(tx.what, unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	begin.Attr(unix.NFNL_BATCH_GENID, be32(gen))
	end := nl.NewMessage(tx.what, unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	return c.nl.Transact(tx.what, begin, end, tx.msgs...)
}
