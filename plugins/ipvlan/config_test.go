package ipvlan

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
		`{}`: "",
		`{"master":"eth0","mode":"l2","flag":"bridge"}`:       "",
		`{"mode":"l3","flag":"private","mtu":1400}`:           "",
		`{"mode":"l3s","flag":"vepa","linkInContainer":true}`: "",
		`{"mode":"l4"}`:   `unknown ipvlan mode: "l4"`,
		`{"flag":"open"}`: `unknown ipvlan flag: "open" (want bridge, private or vepa)`,
		`{"mtu":-5}`:      "invalid MTU -5, must be [0, master MTU]",
		`{"master":5}`:    "failed to load netconf: master: json: cannot unmarshal number into Go value of type string",
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
	for _, conf := range nltest.Examples(f, "ipvlan") {
		f.Add(conf)
	}
	f.Add(`{"master":"eth0","mode":"l3s","flag":"vepa","mtu":1400}`)
	f.Fuzz(func(t *testing.T, conf string) {
		c, err := parseText(conf)
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("no code: %v", err)
		}
		if err == nil && (c.MTU < 0 || c.traits.Mode > l3s || c.traits.Flag > vepa) {
			t.Errorf("accepted %s as %+v", conf, c)
		}
	})
}
