package dnsd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netcleat/netcleat/pkg/plugin"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

const busConfig = `<busconfig><type>system</type><listen>unix:path=BUS</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`

// withFirewalld starts a system bus and firewalld on the host.
func (w *town) withFirewalld(t *testing.T) {
	t.Helper()
	for _, program := range []string{"dbus-daemon", "firewalld", "firewall-cmd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is missing: make install-deps")
		}
	}
	bus, conf := filepath.Join(w.Dir, "bus"), filepath.Join(w.Dir, "bus.xml")
	must(t, os.WriteFile(conf, []byte(strings.Replace(busConfig, "BUS", bus, 1)), 0o600))
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+bus)
	for _, argv := range [][]string{
		{"dbus-daemon", "--nofork", "--nopidfile", "--config-file=" + conf},
		{"firewalld", "--nofork", "--nopid", "--log-file=" + filepath.Join(w.Dir, "log"), "--system-config=" + filepath.Join(w.Dir, "etc")},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.WaitDelay = time.Second
		must(t, w.Host.Do(cmd.Start))
		t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
		for range 500 {
			if _, err := os.Stat(bus); err == nil {
				break
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	for range 3000 {
		if _, ok := w.Try("firewall-cmd", "--state"); ok {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(w.Dir, "log"))
	t.Fatalf("firewalld does not start: %s", log)
}

// TestFirewalld: queries get in on a host with firewalld, again after its reload, and the
// last container takes the rules with it.
func TestFirewalld(t *testing.T) {
	w := newTown(t)
	web, db := named("web", 2), named("db", 3)
	cw, cd := w.call(web), w.call(db)
	w.withFirewalld(t)
	before := w.Run("firewall-cmd", "--list-all")
	w.Must(plugin.Add, cw)
	w.Must(plugin.Add, cd)
	w.opened(web.id)
	w.Must(plugin.Check, cw)
	w.Run("firewall-cmd", "--reload")
	w.want(asks{id: web.id, name: "db", patience: time.Second}, "silence")
	w.Fails(plugin.Check, cw, 102)
	r, err := w.Journal().Read(w.keyOf(web))
	must(t, err)
	must(t, dnsname.Reconcile(t.Context(), nil, w.Journal(), r))
	for _, server := range []string{"10.1.0.1", "fd01::1"} {
		w.want(asks{id: web.id, name: "db", server: server}, "10.1.0.3")
		w.want(asks{id: web.id, name: "db", server: server, tcp: true}, "10.1.0.3")
	}
	w.Must(plugin.Del, cw)
	w.want(asks{id: db.id, name: "db"}, "10.1.0.3")
	w.Must(plugin.Del, cd)
	if after := w.Run("firewall-cmd", "--list-all"); after != before {
		t.Errorf("rules were left:\n%s\nbefore:\n%s", after, before)
	}
}
