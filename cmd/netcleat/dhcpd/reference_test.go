package dhcpd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// reference returns the path of the reference's dhcp.
func (l *lan) reference() string {
	l.t.Helper()
	path, err := filepath.Abs("../../../build/reference/bin/dhcp")
	if err != nil {
		l.t.Fatal(err)
	}
	return l.need(path)
}

func TestOurPluginTheirDaemon(t *testing.T) {
	l := newLAN(t)
	l.dnsmasq()
	theirs := spawn(t, nil, l.reference(), "daemon", "-socketpath", l.socket)
	l.listening()
	c := l.call(`"priority":9,"request":[{"option":"121"}]`)
	res := l.Must(plugin.Add, c)
	if len(res.IPs) != 1 || len(res.Routes) != 1 || res.Routes[0].Priority != 9 {
		t.Errorf("result: %+v", res)
	}
	l.Must(plugin.Check, c)
	l.Must(plugin.Status, c)
	l.Must(plugin.Del, c)
	theirs.waitFor("releasing lease", 0, 2*time.Second) // which dnsmasq never hears of
	l.Must(plugin.Del, c)
}

func TestTheirPluginOurDaemon(t *testing.T) {
	l := newLAN(t)
	server := l.dnsmasq()
	l.daemon()
	c := l.call(`"priority":9`)
	their := l.reference()
	call := func(verb, conf string) string {
		cmd := exec.Command(their)
		cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS="+l.Path, "CNI_PATH=/none")
		cmd.Stdin = strings.NewReader(conf)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "error: " + string(out)
		}
		return string(out)
	}
	out := call("ADD", c.Conf)
	for _, want := range []string{`"address": "10.77.`, `"gateway": "10.77.0.1"`, `"dst": "0.0.0.0/0"`, `"priority": 9`} {
		if !strings.Contains(out, want) {
			t.Errorf("ADD: no %s in %s", want, out)
		}
	}
	ours := l.Must(plugin.Add, c)
	if !strings.Contains(out, ours.IPs[0].Address.String()) {
		t.Errorf("the two plugins got different leases: %s and %s", out, ours.IPs[0].Address)
	}
	checked := strings.Replace(c.Conf, `"name"`, `"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"`+l.Path+`"}],"ips":[{"interface":0,"address":"`+ours.IPs[0].Address.String()+`"}]},"name"`, 1)
	if out := call("CHECK", checked); out != "" {
		t.Errorf("CHECK: %s", out)
	}
	if out := call("DEL", c.Conf); out != "" {
		t.Errorf("DEL: %s", out)
	}
	server.waitFor("DHCPRELEASE(br0) "+ours.IPs[0].Address.IP.String(), 0, time.Second)
	before := strings.Count(server.output(), "DHCPDISCOVER")
	if out := call("CHECK", checked); !strings.Contains(out, "no lease") {
		t.Errorf("CHECK of a dead lease: %s", out)
	}
	if strings.Count(server.output(), "DHCPDISCOVER") != before {
		t.Error("CHECK looked for a lease")
	}
}
