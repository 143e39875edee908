package plugin

import (
	"fmt"
	"io"
	"time"

	"github.com/netcleat/netcleat/pkg/gate"
)

// debugGate prints each change to the kernel before it asks inner, with the time
// since the start, where CNI_DEBUG is set.
func debugGate(setting string, w io.Writer, inner gate.Gate) gate.Gate {
	if setting == "" || setting == "0" {
		return inner
	}
	start := time.Now()
	return func(what string) error {
		fmt.Fprintf(w, "netcleat: %8.3f ms  %s\n", float64(time.Since(start).Microseconds())/1000, what)
		return inner.Pass(what)
	}
}
