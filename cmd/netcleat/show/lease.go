package show

import (
	"fmt"

	"github.com/netcleat/netcleat/cmd/netcleat/finding"
)

// TakeLease is the command that writes host-local's lease of an address for an
// attachment that has it.
func TakeLease(file string, r Row) finding.Mend {
	return finding.Run(fmt.Sprintf(`printf '%%s\r\n%%s' %s %s >%s`, finding.Quote(r.Container), finding.Quote(r.Interface), finding.Quote(file)))
}
