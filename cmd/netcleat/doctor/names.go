package doctor

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// names looks whether the names of containers are answered.
func (e *exam) names(ctx context.Context) {
	named := 0
	for _, a := range e.all {
		i := slices.IndexFunc(a.Records, func(r journal.Record) bool { return r.Plugin == dnsname.Name })
		if i < 0 {
			continue
		}
		named++
		err := dnsname.Verify(ctx, e.Journal, a.Records[i].Key)
		switch {
		case errors.Is(err, dnsname.ErrNoDaemon):
			e.add(finding.Problem, finding.Run("netcleat dns start"), "names of containers are not answered: the dns daemon does not run%s", lastWords(e.Journal))
			return
		case err != nil:
			e.add(finding.Problem, finding.Do("what listens there is shown by: ss -lnp sport = :53; netcleat dns status shows what the daemon answers"), "%s: %v", a, err)
		}
	}
	if named > 0 && !dnsname.UnitInstalled() {
		e.add(finding.Note, finding.Do("install netcleat-dns.socket and .service of docs/systemd"), "the dns daemon is not started by systemd: if it is killed, names are back with the next ADD only")
	}
}

// lastWords is the last line of the daemon's log, if the plugin has started it.
func lastWords(dir journal.Dir) string {
	b, err := os.ReadFile(dnsname.LogOf(dir))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if last := lines[len(lines)-1]; err == nil && last != "" {
		return " (its last words: " + last + ")"
	}
	return ""
}
