package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whatever a record's file holds: nothing is read from it that is another
// attachment's, an operation on the attachment goes on, and ends with no file
// left, unless a later version wrote it.
func FuzzRecord(f *testing.F) {
	k := Key{Network: "net", ContainerID: "c1", IfName: "eth0", Plugin: "bridge"}
	whole := Record{Version: version, Key: k, Netns: "/run/netns/x", Created: time.Unix(0, 0).UTC(), Links: []Link{{Name: "veth0", Index: 7}}}
	b, err := whole.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, false)
	f.Add(b[:100], true)
	f.Add([]byte(`{"version":99,"network":{}}`), false)
	f.Add([]byte(`{"version":1,"network":"other","containerID":"../x","ips":["10.0.0.1/24","x"],"created":"?"}`), true)
	f.Add([]byte(`{"version":-1,"links":[null,{"index":-1}],"state":[[[[]]]]}`), false)
	f.Add([]byte("\x00"), true)
	dir := Dir(f.TempDir())
	f.Fuzz(func(t *testing.T, content []byte, pending bool) {
		path := dir.path(k)
		if pending {
			path += pendingSuffix
		}
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = dir.Network(k.Network)
		_, _ = dir.Networks()
		_, _ = dir.Any(k.Network, func(string) bool { return true }, func(r Record) bool { return r.Plugin == "x" })
		_, _ = dir.Read(k)
		if p, err := dir.Peek(k); err != nil || p.Key != k {
			t.Errorf("%q: is taken for that of %+v", content, p.Key)
		}
		e, err := dir.Open(t.Context(), k)
		if err != nil {
			if !errors.Is(err, errLater) {
				t.Fatalf("%q: %v", content, err)
			}
			_ = os.Remove(path)
			return
		}
		if e.Key != k {
			t.Errorf("%q: is taken for that of %+v", content, e.Key)
		}
		if err := errors.Join(e.Remove(), e.Close()); err != nil {
			t.Errorf("%q: %v", content, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: stays: %v", content, err)
		}
	})
}
