package vlan

import (
	"encoding/json"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func parseText(conf string) (config, error) {
	c := &plugin.Call{Verb: plugin.Add, Stdin: []byte(conf)}
	if err := json.Unmarshal(c.Stdin, &c.Conf); err != nil {
		return config{}, cnierr.Decode(err)
	}
	return parse(c)
}

func TestParse(t *testing.T) {
	for conf, want := range map[string]string{
		`{"master":"eth0"}`:                     "", // the priority tag, as in the reference
		`{"master":"eth0","vlanId":4094}`:       "",
		`{"master":"eth0","vlanId":4095}`:       "invalid VLAN ID 4095 (must be between 0 and 4094)",
		`{"master":"eth0","vlanId":-1}`:         "invalid VLAN ID -1 (must be between 0 and 4094)",
		`{"master":"eth0","vlanId":5,"mtu":-5}`: "invalid MTU -5, must be [0, master MTU]",
		`{"vlanId":5}`:                          `"master" field is required. It specifies the host interface name to create the VLAN for`,
		`{"master":"eth0","vlanId":"5"}`:        "failed to load netconf: vlanId: json: cannot unmarshal string into Go value of type int",
	} {
		_, err := parseText(conf)
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
	for _, conf := range nltest.Examples(f, "vlan") {
		f.Add(conf)
	}
	f.Add(`{"master":"eth0","vlanId":7,"mtu":1400}`)
	f.Fuzz(func(t *testing.T, conf string) {
		c, err := parseText(conf)
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("no code: %v", err)
		}
		if err == nil && (c.MTU < 0 || c.VLANID < 0 || c.VLANID > maxVLAN || c.Master == "") {
			t.Errorf("accepted %s as %+v", conf, c)
		}
	})
}
