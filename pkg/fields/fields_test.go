package fields

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type inner struct {
	A  int `json:"a"`
	Ns []struct {
		X *bool `json:"x"`
	} `json:"ns"`
}

type embedded struct {
	E string `json:"e"`
}

type outer struct {
	embedded
	S    string            `json:"s"`
	B    bool              `json:"b,omitempty"`
	N    *int              `json:"n"`
	In   inner             `json:"in"`
	P    *inner            `json:"p"`
	L    []inner           `json:"l"`
	LL   [][]inner         `json:"ll"`
	Strs []string          `json:"strs"`
	M    map[string]string `json:"m"`
	Raw  json.RawMessage   `json:"raw"`
	Any  any               `json:"any"`
	Addr netip.Addr        `json:"addr"`
	Skip int               `json:"-"`
	Bare int
}

var seeds = []string{
	`{}`, `null`,
	`{"s":"x","b":true,"n":1,"in":{"a":2,"ns":[{"x":true},{}]},"p":{"a":3},"l":[{"a":1},null],"ll":[[{"a":1}],[],null],"strs":["a"],"m":{"k":"v"},"raw":{"r":[1, 2]},"any":1.5,"addr":"10.0.0.1","e":"E","Skip":1,"bare":2}`,
	`{"s":null,"b":null,"n":null,"in":null,"p":null,"l":null,"raw":null,"any":null}`,
	`{"S":"upper","IN":{"A":7},"unknown":{"x":[{}]}}`,
}

// What encoding/json reads is read alike.
func TestAsEncodingJSON(t *testing.T) {
	for _, s := range seeds {
		compare(t, s)
	}
}

func compare(t *testing.T, s string) {
	t.Helper()
	var want, got outer
	werr := json.Unmarshal([]byte(s), &want)
	o, err := Parse([]byte(s))
	if err == nil {
		err = o.Into(&got)
	}
	if (werr == nil) != (err == nil) {
		t.Fatalf("%s: error %v, encoding/json says %v", s, err, werr)
	}
	if err == nil {
		// What a value does not set stays as it was.
		preset := func() outer { n := 7; return outer{S: "s", B: true, N: &n, P: &inner{A: 7}, Bare: 7} }
		want, got := preset(), preset()
		_ = json.Unmarshal([]byte(s), &want)
		_ = o.Into(&got)
		diff(t, s, want, got)
	}
	if err == nil {
		diff(t, s, want, got)
	}
}

func diff(t *testing.T, s string, want, got outer) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s (-encoding/json +fields):\n%s", s, cmp.Diff(want, got, cmp.AllowUnexported(outer{}, embedded{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })))
	}
}

// A value of the wrong type is skipped and named; the rest is read.
func TestWrongType(t *testing.T) {
	o, err := Parse([]byte(`{"s":1,"in":{"a":"x"},"b":true}`))
	if err != nil {
		t.Fatal(err)
	}
	var v outer
	err = o.Into(&v)
	mistyped := (*json.UnmarshalTypeError)(nil)
	if !errors.As(err, &mistyped) || !strings.HasPrefix(err.Error(), "s: ") || !v.B {
		t.Errorf("%v, b %v", err, v.B)
	}
}

func FuzzAsEncodingJSON(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// A key given twice, or in two spellings, is merged by encoding/json in the
		// order of the text; here the last or the exactly spelt one counts.
		var once map[string]json.RawMessage
		if json.Unmarshal([]byte(s), &once) != nil || strings.Count(s, ":") > 40 || twice(s) {
			t.Skip()
		}
		compare(t, s)
	})
}

// twice reports whether a key stands in any object of s more than once.
func twice(s string) bool {
	dec := json.NewDecoder(strings.NewReader(s))
	seen := map[string]bool{}
	for {
		tok, err := dec.Token()
		if err != nil {
			return false
		}
		if k, ok := tok.(string); ok {
			k = strings.ToLower(k)
			if seen[k] {
				return true
			}
			seen[k] = true
		}
	}
}
