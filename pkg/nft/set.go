package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// Type is the type of a part of a set's key or data, by nft(8)'s number.
type Type uint32

// The types that the suite's sets are made of.
const (
	TypeIPv4  Type = 7
	TypeIPv6  Type = 8
	TypeEther Type = 9
	TypeProto Type = 12
	TypePort  Type = 13
	TypeName  Type = 41
)

// size returns how many bytes a value takes.
func (t Type) size() uint32 {
	switch t {
	case TypeIPv4:
		return 4
	case TypeIPv6:
		return 16
	case TypeEther:
		return 6
	case TypePort:
		return 2
	case TypeName:
		return unix.IFNAMSIZ
	default:
		return 1
	}
}

// order returns nft(8)'s number of the byte order, which a set tells it in its
// user data.
func (t Type) order() uint32 {
	const host, bigEndian = 1, 2
	if t == TypeName {
		return host
	}
	return bigEndian
}

// Set is a set, or a map where it has Data.
type Set struct {
	Table    Table
	Name     string
	Key      []Type
	Data     []Type
	Interval bool // elements are ranges; the key then has one part
	Expiring bool // elements can be made to expire (Tx.Expire)
}

// Elem is an element: the parts of its key, each padded to four bytes, one after
// the other, and likewise its data (see Parts).
type Elem struct {
	Key     []byte
	End     bool // the first value after an interval
	Data    []byte
	Comment string
	Expires bool // the kernel drops it by itself
}

// Parts puts the parts of a key or of data together, each padded to four bytes
// where there are several.
func Parts(parts ...[]byte) []byte {
	if len(parts) == 1 {
		return parts[0]
	}
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

func concat(types []Type) (num, size uint32) {
	for _, t := range types {
		num = num<<6 | uint32(t)
		size += (t.size() + 3) &^ 3
	}
	if len(types) == 1 {
		size = types[0].size()
	}
	return num, size
}

func setMessage(what string, s Set, typ, flags uint16) *nl.Message {
	m := message(what+" "+s.Name, s.Table.Family, typ, flags)
	return m.String(unix.NFTA_SET_TABLE, s.Table.Name).String(unix.NFTA_SET_NAME, s.Name)
}

// EnsureSet adds a set unless one of that name is there.
func (tx *Tx) EnsureSet(s Set) {
	if !tx.new[s.Table] {
		there, err := tx.conn.HasSet(s)
		tx.err = errors.Join(tx.err, err)
		if there || err != nil {
			return
		}
	}
	m := tx.add(setMessage("add set", s, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE))
	var flags uint32
	num, size := concat(s.Key)
	m.Attr(unix.NFTA_SET_KEY_TYPE, be32(num)).Attr(unix.NFTA_SET_KEY_LEN, be32(size))
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.Expiring {
		flags |= unix.NFT_SET_TIMEOUT
	}
	if s.Data != nil {
		num, size := concat(s.Data)
		flags |= unix.NFT_SET_MAP
		m.Attr(unix.NFTA_SET_DATA_TYPE, be32(num)).Attr(unix.NFTA_SET_DATA_LEN, be32(size))
	}
	m.Attr(unix.NFTA_SET_FLAGS, be32(flags)).Attr(unix.NFTA_SET_ID, be32(uint32(len(tx.msgs))))
	if len(s.Key) == 1 {
		m.Attr(unix.NFTA_SET_USERDATA, append([]byte{keyByteOrder, 4}, Native32(s.Key[0].order())...))
	}
}

const keyByteOrder = 0 // NFTNL_UDATA_SET_KEYBYTEORDER

// DeleteSet deletes a set that no rule names.
func (tx *Tx) DeleteSet(s Set) { tx.add(setMessage("delete set", s, unix.NFT_MSG_DELSET, 0)) }

// Add adds elements. One whose key is there already, with other data, is EEXIST.
func (tx *Tx) Add(s Set, elems ...Elem) {
	tx.elements(elems, func() *nl.Message {
		return message("add elements to "+s.Name, s.Table.Family, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE)
	}, s)
}

// AddNew adds elements, none of which may be there.
func (tx *Tx) AddNew(s Set, elems ...Elem) {
	tx.elements(elems, func() *nl.Message {
		return message("add elements to "+s.Name, s.Table.Family, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}, s)
}

// Remove removes elements, all of which must be there.
func (tx *Tx) Remove(s Set, elems ...Elem) {
	tx.elements(elems, func() *nl.Message {
		return message("delete elements from "+s.Name, s.Table.Family, unix.NFT_MSG_DELSETELEM, 0)
	}, s)
}

// Expire has the kernel drop elements by itself in a moment. Unlike Remove, that
// does not make the socket's close wait for an RCU grace period. Kernels that
// cannot change an element's timeout (before about 6.12) ignore it: whoever has
// asked for it looks with Find whether the elements expire.
func (tx *Tx) Expire(s Set, elems ...Elem) {
	soon := make([]Elem, len(elems))
	for i, e := range elems {
		soon[i] = Elem{Key: e.Key, Data: e.Data, Expires: true}
	}
	tx.Add(s, soon...)
}

// moment is the timeout of an element that is to go, in milliseconds.
const moment = 1

// perMessage keeps a list of elements below the 64 KiB that an attribute can
// hold: an element takes at most some 250 bytes.
const perMessage = 200

// elements spreads a list over as many messages as it takes.
func (tx *Tx) elements(elems []Elem, start func() *nl.Message, s Set) {
	for len(elems) > 0 {
		n := min(len(elems), perMessage)
		m := start().String(unix.NFTA_SET_ELEM_LIST_TABLE, s.Table.Name).String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		writeElems(m, elems[:n])
		tx.add(m)
		elems = elems[n:]
	}
}

func writeElems(m *nl.Message, elems []Elem) {
	m.Begin(unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED)
	for i, e := range elems {
		m.Begin(uint16(i+1) | unix.NLA_F_NESTED)
		if e.End {
			m.Attr(unix.NFTA_SET_ELEM_FLAGS, be32(unix.NFT_SET_ELEM_INTERVAL_END))
		}
		m.Begin(unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED).Attr(unix.NFTA_DATA_VALUE, e.Key).End()
		if e.Data != nil {
			m.Begin(unix.NFTA_SET_ELEM_DATA|unix.NLA_F_NESTED).Attr(unix.NFTA_DATA_VALUE, e.Data).End()
		}
		if e.Expires {
			m.Attr(unix.NFTA_SET_ELEM_TIMEOUT, be64(moment)).Attr(unix.NFTA_SET_ELEM_EXPIRATION, be64(moment))
		}
		if e.Comment != "" {
			m.Attr(unix.NFTA_SET_ELEM_USERDATA, comments(e.Comment))
		}
		m.End()
	}
	m.End()
}

// HasSet reports whether the set exists.
func (c *Conn) HasSet(s Set) (found bool, err error) {
	m := setMessage("look up set", s, unix.NFT_MSG_GETSET, 0)
	m.Query, m.Ignore = true, []unix.Errno{unix.ENOENT}
	m.Reply = func([]byte) error { found = true; return nil }
	return found, c.nl.Do(m)
}

// Elements returns the elements of a set; its cost grows with their number. A
// set that does not exist has none.
func (c *Conn) Elements(s Set) ([]Elem, error) {
	if len(s.Key) == 0 { // then no key would be of the set's size
		return nil, fmt.Errorf("list elements of %s: the type of its keys is not given", s.Name)
	}
	return list(c, listed{"elements", s.Table, s.Name}, func() ([]Elem, error) { return c.elements(s) })
}

func (c *Conn) elements(s Set) (all []Elem, err error) {
	m := elemQuery("list elements of", s)
	m.Reply = func(b []byte) error { all = append(all, s.parseElems(b)...); return nil }
	return all, c.dump(m, func() { all = nil })
}

// Find returns those of the set's elements that have one of the keys. Keys that
// it does not have, and sets that do not exist, are no error.
func (c *Conn) Find(s Set, keys ...[]byte) (found []Elem, err error) {
	for len(keys) > 0 && err == nil {
		n := min(len(keys), perQuery)
		var msgs []*nl.Message
		for _, k := range keys[:n] {
			m := elemQuery("look up element of", s)
			m.Ignore = []unix.Errno{unix.ENOENT}
			m.Reply = func(b []byte) error { found = append(found, s.parseElems(b)...); return nil }
			writeElems(m, []Elem{{Key: k}})
			msgs = append(msgs, m)
		}
		err = c.nl.Do(msgs...)
		keys = keys[n:]
	}
	return found, err
}

// perQuery bounds the answers that wait in the socket's buffer.
const perQuery = 64

func elemQuery(what string, s Set) *nl.Message {
	m := query(what+" "+s.Name, s.Table.Family, unix.NFT_MSG_GETSETELEM)
	return m.String(unix.NFTA_SET_ELEM_LIST_TABLE, s.Table.Name).String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
}

// parseElems reads the elements of an answer that have a key of the set's size.
// Others are not of this suite: nft(8) can add a catch-all, which has none.
func (s Set) parseElems(b []byte) (all []Elem) {
	_, size := concat(s.Key)
	attrs(b, func(typ uint16, d []byte) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		nl.Attrs(d, func(_ uint16, d []byte) {
			if e := parseElem(d); len(e.Key) == int(size) {
				all = append(all, e)
			}
		})
	})
	return all
}

func parseElem(b []byte) (e Elem) {
	nl.Attrs(b, func(typ uint16, d []byte) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = value(d)
		case unix.NFTA_SET_ELEM_DATA:
			e.Data = value(d)
		case unix.NFTA_SET_ELEM_FLAGS:
			e.End = u32(d)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = comment(d)
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.Expires = true
		}
	})
	return e
}

func value(data []byte) (v []byte) {
	nl.Attrs(data, func(typ uint16, d []byte) {
		if typ == unix.NFTA_DATA_VALUE {
			v = append([]byte(nil), d...)
		}
	})
	return v
}
