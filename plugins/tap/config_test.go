package tap

import (
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func TestParse(t *testing.T) {
	for conf, want := range map[string]string{
		`{}`: "",
		`{"multiQueue":true,"mtu":1400,"mac":"02:00:00:00:00:01","owner":0,"group":107,"bridge":"br0","args":{"cni":{"x":1}}}`: "",
		`{"mtu":-1}`:                      "mtu -1: negative",
		`{"mac":"x"}`:                     "address x: invalid MAC address",
		`{"runtimeConfig":{"mac":"x"}}`:   "address x: invalid MAC address",
		`{"mac":"01:00:00:00:00:01"}`:     "address 01:00:00:00:00:01: invalid MAC address: a multicast one",
		`{"bridge":"a/b"}`:                `bridge "a/b": not a name that an interface can have`,
		`{"bridge":"br0\u0000x"}`:         `bridge "br0\x00x": not a name that an interface can have`,
		`{"bridge":"a-very-long-bridge"}`: `bridge "a-very-long-bridge": not a name that an interface can have`,
		`{"selinuxContext":"a\nb"}`:       `selinuxContext "a\nb": not a label`,
		`{"owner":-1}`:                    "failed to load netconf: owner: json: cannot unmarshal number -1 into Go value of type uint32",
		`{"multiQueue":"yes"}`:            "failed to load netconf: multiQueue: json: cannot unmarshal string into Go value of type bool",
	} {
		_, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte(conf)})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("parse(%s):\n got %q\nwant %q", conf, got, want)
		}
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("parse(%s): no CNI code", conf)
		}
	}
}

func TestMACPrecedence(t *testing.T) {
	const (
		conf    = `"mac":"02:00:00:00:00:01"`
		args    = "IgnoreUnknown=1;MAC=02:00:00:00:00:02;K8S_POD_NAME=p"
		runtime = `"runtimeConfig":{"mac":"02:00:00:00:00:03"}`
	)
	for _, c := range []struct{ conf, args, want string }{
		{"{}", "", ""},
		{"{" + conf + "}", "", "02:00:00:00:00:01"},
		{"{" + conf + "}", args, "02:00:00:00:00:02"},
		{"{" + conf + "," + runtime + "}", args, "02:00:00:00:00:03"},
	} {
		got, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte(c.conf), Args: c.args})
		if err != nil || got.mac.String() != c.want {
			t.Errorf("parse(%s) with %q: %v %v, want %s", c.conf, c.args, got.mac, err, c.want)
		}
	}
	_, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte("{}"), Args: "A=b"})
	if cnierr.Code(err) != cnierr.InvalidEnvironment {
		t.Errorf("unknown argument: %v, want code 4", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "tap") {
		f.Add([]byte(conf), "")
	}
	f.Add([]byte(`{"mac":"02:00:00:00:00:01","owner":1,"bridge":"br0"}`), "MAC=02:00:00:00:00:01")
	f.Add([]byte(`{"mtu":9,"group":4294967296}`), "")
	f.Fuzz(func(t *testing.T, conf []byte, args string) {
		_, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: conf, Args: args})
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("parse(%q): no CNI code: %v", conf, err)
		}
	})
}
