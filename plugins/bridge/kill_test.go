package bridge

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func TestMain(m *testing.M) {
	if at := os.Getenv("KILL_AT"); at != "" {
		os.Exit(runKilled(at))
	}
	os.Exit(m.Run())
}

// runKilled is a process that answers one call, unless kill -9 comes before the
// change numbered at, or for "written" between its result and its end.
func runKilled(at string) int {
	n, _ := strconv.Atoi(at)
	seen := 0
	p := plugin.Process{
		Name: "bridge", Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Journal: journal.Dir(os.Getenv("JOURNAL")),
		Gate: func(string) error {
			if seen++; seen == n {
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			}
			return nil
		},
	}
	if at == "written" {
		p.Stdout = lastWords{}
	}
	return p.Run(context.Background(), table(dualStack()))
}

type lastWords struct{}

func (lastWords) Write(b []byte) (int, error) {
	_, _ = os.Stdout.Write(b)
	return len(b), unix.Kill(os.Getpid(), unix.SIGKILL)
}

// kill runs the verb in a process that is killed and reports whether it was.
func kill(t *testing.T, bed *nltest.Bed, verb, at string, c nltest.Call) bool {
	t.Helper()
	bin := t.TempDir()
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(bin, "stub"))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Stdin, cmd.Stderr = strings.NewReader(c.Conf), io.Discard
	cmd.Env = append(os.Environ(), "KILL_AT="+at, "JOURNAL="+string(bed.Journal()), "CNI_COMMAND="+verb,
		"CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS="+bed.Path, "CNI_PATH="+bin)
	out, err := cmd.Output()
	switch code := cmd.ProcessState.ExitCode(); code {
	case 0:
		return false
	case -1:
		return true
	default:
		t.Fatalf("%s: exit %d: %v %s", verb, code, err, out)
		return false
	}
}

// Wherever an ADD or a DEL is killed, the next call gets on with it.
func TestKilled(t *testing.T) {
	for _, verb := range []string{plugin.Add, plugin.Del} {
		for at, killed := 1, true; killed && !t.Failed(); at++ {
			killed = false // where it is skipped, too
			t.Run(fmt.Sprintf("%s before change %d", verb, at), func(t *testing.T) {
				killed = killedAt(t, verb, fmt.Sprint(at))
			})
		}
	}
	t.Run("result written", func(t *testing.T) { killedAt(t, plugin.Add, "written") })
}

func killedAt(t *testing.T, verb, at string) bool {
	t.Helper()
	bed := nltest.New(t)
	stub := dualStack()
	c := call(stub, `"isGateway":true,"ipMasq":true,"macspoofchk":true`)
	if verb == plugin.Del {
		bed.Must(plugin.Add, c)
	}
	killed := kill(t, bed, verb, at, c)
	if !killed && verb == plugin.Add {
		return false
	}
	then := []string{plugin.Add, plugin.Del}
	if verb == plugin.Del { // killed before its first change it has left a live attachment
		then = []string{plugin.Del, plugin.Add, plugin.Del}
	}
	for _, next := range then {
		bed.Must(next, c)
		if next == plugin.Add {
			pings(t, bed, stub)
		}
	}
	left := bed.IP("-br", "link", "show", "type", "veth") + bed.Run("nft", "list", "ruleset")
	if records, err := bed.Journal().Network("net"); left != "" || len(records) > 0 || err != nil {
		t.Errorf("left behind: %s %v %v", left, records, err)
	}
	return killed
}
