package macvlan

import (
	"encoding/json"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func parseText(conf, args string) (config, error) {
	c := &plugin.Call{Verb: plugin.Add, Stdin: []byte(conf), Args: args}
	if err := json.Unmarshal(c.Stdin, &c.Conf); err != nil {
		return config{}, cnierr.Decode(err)
	}
	return parse(c)
}

func TestParse(t *testing.T) {
	for conf, want := range map[string]string{
		`{}`:                          "",
		`{"master":"eth0"}`:           "",
		`{"master":"eth0","mtu":-1}`:  "invalid MTU -1, must be [0, master MTU]",
		`{"mode":""}`:                 "",
		`{"mode":"private"}`:          "",
		`{"mode":"sideways"}`:         `unknown macvlan mode: "sideways"`,
		`{"mac":"c2:11:22:33:44:55"}`: "",
		`{"mac":"nonsense"}`:          "address nonsense: invalid MAC address",
		`{"mac":"01:00:5e:00:00:01"}`: "address 01:00:5e:00:00:01: invalid MAC address: a multicast one",
		`{"mtu":"big"}`:               "failed to load netconf: mtu: json: cannot unmarshal string into Go value of type int",
		`{"bcqueuelen":-1}`:           "failed to load netconf: bcqueuelen: json: cannot unmarshal number -1 into Go value of type uint32",
		`{"bcqueuelen":5000,"linkInContainer":true,"unknown":[]}`: "",
		`{`: "unexpected end of JSON input",
	} {
		_, err := parseText(conf, "")
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("parse(%s): %q, want %q", conf, got, want)
		}
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("parse(%s): no code", conf)
		}
	}
}

// The runtime's word counts more than CNI_ARGS, and those more than the
// configuration.
func TestMACOfAllWays(t *testing.T) {
	const mac, inArgs, key, env = `"runtimeConfig":{"mac":"02:00:00:00:00:01"}`, `"args":{"cni":{"mac":"02:00:00:00:00:02"}}`, `"mac":"02:00:00:00:00:04"`, "MAC=02:00:00:00:00:03"
	for _, c := range []struct{ conf, args, want string }{
		{`{` + mac + `,` + inArgs + `,` + key + `}`, env, "02:00:00:00:00:01"},
		{`{` + inArgs + `,` + key + `}`, env, "02:00:00:00:00:02"},
		{`{` + key + `}`, env, "02:00:00:00:00:03"},
		{`{` + key + `}`, "IgnoreUnknown=1;K8S_POD_NAME=p", "02:00:00:00:00:04"},
		{`{}`, "", ""},
	} {
		conf, err := parseText(c.conf, c.args)
		if err != nil || conf.mac.String() != c.want {
			t.Errorf("%s with %q: %s, %v, want %s", c.conf, c.args, conf.mac, err, c.want)
		}
	}
	if _, err := parseText(`{}`, "K8S_POD_NAME=p"); cnierr.Code(err) != cnierr.InvalidEnvironment {
		t.Errorf("unknown CNI_ARGS: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "macvlan") {
		f.Add(conf, "")
	}
	f.Add(`{"master":"eth0","mode":"private","mtu":1400,"mac":"02:00:00:00:00:01","bcqueuelen":1}`, "MAC=02:00:00:00:00:01")
	f.Fuzz(func(t *testing.T, conf, args string) {
		c, err := parseText(conf, args)
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("no code: %v", err)
		}
		if err == nil && (c.MTU < 0 || c.mode.String() == "unknown" || c.mac != nil && len(c.mac) != 6) {
			t.Errorf("accepted %s as %+v", conf, c)
		}
	})
}
