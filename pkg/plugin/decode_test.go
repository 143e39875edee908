package plugin

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/netcleat/netcleat/pkg/semver"
)

// decodeByTypes reads a result by the types package alone.
func decodeByTypes(b []byte, version string) (*current.Result, error) {
	r, err := create.Create(version, b)
	if err != nil {
		return nil, err
	}
	return current.NewResultFromResult(r)
}

// What is read without reflection is what the types package reads, in every
// version that has the form.
func TestDecodeAsTypesPackage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		res := randomResult(rnd)
		for _, v := range specVersions {
			r, err := res.GetAsVersion(v)
			if err != nil {
				if !semver.AtLeast(v, "0.3.0") {
					continue // it must have an address
				}
				t.Fatal(err)
			}
			b, err := json.MarshalIndent(r, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeByTypes(b, v); !compareDecoded(t, b, v) && err == nil && semver.AtLeast(v, "0.3.0") {
				t.Fatalf("%s: left to the types package", b)
			}
		}
	}
}

// compareDecoded reports whether b was read without the types package.
func compareDecoded(t *testing.T, b []byte, version string) bool {
	t.Helper()
	got, ok := decodePlain(b, version)
	if !ok {
		return false
	}
	want, err := decodeByTypes(b, version)
	if err != nil {
		t.Fatalf("%s: the types package refuses it: %v", b, err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%s: version %s (-types +plain):\n%s", b, version, diff)
	}
	return true
}

func FuzzDecodeAsTypesPackage(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mtu":1}],"ips":[{"interface":0,"address":"10.0.0.1/8","gateway":""}],"routes":[{"dst":"::/0","gw":"fe80::1","scope":0}],"dns":{"search":["a"]}}`,
		`{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","mtu":1,"pciID":"x"}],"ips":[{"version":"4","address":"10.0.0.1/8"}],"dns":{}}`,
		`{"cniVersion":"1.1.0","ips":[null],"interfaces":null,"routes":[{}],"dns":null}`,
		`{"cniVersion":"0.3.1","ips":[{"address":"10.0.0.1","gateway":"x"}]}`,
		`{"cniVersion":"9.0.0"}`,
		`{"cniVersion":"0.4.0","ips":[{"version":4,"address":"10.0.0.1/8"}]}`,
		`{"cniVersion":"1.0.0","ips":[{"version":4,"address":"10.0.0.1/8"}],"dns":{"search":5}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var once map[string]json.RawMessage
		// A key given twice, or in two spellings: see package fields.
		if json.Unmarshal(b, &once) != nil || strings.Count(string(b), ":") > 40 {
			t.Skip()
		}
		for _, v := range specVersions {
			compareDecoded(t, b, v)
		}
	})
}
