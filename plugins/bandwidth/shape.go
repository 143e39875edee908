package bandwidth

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"

	codec "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// shaper is the limit at one link's way out.
type shaper struct {
	Limit   limit
	Subnets subnets
	// Source says that a packet's peer is its sender, as it is where the
	// container receives.
	Source bool
}

const (
	rootHandle          nl.TCHandle = 1 << 16         // 1:, as the reference has it
	shapedMinor                     = 48              // the class of what is limited, as in the reference's 1.5
	shapedClass                     = rootHandle | 48 // 1:30
	ingressHandle       nl.TCHandle = 0xffff << 16    // ffff:
	leafHandle          nl.TCHandle = 2 << 16         // 2:
	redirectPrio                    = 1               // of the filter that redirects to the ifb
	v6Prio, v4Prio                  = 15, 16          // of the filters for subnets: a priority has one protocol
	latency                         = 25              // ms that a packet may wait in the queue
	directPackets                   = 1000            // queued of what is not limited
	maxTBFBuffer                    = math.MaxUint32  // ns: the kernel cuts a token bucket given in ticks there
	tick                            = 64              // ns
	ticksPerMicrosecond             = 1000.0 / 64     // as the reference computes with them
)

// queue returns how many bytes may wait: what arrives in the latency, and a burst.
func (l limit) queue() uint32 {
	return uint32(min(l.Rate*latency/1000+uint64(l.Burst), math.MaxUint32))
}

// micros returns how long the rate needs for a burst.
func (l limit) micros() float64 { return float64(l.Burst) * 1e6 / float64(l.Rate) }

// ticks returns that in the kernel's unit, with the reference's rounding. ok is
// false where the kernel would cut it.
func (l limit) ticks() (t uint32, ok bool) {
	us := l.micros()
	if us*1000 >= maxTBFBuffer {
		return 0, false
	}
	return uint32(float64(uint32(us)) * ticksPerMicrosecond), true
}

// rateSpec is the rate as far as 32 bits hold it; what exceeds them is in an attribute
// of its own.
func (l limit) rateSpec() codec.TcRateSpec {
	return codec.TcRateSpec{Linklayer: codec.LINKLAYER_ETHERNET, Rate: uint32(min(l.Rate, math.MaxUint32))}
}

// add returns the requests that shape what leaves the link.
func (s shaper) add(link string, index int) []*nl.Message {
	if len(s.Subnets.List) == 0 {
		return []*nl.Message{s.tbf(link, index)}
	}
	all := []*nl.Message{s.htb(link, index), s.class(link, index), s.leaf(link, index)}
	for _, p := range s.Subnets.List {
		all = append(all, s.filter(link, index, p))
	}
	return all
}

// tbf is a token bucket for everything.
func (s shaper) tbf(link string, index int) *nl.Message {
	ticks, ok := s.Limit.ticks()
	opt := codec.TcTbfQopt{Rate: s.Limit.rateSpec(), Limit: s.Limit.queue(), Buffer: ticks} // no peak rate
	m := nl.NewQdisc("add tbf to "+link, nl.TC{Index: index, Handle: rootHandle, Parent: nl.TCRoot, Kind: "tbf"})
	m.Begin(nl.TCAOptions).Attr(codec.TCA_TBF_PARMS, opt.Serialize())
	if s.Limit.Rate >= math.MaxUint32 {
		m.Attr(codec.TCA_TBF_RATE64, binary.NativeEndian.AppendUint64(nil, s.Limit.Rate))
	}
	if !ok {
		m.Uint32(codec.TCA_TBF_BURST, s.Limit.Burst)
	}
	return m.End()
}

// htb is the qdisc that tells limited traffic from other. What is not limited
// has no class: it goes straight out.
func (s shaper) htb(link string, index int) *nl.Message {
	const version, rate2Quantum = 3, 10 // the latter is of no use where each class has its own quantum
	glob := codec.TcHtbGlob{Version: version, Rate2Quantum: rate2Quantum, Defcls: s.defaultMinor()}
	m := nl.NewQdisc("add htb to "+link, nl.TC{Index: index, Handle: rootHandle, Parent: nl.TCRoot, Kind: "htb"})
	return m.Begin(nl.TCAOptions).Attr(codec.TCA_HTB_INIT, glob.Serialize()).Uint32(codec.TCA_HTB_DIRECT_QLEN, directPackets).End()
}

// defaultMinor is the class of what no filter matches; 0 is straight out.
func (s shaper) defaultMinor() uint32 {
	if s.Subnets.Only {
		return 0
	}
	return shapedMinor
}

// class is the token bucket for what is limited.
func (s shaper) class(link string, index int) *nl.Message {
	rate, ticks := s.Limit.rateSpec(), s.classTicks()
	opt := codec.TcHtbCopt{Rate: rate, Ceil: rate, Buffer: ticks, Cbuffer: ticks, Quantum: s.quantum()}
	m := nl.NewClass("add class to "+link, nl.TC{Index: index, Handle: shapedClass, Parent: rootHandle, Kind: "htb"})
	m.Begin(nl.TCAOptions).Attr(codec.TCA_HTB_PARMS, opt.Serialize())
	if s.Limit.Rate >= math.MaxUint32 {
		rate64 := binary.NativeEndian.AppendUint64(nil, s.Limit.Rate)
		m.Attr(codec.TCA_HTB_RATE64, rate64).Attr(codec.TCA_HTB_CEIL64, rate64)
	}
	return m.End()
}

func (s shaper) classTicks() uint32 {
	return uint32(min(s.Limit.micros()*ticksPerMicrosecond, math.MaxUint32))
}

// quantum is what the class may send in a turn. There is only one class, so any
// will do that the kernel does not warn of.
func (s shaper) quantum() uint32 {
	return uint32(min(max(s.Limit.Rate/10, 2000), 200_000))
}

// leaf bounds the queue of what is limited: the kernel's own would hold one
// packet on an ifb without a transmit queue length.
func (s shaper) leaf(link string, index int) *nl.Message {
	m := nl.NewQdisc("add bfifo to "+link, nl.TC{Index: index, Handle: leafHandle, Parent: shapedClass, Kind: "bfifo"})
	return m.Uint32(nl.TCAOptions, s.Limit.queue())
}

// filter sends what comes from or goes to the subnet into the class, or past it.
func (s shaper) filter(link string, index int, p netip.Prefix) *nl.Message {
	class := uint32(rootHandle)
	if s.Subnets.Only {
		class = uint32(shapedClass)
	}
	info := nl.FilterInfo(v4Prio, unix.ETH_P_IP)
	if p.Addr().Is6() {
		info = nl.FilterInfo(v6Prio, unix.ETH_P_IPV6)
	}
	m := nl.NewFilter(fmt.Sprintf("add filter for %s to %s", p, link), nl.TC{Index: index, Parent: rootHandle, Info: info, Kind: "u32"})
	return m.Begin(nl.TCAOptions).Uint32(codec.TCA_U32_CLASSID, class).Attr(codec.TCA_U32_SEL, selector(s.keys(p))).End()
}

// keys match the peer's address against the subnet, word by word.
func (s shaper) keys(p netip.Prefix) []codec.TcU32Key {
	at := 16 // of the destination in an IPv4 header
	switch {
	case p.Addr().Is4() && s.Source:
		at = 12
	case p.Addr().Is6() && s.Source:
		at = 8
	case p.Addr().Is6():
		at = 24
	}
	addr := p.Addr().AsSlice()
	all := make([]codec.TcU32Key, 0, 4)
	for i := 0; i < len(addr) && i*8 < p.Bits(); i += 4 {
		mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<max(0, 32-(p.Bits()-i*8)))
		all = append(all, codec.TcU32Key{Mask: nl.Uint32(mask), Val: nl.Uint32(addr[i:]), Off: int32(at + i)})
	}
	return all
}

// selector is what a u32 filter compares. Without a key it matches all.
func selector(keys []codec.TcU32Key) []byte {
	if len(keys) == 0 {
		keys = []codec.TcU32Key{{}}
	}
	return (&codec.TcU32Sel{Flags: codec.TC_U32_TERMINAL, Nkeys: uint8(len(keys)), Keys: keys}).Serialize()
}

// redirect returns the requests that send what arrives at the link out through
// the ifb.
func redirect(link string, index, ifb int) []*nl.Message {
	const (
		stolen      = 4 // TC_ACT_STOLEN
		egressRedir = 1 // TCA_EGRESS_REDIR
	)
	qdisc := nl.NewQdisc("add ingress qdisc to "+link, nl.TC{Index: index, Handle: ingressHandle, Parent: nl.TCIngress, Kind: "ingress"})
	var parms []byte // struct tc_mirred: the library takes its size to be 30, not 28
	for _, v := range []uint32{0, 0, stolen, 0, 0, egressRedir, uint32(ifb)} {
		parms = binary.NativeEndian.AppendUint32(parms, v)
	}
	filter := nl.NewFilter("redirect "+link, nl.TC{Index: index, Parent: ingressHandle, Info: nl.FilterInfo(redirectPrio, unix.ETH_P_ALL), Kind: "u32"})
	filter.Begin(nl.TCAOptions).Uint32(codec.TCA_U32_CLASSID, uint32(rootHandle)|1).Attr(codec.TCA_U32_SEL, selector(nil))
	filter.Begin(codec.TCA_U32_ACT).Begin(1).String(codec.TCA_ACT_KIND, "mirred")
	filter.Begin(codec.TCA_ACT_OPTIONS).Attr(codec.TCA_MIRRED_PARMS, parms)
	filter.End().End().End().End()
	return []*nl.Message{qdisc, filter}
}

// unshape returns the requests that take off the host's end what the limits put
// on it.
func (st state) unshape() []*nl.Message {
	var all []*nl.Message
	if st.Ingress != nil {
		all = append(all, nl.DelQdisc("delete root qdisc of "+st.Host, nl.TC{Index: st.Index, Handle: rootHandle, Parent: nl.TCRoot}))
	}
	if st.Egress != nil {
		all = append(all, nl.DelQdisc("delete ingress qdisc of "+st.Host, nl.TC{Index: st.Index, Handle: ingressHandle, Parent: nl.TCIngress}))
	}
	return all
}
