package ruleset

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const registers = 64 // of four bytes each; the kernel has 20

// register is what a rule has loaded: where from, and how to know its value.
type register struct {
	name string
	size int
	load func(Packet) bits
}

// bits is a value of which some bits are known.
type bits struct{ value, known []byte }

func unknown(size int) bits { return bits{make([]byte, size), make([]byte, size)} }

func known(v []byte) bits { return bits{v, bytes.Repeat([]byte{0xff}, len(v))} }

// equal compares with a value that is all known.
func (b bits) equal(v []byte) tri {
	result := yes
	for i := range min(len(v), len(b.value)) {
		switch {
		case (b.value[i]^v[i])&b.known[i] != 0:
			return no
		case b.known[i] != 0xff:
			result = maybe
		}
	}
	return result
}

// slot is where a register is among the 32-bit ones.
func slot(reg uint32) int {
	const first = 8 // NFT_REG32_00
	if reg >= first {
		return int(reg-first) % registers
	}
	return int(max(reg, 1)-1) * 4 % registers
}

var protocolNumbers = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// metaRegister knows the family and the interfaces.
func metaRegister(key expr.MetaKey) register {
	switch key {
	case expr.MetaKeyIIFNAME:
		return register{"iifname", unix.IFNAMSIZ, func(p Packet) bits { return ifName(p.In) }}
	case expr.MetaKeyOIFNAME:
		return register{"oifname", unix.IFNAMSIZ, func(p Packet) bits { return ifName(p.Out) }}
	case expr.MetaKeyIIF:
		return register{"iif", 4, func(p Packet) bits { return ifIndex(p.In) }}
	case expr.MetaKeyOIF:
		return register{"oif", 4, func(p Packet) bits { return ifIndex(p.Out) }}
	case expr.MetaKeyNFPROTO:
		return register{"meta nfproto", 1, func(p Packet) bits {
			if p.Src.Is4() {
				return known([]byte{unix.NFPROTO_IPV4})
			}
			return known([]byte{unix.NFPROTO_IPV6})
		}}
	case expr.MetaKeyL4PROTO:
		return register{"meta l4proto", 1, func(p Packet) bits {
			if number, ok := protocolNumbers[p.Proto]; ok {
				return known([]byte{number})
			}
			return unknown(1)
		}}
	case expr.MetaKeyPROTOCOL:
		return register{"meta protocol", 2, func(p Packet) bits {
			if p.Src.Is4() {
				return known([]byte{0x08, 0x00})
			}
			return known([]byte{0x86, 0xdd})
		}}
	}
	return register{"meta", 16, func(Packet) bits { return unknown(16) }}
}

func ifName(name string) bits {
	if name == "" {
		return unknown(unix.IFNAMSIZ)
	}
	v := make([]byte, unix.IFNAMSIZ)
	copy(v, name)
	return known(v)
}

func ifIndex(name string) bits {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return unknown(4)
	}
	return known(binary.NativeEndian.AppendUint32(nil, uint32(i.Index)))
}

// The states of a connection.
const (
	stateEstablished = 1 << 1
	stateNew         = 1 << 3
)

func ctRegister(key expr.CtKey) register {
	if key != expr.CtKeySTATE {
		return register{"ct", 16, func(Packet) bits { return unknown(16) }}
	}
	return register{"ct state", 4, func(p Packet) bits { return known(binary.NativeEndian.AppendUint32(nil, stateOf(p))) }}
}

func stateOf(p Packet) uint32 {
	if p.Answer {
		return stateEstablished
	}
	return stateNew
}

// fibRegister knows packets to the host itself.
func fibRegister(e *expr.Fib) register {
	return register{name: "fib", size: 4, load: func(p Packet) bits {
		if !e.ResultADDRTYPE || !e.FlagDADDR || !p.Local {
			return unknown(4)
		}
		return known(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL))
	}}
}

// transport knows the port that a packet goes to.
func transport(at, size int) register {
	const portAt, portSize = 2, 2
	if at != portAt || size != portSize {
		return register{"th", size, func(Packet) bits { return unknown(size) }}
	}
	return register{"th dport", size, func(p Packet) bits {
		if p.Port == 0 {
			return unknown(size)
		}
		return known(binary.BigEndian.AppendUint16(nil, p.Port))
	}}
}

// payload knows the addresses and the port.
func (d *decoder) payload(e *expr.Payload) register {
	at, size := int(e.Offset), int(e.Len)
	if e.Base == expr.PayloadBaseTransportHeader {
		return transport(at, size)
	}
	if e.Base != expr.PayloadBaseNetworkHeader {
		return register{"th", size, func(Packet) bits { return unknown(size) }}
	}
	// A rule of an inet table has asked for the family before.
	v6 := d.v6 || at >= 20 || size > 4 || at == 8
	name := "ip"
	src, dst, length := 12, 16, 4
	if v6 {
		name, src, dst, length = "ip6", 8, 24, 16
	}
	switch {
	case at >= src && at+size <= src+length:
		name += " saddr"
	case at >= dst && at+size <= dst+length:
		name += " daddr"
	}
	return register{name, size, func(p Packet) bits { return header(p, v6).cut(at, size) }}
}

// header is a packet's network header as far as it is known.
func header(p Packet, v6 bool) bits {
	const room = 64
	h := unknown(room)
	put := func(at int, a netip.Addr) {
		if !a.IsValid() {
			return
		}
		for i, b := range a.AsSlice() {
			h.value[at+i], h.known[at+i] = b, 0xff
		}
	}
	if p.Src.Is4() == v6 {
		return h
	}
	if v6 {
		put(8, p.Src)
		put(24, p.Dst)
	} else {
		put(12, p.Src)
		put(16, p.Dst)
	}
	return h
}

func (b bits) cut(at, size int) bits {
	if at+size > len(b.value) {
		return unknown(size)
	}
	return bits{b.value[at : at+size], b.known[at : at+size]}
}
