package bandwidth

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"

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
	ethernet                        = 1               // TC_LINKLAYER_ETHERNET
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

// rateSpec is the kernel's struct tc_ratespec.
func (l limit) rateSpec() []byte {
	b := make([]byte, 12)
	b[1] = ethernet
	binary.NativeEndian.PutUint32(b[8:], uint32(min(l.Rate, math.MaxUint32)))
	return b
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
	const parms, rate64, burst = 1, 4, 6 // TCA_TBF_*
	ticks, ok := s.Limit.ticks()
	b := append(s.Limit.rateSpec(), make([]byte, 12)...) // no peak rate
	b = binary.NativeEndian.AppendUint32(b, s.Limit.queue())
	b = binary.NativeEndian.AppendUint32(b, ticks)
	b = binary.NativeEndian.AppendUint32(b, 0)
	m := nl.NewQdisc("add tbf to "+link, nl.TC{Index: index, Handle: rootHandle, Parent: nl.TCRoot, Kind: "tbf"})
	m.Begin(nl.TCAOptions).Attr(parms, b)
	if s.Limit.Rate >= math.MaxUint32 {
		m.Attr(rate64, binary.NativeEndian.AppendUint64(nil, s.Limit.Rate))
	}
	if !ok {
		m.Uint32(burst, s.Limit.Burst)
	}
	return m.End()
}

// htb is the qdisc that tells limited traffic from other. What is not limited
// has no class: it goes straight out.
func (s shaper) htb(link string, index int) *nl.Message {
	const init, directQlen = 2, 5 // TCA_HTB_*
	b := binary.NativeEndian.AppendUint32(nil, 3)
	b = binary.NativeEndian.AppendUint32(b, 10) // rate to quantum, of no use where each class has its own
	b = binary.NativeEndian.AppendUint32(b, s.defaultMinor())
	b = append(b, make([]byte, 8)...)
	m := nl.NewQdisc("add htb to "+link, nl.TC{Index: index, Handle: rootHandle, Parent: nl.TCRoot, Kind: "htb"})
	return m.Begin(nl.TCAOptions).Attr(init, b).Uint32(directQlen, directPackets).End()
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
	const parms, rate64, ceil64 = 1, 6, 7 // TCA_HTB_*
	ticks := s.classTicks()
	b := append(s.Limit.rateSpec(), s.Limit.rateSpec()...)
	for _, v := range []uint32{ticks, ticks, s.quantum(), 0, 0} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	m := nl.NewClass("add class to "+link, nl.TC{Index: index, Handle: shapedClass, Parent: rootHandle, Kind: "htb"})
	m.Begin(nl.TCAOptions).Attr(parms, b)
	if s.Limit.Rate >= math.MaxUint32 {
		rate := binary.NativeEndian.AppendUint64(nil, s.Limit.Rate)
		m.Attr(rate64, rate).Attr(ceil64, rate)
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
	return m.Begin(nl.TCAOptions).Uint32(u32Class, class).Attr(u32Selector, selector(s.keys(p))).End()
}

// Attributes of a u32 filter (TCA_U32_*).
const u32Class, u32Selector, u32Actions = 1, 5, 7

// key is what a u32 filter compares: the kernel's struct tc_u32_key.
type key struct {
	mask, value [4]byte
	offset      uint32
}

// keys match the peer's address against the subnet, word by word.
func (s shaper) keys(p netip.Prefix) []key {
	at := uint32(16) // of the destination in an IPv4 header
	switch {
	case p.Addr().Is4() && s.Source:
		at = 12
	case p.Addr().Is6() && s.Source:
		at = 8
	case p.Addr().Is6():
		at = 24
	}
	addr := p.Addr().AsSlice()
	all := make([]key, 0, 4)
	for i := 0; i < len(addr) && i*8 < p.Bits(); i += 4 {
		k := key{offset: at + uint32(i)}
		binary.BigEndian.PutUint32(k.mask[:], ^uint32(0)<<max(0, 32-(p.Bits()-i*8)))
		copy(k.value[:], addr[i:])
		all = append(all, k)
	}
	return all
}

// selector is the kernel's struct tc_u32_sel. Without a key it matches all.
func selector(keys []key) []byte {
	if len(keys) == 0 {
		keys = []key{{}}
	}
	const terminal = 1 // TC_U32_TERMINAL
	b := make([]byte, 16)
	b[0], b[2] = terminal, byte(len(keys))
	for _, k := range keys {
		b = append(append(b, k.mask[:]...), k.value[:]...)
		b = binary.NativeEndian.AppendUint32(b, k.offset)
		b = binary.NativeEndian.AppendUint32(b, 0)
	}
	return b
}

// redirect returns the requests that send what arrives at the link out through
// the ifb.
func redirect(link string, index, ifb int) []*nl.Message {
	const (
		actKind, actOptions = 1, 2 // TCA_ACT_*
		mirredParms         = 2    // TCA_MIRRED_PARMS
		stolen              = 4    // TC_ACT_STOLEN
		egressRedir         = 1    // TCA_EGRESS_REDIR
	)
	qdisc := nl.NewQdisc("add ingress qdisc to "+link, nl.TC{Index: index, Handle: ingressHandle, Parent: nl.TCIngress, Kind: "ingress"})
	var parms []byte
	for _, v := range []uint32{0, 0, stolen, 0, 0, egressRedir, uint32(ifb)} {
		parms = binary.NativeEndian.AppendUint32(parms, v)
	}
	filter := nl.NewFilter("redirect "+link, nl.TC{Index: index, Parent: ingressHandle, Info: nl.FilterInfo(redirectPrio, unix.ETH_P_ALL), Kind: "u32"})
	filter.Begin(nl.TCAOptions).Uint32(u32Class, uint32(rootHandle)|1).Attr(u32Selector, selector(nil))
	filter.Begin(u32Actions).Begin(1).String(actKind, "mirred").Begin(actOptions).Attr(mirredParms, parms)
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
