package show

import (
	"bytes"
	"strings"
	"testing"
)

var twoNetworks = []Network{
	{Name: "shop", Driver: "bridge", Labels: Labels{"team": "a", "env": "test"}, Containers: []Row{{}}},
	{Name: "lan", Driver: "macvlan", Labels: Labels{"team": "b"}},
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		format Format
		want   string
	}{
		{Format{Output: "table", Quiet: true}, "shop\nlan\n"},
		{Format{Output: "table", Template: `{{.Name}}\t{{.Driver}} {{.Scope}}`}, "shop\tbridge local\nlan\tmacvlan local\n"},
		{Format{Output: "table", Template: `table {{.Name}}\t{{.Driver}}`}, "NAME  DRIVER\nshop  bridge\nlan   macvlan\n"},
		{Format{Output: "table", Template: `{{.Labels}} {{json .Name}}`}, "env=test,team=a \"shop\"\nteam=b \"lan\"\n"},
	} {
		var out bytes.Buffer
		if err := PrintNetworks(&out, twoNetworks, c.format); err != nil || out.String() != c.want {
			t.Errorf("%+v: %v\n%s\nwant\n%s", c.format, err, &out, c.want)
		}
	}
	var out bytes.Buffer
	if err := PrintNetworks(&out, twoNetworks, Format{Output: "table", Template: "json"}); err != nil || strings.Count(out.String(), "\n") != 2 || !strings.HasPrefix(out.String(), `{"name":"shop"`) {
		t.Errorf("%v\n%s", err, &out)
	}
	for _, bad := range []Format{{Output: "yaml"}, {Output: "table", Template: "{{"}} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	if err := PrintNetworks(&out, twoNetworks, Format{Output: "table", Template: "{{.Nonsense}}"}); err == nil {
		t.Error("a field that does not exist is printed")
	}
}

func TestFilters(t *testing.T) {
	for _, c := range []struct{ filters, want string }{
		{"", "shop lan"},
		{"driver=bridge", "shop"},
		{"driver=bridge driver=macvlan", "shop lan"},
		{"driver=bridge name=lan", ""},
		{"name=ho", "shop"},
		{"label=team", "shop lan"},
		{"label=team=b", "lan"},
		{"dangling=true", "lan"},
		{"dangling=false", "shop"},
	} {
		filters, err := ParseFilters(strings.Fields(c.filters), NetworkFilters...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range FilterNetworks(twoNetworks, filters) {
			got = append(got, n.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %s", c.filters, got, c.want)
		}
	}
	for _, bad := range []string{"driver", "size=1"} {
		if _, err := ParseFilters([]string{bad}, NetworkFilters...); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
	rows := []Row{{Network: "a", Container: "c1", Name: "web", Health: Healthy}, {Network: "b", Container: "d2", Name: "db", Health: Dead}}
	for filter, want := range map[string]string{"network=a": "c1", "name=b": "c1 d2", "id=d": "d2", "health=sandbox gone": "d2"} {
		filters, err := ParseFilters([]string{filter}, RowFilters...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range FilterRows(rows, filters) {
			got = append(got, r.Container)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %s", filter, got, want)
		}
	}
}
