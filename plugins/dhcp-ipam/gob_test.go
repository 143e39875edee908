package dhcp

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"errors"
	"net"
	"net/rpc"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
)

// The reference's daemon reads calls with encoding/gob into types of these
// names.
func TestEncodeCall(t *testing.T) {
	long := strings.Repeat("x", 70000)
	for _, want := range []CmdArgs{
		{},
		{ContainerID: "c1", Netns: "/run/netns/a", IfName: "eth0", StdinData: []byte(`{"name":"lan"}`)},
		{ContainerID: long, Args: "A=B", Path: "/opt/cni/bin", NetnsOverride: "1", StdinData: []byte(long + long + long + long)},
	} {
		dec := gob.NewDecoder(bytes.NewReader(encodeCall(methodAllocate, want)))
		var head rpc.Request
		if err := dec.Decode(&head); err != nil {
			t.Fatal(err)
		}
		if head.ServiceMethod != methodAllocate || head.Seq != 0 {
			t.Errorf("request: %+v", head)
		}
		var got CmdArgs
		if err := dec.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("arguments (-want +got):\n%s", diff)
		}
	}
}

// answerBytes is an answer as net/rpc writes it.
func answerBytes(t testing.TB, message string, body any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := gob.NewEncoder(&b)
	for _, v := range []any{rpc.Response{ServiceMethod: methodAllocate, Error: message}, body} {
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func fullResult() *current.Result {
	n := func(i int) *int { return &i }
	cidr := func(s string) net.IPNet {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			panic(err)
		}
		return net.IPNet{IP: ip.To4(), Mask: n.Mask}
	}
	return &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		IPs:        []*current.IPConfig{{Address: cidr("10.1.2.3/16"), Gateway: net.IP{10, 1, 0, 1}}, {Address: cidr("10.9.2.3/8")}},
		Routes: []*types.Route{
			{Dst: cidr("0.0.0.0/0"), GW: net.IP{10, 1, 0, 1}, MTU: 1400, AdvMSS: 1360, Priority: 300, Table: n(1000), Scope: n(253)},
			{Dst: cidr("172.16.0.0/12"), GW: net.IP{0, 0, 0, 0}, Priority: -1},
		},
		DNS: types.DNS{Nameservers: []string{"10.1.0.53", "10.1.0.54"}, Domain: "lan", Search: []string{"a.lan", "b.lan"}},
	}
}

func TestDecodeAnswer(t *testing.T) {
	for _, want := range []*current.Result{fullResult(), {CNIVersion: current.ImplementedSpecVersion}} {
		sent := *want
		sent.Interfaces = []*current.Interface{{Name: "eth0", Mac: "02:00:00:00:00:01"}} // a field that is skipped
		got, err := decodeAnswer(bufio.NewReader(bytes.NewReader(answerBytes(t, "", sent))))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
	}
	_, err := decodeAnswer(bufio.NewReader(bytes.NewReader(answerBytes(t, "no more tries", struct{}{}))))
	if !errors.Is(err, serverError("no more tries")) {
		t.Errorf("error answer: %v", err)
	}
}

func TestDecodeAnswerCutShort(t *testing.T) {
	whole := answerBytes(t, "", *fullResult())
	for n := range whole {
		if _, err := decodeAnswer(bufio.NewReader(bytes.NewReader(whole[:n]))); err == nil {
			t.Fatalf("%d of %d bytes are enough", n, len(whole))
		}
	}
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add(answerBytes(f, "", *fullResult()))
	f.Add(answerBytes(f, "no", struct{}{}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeAnswer(bufio.NewReader(bytes.NewReader(b)))
	})
}
