package dummy

import (
	"encoding/json"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func parseText(conf string) (struct{}, error) {
	c := &plugin.Call{Verb: plugin.Add, Stdin: []byte(conf)}
	if err := json.Unmarshal(c.Stdin, &c.Conf); err != nil {
		return struct{}{}, cnierr.Decode(err)
	}
	return parse(c)
}

func TestParse(t *testing.T) {
	for conf, want := range map[string]string{
		`{"ipam":{"type":"x"}}`:             "",
		`{"ipam":{"type":"x"},"mtu":"any"}`: "", // no key of its own
		`{}`:                                "dummy interface requires an IPAM configuration",
		`{"ipam":{}}`:                       "dummy interface requires an IPAM configuration",
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
	for _, conf := range nltest.Examples(f, "dummy") {
		f.Add(conf)
	}
	f.Add(`{"ipam":{"type":"x"}}`)
	f.Fuzz(func(t *testing.T, conf string) {
		_, err := parseText(conf)
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("no code: %v", err)
		}
	})
}
