package ranges

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/netcleat/netcleat/pkg/cnierr"
)

// readResolvConf reads a resolver's configuration into the result's form.
func readResolvConf(path string) (types.DNS, error) {
	f, err := os.Open(path)
	if err != nil {
		return types.DNS{}, cnierr.With(cnierr.IOFailure, fmt.Errorf("resolvConf: %w", err))
	}
	defer func() { _ = f.Close() }()
	var dns types.DNS
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if len(field) < 2 || field[0][0] == '#' || field[0][0] == ';' {
			continue
		}
		switch field[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, field[1])
		case "domain":
			dns.Domain = field[1]
		case "search":
			dns.Search = append(dns.Search, field[1:]...)
		case "options":
			dns.Options = append(dns.Options, field[1:]...)
		}
	}
	if err := lines.Err(); err != nil {
		return types.DNS{}, cnierr.With(cnierr.IOFailure, fmt.Errorf("resolvConf %s: %w", path, err))
	}
	return dns, nil
}
