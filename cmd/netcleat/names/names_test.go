package names

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/journal"
)

const good = `{"names":["web"],"aliases":["app"],"addrs":["10.100.0.2","fd00:100::2"]}`

// What is written is read as it was.
func TestText(t *testing.T) {
	a, err := Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.Text()
	if err != nil || text != good {
		t.Errorf("%s: %v", text, err)
	}
}

// What another host says is names and addresses, and no more of them than one container
// can have.
func TestParseRefuses(t *testing.T) {
	many := make([]string, maxNames)
	for i := range many {
		many[i] = fmt.Sprintf(`"n%d"`, i)
	}
	for _, change := range [][2]string{
		{`"web"`, `"Web"`},
		{`"web"`, `"web."`},
		{`"web"`, `"two words"`},
		{`"web"`, `""`},
		{`"web"`, `"app"`},
		{`"web"`, strings.Join(many, ",")},
		{`["web"],"aliases":["app"]`, `[]`},
		{`"web"`, `7`},
		{`"10.100.0.2"`, `"10.100.0.2/16"`},
		{`"10.100.0.2"`, `"10.100.0.2","10.100.0.3"`},
		{`"10.100.0.2"`, `"fd00:100::3"`},
		{`"10.100.0.2"`, `""`},
		{`"10.100.0.2"`, `"::ffff:10.100.0.2"`},
		{`"fd00:100::2"`, `"fe80::1%eth0"`},
		{`"10.100.0.2","fd00:100::2"`, ``},
		{`}`, `}{}`},
		{`}`, strings.Repeat(" ", maxText) + `}`},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if a, err := Parse(text); err == nil {
			t.Errorf("%.200s: accepted as %+v", text, a)
		}
	}
}

// What cannot be kept is refused: the form in which an address is kept may be longer
// than that in which it came.
func TestParseRefusesWhatCannotBeKept(t *testing.T) {
	const frame = `{"names":[%s],"addrs":["fd00:100:1::a:b:c:d"]}`
	label := strings.Repeat("x", 63)
	var list []string
	left := maxText - len(frame) + len("%s")
	for i := range maxNames {
		name := fmt.Sprintf("n%03d.%s.%s.%s.", i, label, label, label) + strings.Repeat("y", 56)
		list = append(list, `"`+name[:min(len(name), left-len(`""`))]+`"`)
		left -= len(list[i]) + len(",")
	}
	text := fmt.Sprintf(frame, strings.Join(list, ","))
	if len(text) != maxText {
		t.Fatalf("%d bytes, want %d", len(text), maxText)
	}
	if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("accepted, or refused for another reason: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add(`{"names":["a"],"addrs":["::1"],"domain":"com","gateways":["10.0.0.1"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Parse(text)
		if err != nil {
			return
		}
		again, err := a.Text()
		if err != nil || len(again) > maxText || len(a.All()) > maxNames || len(a.Addrs) > 2 {
			t.Fatalf("%q: accepted, and then %q, %v", text, again, err)
		}
		if b, err := Parse(again); err != nil || !cmp.Equal(a.All(), b.All()) || !slices.Equal(a.Addrs, b.Addrs) {
			t.Errorf("%q, then %q: %v", text, again, err)
		}
	})
}

// A container with more aliases than others read has the first of them there.
func TestBound(t *testing.T) {
	for _, length := range []int{5, 63} {
		a := Attachment{Names: []string{"web"}, Addrs: []netip.Addr{netip.MustParseAddr("10.100.0.2")}}
		label := strings.Repeat("a", length)
		for i := range 1000 {
			a.Aliases = append(a.Aliases, fmt.Sprintf("n%d.%s.%[2]s.%[2]s", i, label))
		}
		a.bound()
		if _, err := a.Text(); err != nil || len(a.Aliases) < 100 || a.Aliases[0] != "n0."+strings.Join([]string{label, label, label}, ".") {
			t.Errorf("%d aliases of %d bytes: %v", len(a.Aliases), len(a.Aliases[0]), err)
		}
	}
}

func TestIsID(t *testing.T) {
	for id, want := range map[string]bool{
		"0123456789abcdef:eth0": true, "default-0123:net1": true, "a:" + strings.Repeat("x", 15): true,
		"": false, "a": false, ":eth0": false, "a:": false, "a/b:eth0": false, "..:eth0": false, "a:eth0/..": false, "a:b:c": false,
		strings.Repeat("a", 254) + ":eth0": false, "a:" + strings.Repeat("x", 16): false,
	} {
		if IsID(id) != want {
			t.Errorf("%.80q: %v", id, !want)
		}
	}
}

// The dns daemon reads what the cluster daemon has written, and no file of another name.
func TestFiles(t *testing.T) {
	dir := journal.Dir(t.TempDir())
	a, err := Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(all []Attachment, want bool) {
		t.Helper()
		if changed, err := Write(dir, "web", "h2", all); err != nil || changed != want {
			t.Errorf("changed %v: %v", changed, err)
		}
	}
	write(nil, false)
	write([]Attachment{a}, true)
	write([]Attachment{a}, false)
	if got, err := Read(dir, "web", "h2"); err != nil || len(got) != 1 || got[0].Names[0] != "web" {
		t.Errorf("%v, %v", got, err)
	}
	path := filepath.Join(string(dir), dirName, "web")
	if err := os.WriteFile(filepath.Join(path, ".h3"), []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, h := Networks(dir), Hosts(dir, "web"); !slices.Equal(n, []string{"web"}) || !slices.Equal(h, []string{"h2"}) {
		t.Errorf("%v %v", n, h)
	}
	if n, err := dir.Networks(); err != nil || len(n) > 0 {
		t.Errorf("the names of other hosts are taken for a network: %v, %v", n, err)
	}
	for _, n := range []string{"", "..", "a/b", ".h3"} {
		if got, err := Read(dir, "web", n); err == nil {
			t.Errorf("host %q: %v", n, got)
		}
		if got, err := Read(dir, n, "h2"); err == nil {
			t.Errorf("network %q: %v", n, got)
		}
	}
	if err := os.WriteFile(filepath.Join(path, "h2"), []byte("garbage\n"+good+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(dir, "web", "h2"); err == nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	write(nil, true)
	if got, err := Read(dir, "web", "h2"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}
