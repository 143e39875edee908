package portmap

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func TestParse(t *testing.T) {
	ports := func(s string) string { return `{"runtimeConfig":{"portMappings":[` + s + `]}}` }
	for conf, want := range map[string]string{
		`{}`: "",
		ports(`{"HostPort":8080,"ContainerPort":80,"Protocol":"TCP"}`):                         "*:8080/tcp",
		ports(`{"hostPort":8080,"containerPort":80}`):                                          "*:8080/tcp",
		ports(`{"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"::ffff:1.2.3.4"}`): "1.2.3.4:53/udp",
		ports(`{"hostPort":1,"containerPort":2},{"hostPort":1,"containerPort":2}`):             "*:1/tcp",
		ports(`{"hostPort":0,"containerPort":80}`):                                             "Invalid host port number: 0",
		ports(`{"hostPort":80,"containerPort":65536}`):                                         "Invalid container port number: 65536",
		ports(`{"hostPort":80,"containerPort":80,"protocol":"icmp"}`):                          `host port 80: protocol "icmp": want tcp, udp or sctp`,
		ports(`{"hostPort":80,"containerPort":80,"hostIP":"localhost"}`):                       `host port 80: hostIP "localhost": want an address`,
		`{"backend":"pf"}`:                                  `unrecognized backend "pf"`,
		`{"markMasqBit":32}`:                                "MasqMarkBit must be between 0 and 31",
		`{"markMasqBit":3,"externalSetMarkChain":"X"}`:      "Cannot specify externalSetMarkChain and markMasqBit",
		`{"backend":"nftables","conditionsV4":["-d","x"]}`:  "nftables backend was requested but configuration contains iptables-specific options [conditionsV4]",
		`{"conditionsV6":["-d","x"],"conditionsV4":["ip"]}`: "iptables backend was requested but configuration contains nftables-specific options [conditionsV4]",
		`{"hostPortConflict":"last"}`:                       `hostPortConflict "last": want error or replace`,
	} {
		c, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte(conf)})
		var got []string
		for _, m := range c.Mappings {
			got = append(got, m.String())
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if strings.Join(got, " ") != want || err != nil && cnierr.Code(err) != cnierr.InvalidConfig {
			t.Errorf("%s: %q (code %d), want %q", conf, got, cnierr.Code(err), want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"conditionsV4":["ip","saddr","!=","10.0.0.0/8"],"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":2,"hostIP":"::1"}]}}`))
	f.Fuzz(func(t *testing.T, conf []byte) {
		c, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: conf})
		if err == nil {
			_, err = parseConditions(c.Conditions.V4, false)
		}
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("%q: no code: %v", conf, err)
		}
	})
}

func TestConditionsThatMakeNoSense(t *testing.T) {
	for _, cond := range []string{"ip", "ip saddr", "ip saddr fd00::1", "ip6 saddr fd00::1", "iifname eth*", "tcp dport http", "ct state new", "mark x"} {
		if _, err := parseConditions([]string{cond}, false); cnierr.Code(err) != cnierr.UnsupportedField {
			t.Errorf("%s: %v", cond, err)
		}
	}
}

// A range is at least as long as it takes to be worth it, and stays what it was.
func TestCoalesce(t *testing.T) {
	var list []mapping
	for p := range uint16(40) {
		list = append(list, mapping{Proto: tcp, Host: 100 + p, Container: 100 + p, Count: 1})
	}
	list[20].Container = 9
	got := coalesce(list)
	if len(got) != 3 || got[0].Count != 20 || got[1].Container != 9 || got[2].Host != 121 || got[2].Count != 19 {
		t.Errorf("got %v", got)
	}
	if got := coalesce(list[:runOf-1]); len(got) != runOf-1 {
		t.Errorf("a short run became %v", got)
	}
}
