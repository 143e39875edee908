package fields

import (
	"encoding/json"
	"net"
	"net/netip"
	"testing"
	"time"
)

// written is what a plugin's state is made of, and what Text leaves to others.
type written struct {
	embedded
	S     string            `json:"s"`
	Empty string            `json:"empty,omitempty"`
	B     bool              `json:"b,omitempty"`
	N     int               `json:"n"`
	U     uint32            `json:"u,omitempty"`
	I64   int64             `json:"i64,omitempty"`
	F     float64           `json:"f"`
	P     *string           `json:"p,omitempty"`
	Null  *string           `json:"null"`
	In    *embedded         `json:"in"`
	L     []embedded        `json:"l"`
	LP    []*embedded       `json:"lp,omitempty"`
	Ns    []int             `json:"ns"`
	Bytes []byte            `json:"bytes"`
	M     map[string]int    `json:"m,omitempty"`
	Any   any               `json:"any"`
	Raw   json.RawMessage   `json:"raw"`
	Addr  netip.Addr        `json:"addr,omitzero"`
	Nets  []netip.Prefix    `json:"nets"`
	IP    net.IP            `json:"ip"`
	T     time.Time         `json:"t,omitzero"`
	Both  []string          `json:"both,omitempty,omitzero"`
	Own   shouting          `json:"own"`
	Owns  []pointing        `json:"owns"`
	Kind  kind              `json:"kind,omitempty"`
	Of    map[kind][]string `json:"of"`
	Skip  int               `json:"-"`
	Bare  bool
	low   int
}

type kind string

type shouting string

func (s shouting) MarshalText() ([]byte, error) { return []byte(s + "!"), nil }

// pointing writes itself where it can be addressed, as in a list.
type pointing struct{ N int }

func (p *pointing) MarshalJSON() ([]byte, error) { return json.Marshal([]int{p.N}) }

func TestTextAsEncodingJSON(t *testing.T) {
	t.Parallel()
	s := "<&> \u2028 \xff é"
	for _, v := range []any{
		written{},
		&written{S: "by pointer"},
		written{
			embedded: embedded{E: "e"}, S: s, B: true, N: -1, U: 1 << 31, I64: 1 << 62, F: 1.5, P: &s, In: &embedded{"i"},
			L: []embedded{{"1"}, {"2"}}, LP: []*embedded{nil, {"3"}}, Ns: []int{}, Bytes: []byte("bytes"), M: map[string]int{"b": 1, "a": 2},
			Any: map[string]any{"k": nil}, Raw: json.RawMessage(`{"a":[1,2]}`), Addr: netip.MustParseAddr("fe80::1%eth0"),
			Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), {}}, IP: net.IPv4(10, 0, 0, 1), T: time.Unix(1, 2).UTC(),
			Own: `"`, Owns: []pointing{{1}, {2}}, Kind: "k", Of: map[kind][]string{"x": nil}, Skip: 1, Bare: true, low: 1,
		},
		written{Ns: make([]int, many+1), Nets: []netip.Prefix{}, LP: []*embedded{}},
	} {
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Text(v)
		if err != nil || string(got) != string(want) {
			t.Errorf("%v\n got %s\nwant %s", err, got, want)
		}
	}
}

// What cannot be written is an error, at any depth.
func TestTextFails(t *testing.T) {
	t.Parallel()
	for _, v := range []any{
		struct{ C chan int }{},
		struct{ L []struct{ F func() } }{L: make([]struct{ F func() }, 1)},
		struct{ M map[string]any }{map[string]any{"x": func() {}}},
	} {
		if b, err := Text(v); err == nil {
			t.Errorf("%T: %s", v, b)
		}
	}
}
