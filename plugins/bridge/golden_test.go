package bridge

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// golden compares text with a file in testdata; UPDATE=1 rewrites that.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; UPDATE=1 rewrites it):\n%s", path, diff)
	}
}

// saved is what differs from run to run in the answer of iptables-save.
var saved = regexp.MustCompile(`(?m)^#.*\n| \[\d+:\d+\]`)

func TestResults(t *testing.T) {
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			bed := nltest.New(t)
			c := call(dualStack(), `"isDefaultGateway":true,"dns":{"nameservers":["10.1.0.1"]}`)
			c.Conf = strings.Replace(c.Conf, "1.1.0", version, 1)
			a := bed.Do(plugin.Add, c)
			if a.Exit != 0 {
				t.Fatal(a.Stdout)
			}
			mac := strings.Fields(bed.IP("-br", "link", "show", "br0"))[2] // random
			golden(t, "result-"+version, strings.NewReplacer(bed.Path, "SANDBOX", mac, "BRIDGE").Replace(a.Stdout))
		})
	}
}

func TestRulesets(t *testing.T) {
	for name, keys := range map[string]string{
		"ipmasq-nftables":   `"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables"`,
		"ipmasq-no-gateway": `"ipMasq":true,"ipMasqBackend":"nftables"`,
		"ipmasq-iptables":   `"ipMasq":true,"ipMasqBackend":"iptables"`,
		"macspoofchk":       `"macspoofchk":true`,
		"all":               `"isGateway":true,"ipMasq":true,"macspoofchk":true`,
	} {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			c := handsOut(call(dualStack(), keys))
			bed.Must(plugin.Add, c)
			second := c
			second.Table = table(&nltest.StubIPAM{Addresses: []string{"10.1.0.3/16", "fd00:1::3/64"}})
			second.ContainerID, second.Netns = "c2", bed.PathOf(bed.NewSandbox())
			bed.Must(plugin.Add, second)
			rules := bed.Run("nft", "list", "ruleset")
			if strings.HasSuffix(name, "iptables") {
				rules = saved.ReplaceAllString(bed.Run("iptables-save", "-t", "nat")+bed.Run("ip6tables-save", "-t", "nat"), "")
			}
			golden(t, "ruleset-"+name, rules)

			bed.Must(plugin.Del, c)
			bed.Must(plugin.Del, second)
			if left := bed.Run("nft", "list", "ruleset"); strings.Contains(left, "10.1.0") || strings.Contains(left, "veth") {
				t.Errorf("left behind:\n%s", left)
			}
		})
	}
}

// What the second container of a network asks the kernel to change, in order: no
// more than this may creep into every pod's start. (The first one makes what is
// shared, too.)
func TestChangesOfAnAttachment(t *testing.T) {
	for name, stub := range map[string]*nltest.StubIPAM{
		"v4":   {Addresses: []string{"10.1.0.3/16 10.1.0.1"}, Routes: []string{"0.0.0.0/0"}},
		"dual": {Addresses: []string{"10.1.0.3/16 10.1.0.1", "fd00:1::3/64 fd00:1::1"}, Routes: []string{"0.0.0.0/0", "::/0"}},
	} {
		t.Run(name, func(t *testing.T) {
			bed := nltest.New(t)
			bed.Must(plugin.Add, handsOut(call(dualStack(), `"isGateway":true,"ipMasq":true`)))
			c := handsOut(call(stub, `"isGateway":true,"ipMasq":true`))
			c.ContainerID, c.Netns = "c2", bed.PathOf(bed.NewSandbox())
			var text strings.Builder
			c.Gate = func(what string) error { text.WriteString(what + "\n"); return nil }
			text.WriteString("ADD\n")
			bed.Must(plugin.Add, c)
			text.WriteString("DEL\n")
			bed.Must(plugin.Del, c)
			golden(t, "changes-"+name, text.String())
		})
	}
}
