package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
)

// allow enforces the node's allowlist: a file of regular expressions, one a
// line, each matched anywhere in a sysctl's name as the configuration writes it.
// Where there is no file, everything below net/ is allowed.
func allow(path string, settings []setting) error {
	if len(settings) == 0 {
		return nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return cnierr.With(cnierr.IOFailure, fmt.Errorf("allowlist: %w", err))
	}
	var lines []string
	var list []*regexp.Regexp
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSpace(l); l == "" {
			continue
		}
		p, err := regexp.Compile(l)
		if err != nil {
			return cnierr.Config("allowlist %s: %w", path, err)
		}
		lines, list = append(lines, l), append(list, p)
	}
	for _, s := range settings {
		if !slices.ContainsFunc(list, func(p *regexp.Regexp) bool { return p.MatchString(s.Name) }) {
			return cnierr.Config("Sysctl %s is not allowed. Only the following sysctls are allowed: %+v", s.Name, lines)
		}
	}
	return nil
}
