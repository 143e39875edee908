package explain

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/lease"
)

// lease looks whether the IPAM plugin holds the addresses for this container: who else
// would be given them?
func (x *exam) lease() error {
	if !lease.KeptBy(x.ipam()) {
		return nil
	}
	dir := lease.DirOf(x.confs[0].IPAM.DataDir, x.row.Network)
	for _, h := range x.hops() {
		a := h.addr.Addr()
		file := filepath.Join(dir, a.String())
		b, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		id, ifName, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		id = strings.TrimSpace(id)
		have := ""
		switch {
		case len(b) == 0:
			have = "there is none: another container may be given it"
		case id != x.row.Container:
			have = "container " + id + " has it"
		case ifName != "" && ifName != x.row.Interface:
			have = "the container's " + ifName + " has it"
		}
		m := show.TakeLease(file, x.row)
		if id != "" && id != x.row.Container {
			m = finding.Do("detach one of the two with its runtime")
		}
		x.judge(x.ipam(), string(LeaseOf(a.String())), have, m)
		x.about(LeaseOf(a.String()))
	}
	return nil
}
