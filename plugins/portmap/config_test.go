package portmap

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func TestParse(t *testing.T) {
	ports := func(s string) string { return `{"runtimeConfig":{"portMappings":[` + s + `]}}` }
	for conf, want := range map[string]string{
		`{}`: "",
		ports(`{"HostPort":8080,"ContainerPort":80,"Protocol":"TCP"}`):                         "*:8080/tcp",
		ports(`{"hostPort":8080,"containerPort":80}`):                                          "*:8080/tcp",
		ports(`{"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"::ffff:1.2.3.4"}`): `host port 53: hostIP "::ffff:1.2.3.4": want an address`,
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
	for _, conf := range nltest.Examples(f, "portmap") {
		f.Add([]byte(conf))
	}
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
	for _, cond := range []string{"ip", "ip saddr", "ip saddr fd00::1", "ip6 saddr fd00::1", "ip6 saddr ::ffff:10.0.0.1", "iifname eth*", "iifname eth%d", "iifname a/b", "tcp dport http", "ct state new", "mark x"} {
		if _, err := parseConditions([]string{cond}, false); cnierr.Code(err) != cnierr.UnsupportedField {
			t.Errorf("%s: %v", cond, err)
		}
	}
}

// Of mappings for the same packets the first wins, and whoever loses some is told.
func TestFirstMappingWins(t *testing.T) {
	for conf, want := range map[string]string{
		`80 | 80`:                          "*:8080->80",
		`80 | 81`:                          "*:8080->80, told 1",
		`80 | 80 0.0.0.0`:                  "*:8080->80",
		`80 | 81 0.0.0.0 | 82 ::`:          "*:8080->80, told 2",
		`80 0.0.0.0 | 81`:                  "*:8080->80 IPv4, *:8080->81 IPv6, told 1",
		`80 0.0.0.0 | 80 :: | 80`:          "*:8080->80 IPv4, *:8080->80 IPv6",
		`80 | 81 192.0.2.1`:                "*:8080->80, told 1",
		`80 192.0.2.1 | 81 | 82 192.0.2.1`: "192.0.2.1:8080->80, *:8080->81, told 1",
		`80 :: | 81 192.0.2.1`:             "192.0.2.1:8080->81, *:8080->80 IPv6",
		`80 192.0.2.1 | 81 192.0.2.2`:      "192.0.2.2:8080->81, 192.0.2.1:8080->80",
	} {
		var list []string
		for _, m := range strings.Split(conf, " | ") {
			port, ip, _ := strings.Cut(m, " ")
			list = append(list, `{"hostPort":8080,"containerPort":`+port+`,"hostIP":"`+ip+`"}`)
		}
		var told strings.Builder
		c, err := parse(&plugin.Call{Verb: plugin.Add, Stderr: &told, Stdin: []byte(`{"runtimeConfig":{"portMappings":[` + strings.Join(list, ",") + `]}}`)})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range c.Mappings {
			family := map[string]string{"4": " IPv4", "6": " IPv6"}[m.Only]
			got = append(got, fmt.Sprintf("%s->%d%s", strings.TrimSuffix(m.String(), "/tcp"), m.Container, family))
		}
		if n := strings.Count(told.String(), "\n"); n > 0 {
			got = append(got, fmt.Sprintf("told %d", n))
		}
		if g := strings.Join(got, ", "); g != want {
			t.Errorf("%s: %s, want %s\n%s", conf, g, want, told.String())
		}
	}
}

// A port in the middle of others in a row that leads elsewhere parts them.
func TestPortAmongARange(t *testing.T) {
	list := []string{`{"hostPort":120,"containerPort":9,"hostIP":"::"}`}
	for p := range 40 {
		list = append(list, fmt.Sprintf(`{"hostPort":%d,"containerPort":%d}`, 100+p, 100+p))
	}
	c, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte(`{"runtimeConfig":{"portMappings":[` + strings.Join(list, ",") + `]}}`)})
	if got, want := fmt.Sprint(c.Mappings), "[*:100-119/tcp *:121-139/tcp *:120/tcp *:120/tcp]"; got != want || err != nil {
		t.Errorf("%s %v, want %s", got, err, want)
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

// Whatever a record says was published, elements and scripts can be made of it,
// and no line of a script but theirs.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"backend":"iptables","targets":["10.1.0.2/16","fd00::2/64"],"mappings":[{"proto":6,"host":80,"container":8080,"count":1},{"hostIP":"::1","proto":17,"host":1,"container":1,"count":65535}],"conditionsV4":["-s","10.0.0.0/8"],"snat":true,"masqAll":true,"markBit":13,"localnet":"cni0"}`))
	f.Add([]byte(`{"targets":["10.1.0.2/16"],"mappings":[{"only":"6","proto":0,"host":65535,"count":40}],"markBit":-1,"setMarkChain":"X"}`))
	f.Fuzz(func(t *testing.T, state []byte) {
		r := journal.Record{State: state}
		j := &job{key: journal.Key{Network: "net", ContainerID: "c1"}}
		if r.GetState(&j.publication) != nil || j.MarkBit < 0 || j.MarkBit > 31 {
			return
		}
		for _, target := range j.Targets {
			if !target.IsValid() {
				return
			}
			g := layoutOf(target.Addr().Is6()).group(j.conditions(target.Addr().Is6()))
			j.elements(g, target.Addr())
			j.script(table{chains: map[string]bool{}, enters: map[string]bool{}}, target)
			j.wants(g.layout, target)
		}
	})
}

// Whatever prevResult holds, it is refused with a code or gives at most one
// address a family.
func FuzzPrevResult(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.1.0.2/16"},{"address":"fd00::2/64","interface":9}]}`,
		`{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.2/16"}}`, `{"cniVersion":"1.0.0","ips":[null]}`, `{"ips":[{"address":"::ffff:10.0.0.1/120","interface":-1}]}`, `null`, `7`,
	} {
		f.Add([]byte(s), "1.0.0")
	}
	f.Fuzz(func(t *testing.T, prev []byte, version string) {
		c := &plugin.Call{Verb: plugin.Add, IfName: "eth0"}
		c.Conf.PrevResult, c.Conf.CNIVersion = prev, version
		res, err := c.PrevResult()
		if err == nil && res != nil {
			var list []netip.Prefix
			if list, err = targets(res, c.IfName); len(list) > 2 {
				t.Errorf("%s: targets %v", prev, list)
			}
		}
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("%s: no code: %v", prev, err)
		}
	})
}
