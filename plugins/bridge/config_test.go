package bridge

import (
	"strings"
	"testing"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func TestParse(t *testing.T) {
	for conf, want := range map[string]string{
		`{}`:                         "",
		`{"ipam":{"type":""}}`:       "", // podman writes it so
		`{"mtu":9000,"unknown":[1]}`: "",
		`{"VLAN":100}`:               "", // keys are case-insensitive
		`{"vlanTrunk":[{"minID":2,"maxID":3,"id":7}]}`: "",
		`{"ipMasq":true,"ipMasqBackend":"nftables"}`:   "",
		`{"ipMasqBackend":""}`:                         "",
		`{"args":{"cni":{"mac":"02:00:00:00:00:01"}}}`: "",

		`{"bridge":""}`:                                          `bridge "": not a name that an interface can have`,
		`{"bridge":"../../etc"}`:                                 `bridge "../../etc": not a name that an interface can have`,
		`{"bridge":"cni0\u0000x"}`:                               `bridge "cni0\x00x": not a name that an interface can have`,
		`{"bridge":"."}`:                                         `bridge ".": not a name that an interface can have`,
		`{"bridge":"cni%d"}`:                                     `bridge "cni%d": not a name that an interface can have`,
		`{"bridge":"cni\u0007"}`:                                 `bridge "cni\a": not a name that an interface can have`,
		`{"bridge":"sixteen-letters-"}`:                          `bridge "sixteen-letters-": not a name that an interface can have`,
		`{"mtu":-1}`:                                             "mtu -1: negative",
		`{"vlan":4095}`:                                          "invalid VLAN ID 4095 (must be between 0 and 4094)",
		`{"vlanTrunk":[{"minID":2}]}`:                            "minID and maxID should be configured simultaneously, maxID is missing",
		`{"vlanTrunk":[{"maxID":2}]}`:                            "minID and maxID should be configured simultaneously, minID is missing",
		`{"vlanTrunk":[{"minID":0,"maxID":2}]}`:                  "incorrect trunk minID parameter",
		`{"vlanTrunk":[{"minID":1,"maxID":4095}]}`:               "incorrect trunk maxID parameter",
		`{"vlanTrunk":[{"id":-1}]}`:                              "incorrect trunk id parameter",
		`{"vlanTrunk":[{"minID":3,"maxID":2}]}`:                  "minID is greater than maxID in trunk parameter",
		`{"hairpinMode":true,"promiscMode":true}`:                "cannot set hairpin mode and promiscuous mode at the same time",
		`{"disableContainerInterface":true,"ipam":{"type":"x"}}`: "cannot use IPAM when DisableContainerInterface flag is set",
		`{"runtimeConfig":{"mac":"zz"}}`:                         "address zz: invalid MAC address",
		`{"runtimeConfig":{"mac":"01:00:5e:00:00:01"}}`:          "address 01:00:5e:00:00:01: invalid MAC address: a multicast one",
		`{"bridge":"eleven-char","vlan":4000,"isGateway":true}`:  `bridge "eleven-char": with vlan and isGateway the gateway's interface would be "eleven-char.4000", longer than 15 characters`,
		`{"ipMasqBackend":"ebtables"}`:                           `unknown ipmasq backend "ebtables"`,
		`{"mtu":"big"}`:                                          "failed to load netconf: mtu: json: cannot unmarshal string into Go value of type int",
	} {
		_, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte(conf), Conf: confOf(conf)})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("parse(%s):\n got %q\nwant %q", conf, got, want)
		}
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("parse(%s): no CNI code", conf)
		}
	}
}

// confOf fills in what package plugin has decoded before parse is called.
func confOf(conf string) (c plugin.Conf) {
	if strings.Contains(conf, `"type":"x"`) {
		c.IPAM.Type = "x"
	}
	return c
}

// The runtime's MAC address beats the configuration's, and that the arguments'.
func TestMACPrecedence(t *testing.T) {
	const (
		runtime = `"runtimeConfig":{"mac":"02:00:00:00:00:03"}`
		conf    = `"args":{"cni":{"mac":"02:00:00:00:00:02"}}`
		args    = "IgnoreUnknown=1;MAC=02:00:00:00:00:01;K8S_POD_NAME=p"
	)
	for _, c := range []struct{ conf, args, want string }{
		{"{}", "", ""},
		{"{}", args, "02:00:00:00:00:01"},
		{"{" + conf + "}", args, "02:00:00:00:00:02"},
		{"{" + conf + "," + runtime + "}", args, "02:00:00:00:00:03"},
	} {
		got, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte(c.conf), Args: c.args})
		if err != nil || got.mac.String() != c.want {
			t.Errorf("parse(%s) with %q: %v %v, want %s", c.conf, c.args, got.mac, err, c.want)
		}
	}
	_, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: []byte("{}"), Args: "A=b"})
	if cnierr.Code(err) != cnierr.InvalidEnvironment {
		t.Errorf("unknown argument: %v, want code 4", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "bridge") {
		f.Add([]byte(conf), "")
	}
	f.Add([]byte(dual), "MAC=02:00:00:00:00:01")
	f.Add([]byte(`{"vlanTrunk":[{"minID":2,"maxID":3,"id":7}],"args":{"cni":{"mac":"x"}}}`), "")
	f.Fuzz(func(t *testing.T, conf []byte, args string) {
		_, err := parse(&plugin.Call{Verb: plugin.Add, Stdin: conf, Args: args})
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("parse(%q): no CNI code: %v", conf, err)
		}
	})
}
