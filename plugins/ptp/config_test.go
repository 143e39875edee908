package ptp

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
	const ipam = `"ipam":{"type":"x"}`
	for conf, want := range map[string]string{
		`{` + ipam + `}`: "",
		`{` + ipam + `,"ipMasq":true,"ipMasqBackend":null,"mtu":1400}`:       "",
		`{` + ipam + `,"ipMasqBackend":""}`:                                  "",
		`{` + ipam + `,"ipMasqBackend":"nftables","mac":"02:00:00:00:00:1"}`: "address 02:00:00:00:00:1: invalid MAC address",
		`{` + ipam + `,"ipMasqBackend":"ebtables"}`:                          `unknown ipmasq backend "ebtables"`,
		`{` + ipam + `,"mtu":-1}`:                                            "mtu -1: negative",
		`{}`:                                                                 "no plugin name provided",
		`{"ipam":{"type":""}}`:                                               "no plugin name provided",
		`{` + ipam + `,"ipMasq":"yes"}`:                                      "failed to load netconf: ipMasq: json: cannot unmarshal string into Go value of type bool",
	} {
		_, err := parseText(conf, "K8S_POD_NAME=p") // unknown arguments are none of its business
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

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "ptp") {
		f.Add(conf, "")
	}
	f.Add(`{"ipam":{"type":"x"},"ipMasq":true,"ipMasqBackend":"nftables","mtu":1400,"mac":"02:00:00:00:00:01"}`, "MAC=02:00:00:00:00:01")
	f.Fuzz(func(t *testing.T, conf, args string) {
		c, err := parseText(conf, args)
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("no code: %v", err)
		}
		if err == nil && (c.MTU < 0 || c.mac != nil && len(c.mac) != 6) {
			t.Errorf("accepted %s as %+v", conf, c)
		}
	})
}
