package dhcp

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func TestParse(t *testing.T) {
	for _, test := range []struct{ conf, want string }{
		{`{"name":"lan","ipam":{"type":"dhcp"}}`, ""},
		{`{"name":"lan","ipam":{"type":"dhcp","priority":7,"provide":[{"option":"12","value":"a"},{"option":"host-name","fromArg":"X"}],"request":[{"skipDefault":true},{"option":"routers"}]}}`, ""},
		{`{"name":"lan"}`, "dhcp: the configuration has no ipam section"},
		{`{"name":"lan","ipam":null}`, "dhcp: the configuration has no ipam section"},
		{`{"name":"lan","ipam":{"provide":[{"option":"256"}]}}`, `Can not parse option "256"`},
		{`{"name":"lan","ipam":{"request":[{"option":"hostname"}]}}`, `Can not parse option "hostname"`},
		{`{"name":"lan","ipam":{"provide":[{"option":"12","value":"` + strings.Repeat("x", 256) + `"}]}}`, `value too long for option "12"`},
		{`{"name":"lan","ipam":{"provide":[{"option":"12","fromArg":"LONG"}]}}`, `value too long for option "12"`},
		{`{"name":"lan","ipam":{"priority":"high"}}`, "error parsing netconf"},
	} {
		_, err := parse(&plugin.Call{Stdin: []byte(test.conf), Args: "LONG=" + strings.Repeat("x", 256)})
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.conf, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", test.conf, err, test.want)
		case err != nil && cnierr.Code(err) == cnierr.Internal:
			t.Errorf("%s: no code", test.conf)
		}
	}
}

func TestOptions(t *testing.T) {
	n, err := ParseNetwork([]byte(`{"ipam":{"provide":[{"option":"61","value":"id"},{"option":"host-name","fromArg":"POD","value":"fixed"},{"option":"60","fromArg":"NONE"}],"request":[{"option":"6"},{"option":"121"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	provide, request, err := n.IPAM.Options("IgnoreUnknown=1;POD=a=b")
	if err != nil {
		t.Fatal(err)
	}
	want := []Option{{61, []byte("id")}, {12, []byte("fixed")}, {12, []byte("a=b")}}
	if diff := cmp.Diff(want, provide); diff != "" {
		t.Errorf("provide (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]byte{6, 121, 3, 1}, request); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "dhcp") {
		f.Add([]byte(conf))
	}
	f.Add([]byte(`{"name":"lan","ipam":{"provide":[{"option":"12","value":"a"}],"request":[{"option":"1"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := parse(&plugin.Call{Stdin: b, Args: "A=B"})
		if err != nil && cnierr.Code(err) == cnierr.Internal {
			t.Errorf("no code: %v", err)
		}
	})
}

// DHCP is a daemon of the standard library's making, as the reference's is.
type DHCP struct{ got CmdArgs }

func (d *DHCP) Allocate(a *CmdArgs, res *current.Result) error {
	d.got = *a
	if a.IfName == "bad" {
		return errors.New("no more tries")
	}
	*res = *fullResult()
	return nil
}

func (d *DHCP) Release(a *CmdArgs, _ *struct{}) error {
	d.got = *a
	return nil
}

func rpcDaemon(t *testing.T) (string, *DHCP) {
	t.Helper()
	d, srv := &DHCP{}, rpc.NewServer()
	if err := srv.Register(d); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "dhcp.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	h := http.NewServeMux()
	h.Handle(rpc.DefaultRPCPath, srv)
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return socket, d
}

func TestCallOverRPC(t *testing.T) {
	socket, d := rpcDaemon(t)
	args := CmdArgs{ContainerID: "c1", Netns: "/run/netns/a", IfName: "eth0", Args: "A=B", Path: "/bin", StdinData: []byte("{}")}
	res, err := call(t.Context(), socket, methodAllocate, args)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fullResult(), res); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(args, d.got); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if _, err := call(t.Context(), socket, methodRelease, args); err != nil {
		t.Error(err)
	}
	args.IfName = "bad"
	_, err = call(t.Context(), socket, methodAllocate, args)
	if cnierr.Code(coded(err)) != cnierr.TryAgain || !strings.Contains(err.Error(), "error calling DHCP.Allocate: no more tries") {
		t.Errorf("refusal: %v", err)
	}
	_, err = call(t.Context(), socket, methodCheck, args)
	if said := serverError(""); !errors.As(err, &said) || !strings.Contains(string(said), "can't find method") {
		t.Errorf("method that is not there: %v", err)
	}
}

// A daemon that takes the connection and says nothing holds nobody for ever.
func TestSilentDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "dhcp.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := time.Now()
	_, err = call(t.Context(), socket, methodAllocate, CmdArgs{})
	if !errors.Is(err, errDial) || cnierr.Code(coded(err)) != cnierr.TryAgain || time.Since(start) > dialWait+2*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = call(ctx, socket, methodAllocate, CmdArgs{}); err == nil {
		t.Error("no error")
	}
}

func TestFree(t *testing.T) {
	d := LeasesOf(filepath.Join(t.TempDir(), "dhcp.sock"))
	k := Key{Network: strings.Repeat("n", 300), ContainerID: strings.Repeat("c", 300), IfName: "eth0"}
	if was, err := d.Free(k); was || err != nil {
		t.Errorf("no directory: %v, %v", was, err)
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Path(k), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if was, err := d.Free(k); !was || err != nil {
		t.Errorf("a lease: %v, %v", was, err)
	}
	live, freed, err := d.Files()
	if err != nil || len(live) != 0 || len(freed) != 1 || freed[0] != d.FreedPath(k) {
		t.Errorf("files: %v, %v, %v", live, freed, err)
	}
}
