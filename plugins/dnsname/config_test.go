package dnsname

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// call is a call with the keys in its configuration.
func call(keys string) *plugin.Call {
	stdin := `{"cniVersion":"1.0.0","name":"web","type":"dnsname"` + keys + `}`
	return &plugin.Call{Verb: plugin.Add, ContainerID: "0123456789abcdef", Stdin: []byte(stdin), Conf: plugin.Conf{Name: "web"}, Stderr: &bytes.Buffer{}}
}

func TestParse(t *testing.T) {
	for keys, want := range map[string]string{
		``:                            `{ [] []}`,
		`,"domainName":"Dns.Podman."`: `{dns.podman [] []}`,
		`,"nameservers":["192.0.2.1","[fd00::1]:5353","fd00::2"]`:                                 `{ [] [192.0.2.1:53 [fd00::1]:5353 [fd00::2]:53]}`,
		`,"runtimeConfig":{"aliases":{"web":["a","b"],"other":["c"]}}`:                            `{ [a b] []}`,
		`,"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"netcleat.dev/aliases":"a, b,"}}`: `{ [a b] []}`,
	} {
		conf, err := parse(call(keys))
		if got := fmt.Sprint(conf); err != nil || got != want {
			t.Errorf("%s: want %s, got %s, %v", keys, want, got, err)
		}
	}
	for keys, code := range map[string]uint{
		`,"domainName":"two words"`: cnierr.InvalidConfig, `,"domainName":"a..b"`: cnierr.InvalidConfig,
		`,"nameservers":["localhost"]`: cnierr.InvalidConfig, `,"nameservers":[""]`: cnierr.InvalidConfig,
		`,"domainName":7`: cnierr.DecodingFailure,
	} {
		if _, err := parse(call(keys)); cnierr.Code(err) != code {
			t.Errorf("%s: want code %d, got %v", keys, code, err)
		}
	}
}

func TestCanonical(t *testing.T) {
	long := strings.Repeat("a", maxLabel)
	for text, want := range map[string]string{
		"Web": "web", "web.": "web", "a.b-c_d": "a.b-c_d", long: long,
		"": "", ".": "", "a..b": "", "a b": "", "a;b": "", "ä": "", long + "a": "", strings.Repeat("a.", 127) + "a": "",
	} {
		if got, ok := Canonical(text); got != want || ok != (want != "") {
			t.Errorf("%q: want %q, got %q, %v", text, want, got, ok)
		}
	}
}

// The names of a container that nerdctl runs are in its bundle, which is the
// working directory of the hook that calls the plugin.
func TestNamesOfNerdctl(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	write := func(owner string) {
		conf := `{"ociVersion":"1.0.0","annotations":{"nerdctl/name":"Web","nerdctl/hostname":"host","nerdctl/state-dir":"/var/lib/nerdctl/x/containers/default/` + owner + `","netcleat.dev/aliases":"app, no good"}}`
		if err := os.WriteFile(filepath.Join(".", "config.json"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(t.TempDir())
	for owner, want := range map[string]string{id: "[web host 0123456789ab] [app]", "another": "[0123456789ab] []"} {
		write(owner)
		c := call("")
		c.ContainerID = "default-" + id
		own, aliases := names(c, config{})
		if got := fmt.Sprint(own, aliases); got != want {
			t.Errorf("want %s, got %s", want, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`,"domainName":"a.b","nameservers":["192.0.2.1:53"],"runtimeConfig":{"aliases":{"web":["x"]}}`)
	f.Fuzz(func(t *testing.T, keys string) {
		conf, err := parse(call(keys))
		if err != nil {
			if cnierr.Code(err) == 0 {
				t.Errorf("%v: no code", err)
			}
			return
		}
		names(call(keys), conf)
	})
}
