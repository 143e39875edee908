package tuning

import (
	"encoding/json"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// attributes are those of a link that tuning changes: what they are to become,
// or what they were. The zero value of each says nothing about it. Their JSON is
// that of the reference's backup file.
type attributes struct {
	MAC      string `json:"mac,omitzero"`
	Promisc  choice `json:"promisc,omitzero"`
	MTU      int    `json:"mtu,omitzero"`
	AllMulti choice `json:"allmulti,omitzero"`
	TxQLen   queue  `json:"txQLen,omitzero"`
}

// choice is a yes or no that may be left open.
type choice int

const (
	open choice = iota
	no
	yes
)

func choiceOf(b bool) choice { //nolint:revive // a value to convert, not a switch
	if b {
		return yes
	}
	return no
}

// MarshalJSON writes true or false.
func (c choice) MarshalJSON() ([]byte, error) { return json.Marshal(c == yes) }

// UnmarshalJSON reads true or false; null leaves it open.
func (c *choice) UnmarshalJSON(b []byte) error {
	var v *bool
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v != nil {
		*c = choiceOf(*v)
	}
	return nil
}

// flag returns the bit where the choice is yes.
func (c choice) flag(bit uint32) uint32 {
	if c == yes {
		return bit
	}
	return 0
}

// queue is a transmit queue length, which may be 0, and may be left open.
type queue struct {
	Set bool
	Len int
}

// MarshalJSON writes the length.
func (q queue) MarshalJSON() ([]byte, error) { return json.Marshal(q.Len) }

// UnmarshalJSON reads a length; null leaves it open.
func (q *queue) UnmarshalJSON(b []byte) error {
	var v *int
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v != nil {
		*q = queue{Set: true, Len: *v}
	}
	return nil
}

// of returns what the link has now of the attributes that want names.
func (want attributes) of(l *nl.Link) attributes {
	now := attributes{}
	if want.MAC != "" {
		now.MAC = l.MAC.String()
	}
	if want.Promisc != open {
		now.Promisc = choiceOf(l.Flags&unix.IFF_PROMISC != 0)
	}
	if want.MTU != 0 {
		now.MTU = l.MTU
	}
	if want.AllMulti != open {
		now.AllMulti = choiceOf(l.Flags&unix.IFF_ALLMULTI != 0)
	}
	if want.TxQLen.Set {
		now.TxQLen = queue{Set: true, Len: l.TxQLen}
	}
	return now
}

// or fills what want leaves open from b.
func (want attributes) or(b attributes) attributes {
	if want.MAC == "" {
		want.MAC = b.MAC
	}
	if want.Promisc == open {
		want.Promisc = b.Promisc
	}
	if want.MTU == 0 {
		want.MTU = b.MTU
	}
	if want.AllMulti == open {
		want.AllMulti = b.AllMulti
	}
	if !want.TxQLen.Set {
		want.TxQLen = b.TxQLen
	}
	return want
}

// set returns the requests that give the link the attributes; ADD, its undoing
// and DEL use it alike.
func (want attributes) set(l *nl.Link) []*nl.Message {
	var all []*nl.Message
	if mac, err := net.ParseMAC(want.MAC); err == nil {
		all = append(all, nl.SetLink(fmt.Sprintf("set MAC address of %s to %s", l.Name, want.MAC), l.Index).Attr(unix.IFLA_ADDRESS, mac))
	}
	if want.Promisc != open {
		all = append(all, nl.SetFlags("set promiscuous mode of "+l.Name, l.Index, want.Promisc.flag(unix.IFF_PROMISC), unix.IFF_PROMISC))
	}
	if want.MTU != 0 {
		all = append(all, nl.SetLink(fmt.Sprintf("set mtu of %s to %d", l.Name, want.MTU), l.Index).Uint32(unix.IFLA_MTU, uint32(want.MTU)))
	}
	if want.AllMulti != open {
		all = append(all, nl.SetFlags("set all-multicast mode of "+l.Name, l.Index, want.AllMulti.flag(unix.IFF_ALLMULTI), unix.IFF_ALLMULTI))
	}
	if want.TxQLen.Set {
		all = append(all, nl.SetLink(fmt.Sprintf("set txqlen of %s to %d", l.Name, want.TxQLen.Len), l.Index).Uint32(unix.IFLA_TXQLEN, uint32(want.TxQLen.Len)))
	}
	return all
}
