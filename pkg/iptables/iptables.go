// Package iptables changes rules by iptables-restore: one process and one
// transaction for all changes of a table. It is for hosts whose configuration or
// kernel wants iptables; what iptables-nft made can also be read and removed by
// package nft, without a process.
package iptables

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/file"
	"github.com/netcleat/netcleat/pkg/gate"
	"github.com/netcleat/netcleat/pkg/sha2"
)

// Tool is one variant of iptables for one family.
type Tool struct {
	V6     bool
	Legacy bool // the variant for the kernel's old ip_tables, whatever is the host's default
}

// Both returns the IPv4 and the IPv6 tool.
func Both(legacy bool) []Tool {
	return []Tool{{Legacy: legacy}, {V6: true, Legacy: legacy}}
}

// Present returns the tools whose tables the host has: the installed ones that
// write to nf_tables, and those of old ip_tables where it has the table.
func Present(table string) []Tool {
	return slices.DeleteFunc(slices.Concat(Both(false), Both(true)), func(t Tool) bool {
		return t.Legacy && !t.Loaded(table) || !t.Legacy && (!t.Installed() || !t.Translated())
	})
}

func (t Tool) program(verb string) string {
	name := "iptables"
	if t.V6 {
		name = "ip6tables"
	}
	if t.Legacy {
		name += "-legacy"
	}
	return name + "-" + verb
}

// Loaded reports whether the kernel's old ip_tables (or ip6_tables) has the
// table in the calling thread's namespace.
func (t Tool) Loaded(table string) bool {
	names := "/proc/thread-self/net/ip_tables_names"
	if t.V6 {
		names = "/proc/thread-self/net/ip6_tables_names"
	}
	b, err := file.Read(names)
	return err == nil && slices.Contains(strings.Fields(string(b)), table)
}

// LegacyLoaded reports whether either family has the old table.
func LegacyLoaded(table string) bool {
	return slices.ContainsFunc(Both(true), func(t Tool) bool { return t.Loaded(table) })
}

// wait bounds how long iptables waits for the lock on the legacy tables, in
// seconds.
const wait = "30"

// Restore makes the changes that script describes in iptables-restore's form,
// leaving everything else as it is.
func (t Tool) Restore(ctx context.Context, g gate.Gate, what, script string) error {
	name := t.program("restore")
	if err := g.Pass(name + ": " + what); err != nil {
		return fmt.Errorf("%s: %s: %w", name, what, err)
	}
	_, err := t.run(ctx, name, script, "--noflush", "-w", wait)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Save returns the rules of a table in iptables-save's form, a line each. Where
// the tool is not installed there are none.
func (t Tool) Save(ctx context.Context, table string) ([]string, error) {
	out, err := t.run(ctx, t.program("save"), "", "-t", table)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Split(out, "\n"), err
}

// Installed reports whether the host has the tool.
func (t Tool) Installed() bool {
	_, err := find(t.program("restore"))
	return err == nil
}

// Translated reports whether the tool's rules end up in nf_tables, where package
// nft can read and delete them.
func (t Tool) Translated() bool {
	path, err := find(t.program("restore"))
	if err != nil || t.Legacy {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	return err == nil && !strings.Contains(filepath.Base(real), "legacy")
}

func (t Tool) run(ctx context.Context, name, stdin string, args ...string) (string, error) {
	path, err := find(name)
	if err != nil {
		return "", err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 4 {
		return "", cnierr.Newf(cnierr.TryAgain, "%s: %s", name, bytes.TrimSpace(errs.Bytes())) // the lock is held
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// find looks for a program in PATH, and where runtimes with a bare PATH would
// miss it.
func find(name string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin", "/usr/local/sbin") {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); dir != "" && err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: not installed: %w", name, fs.ErrNotExist)
}

// maxChain is how long a chain's name may be, in bytes.
const maxChain = 28

// CheckChain refuses with code 7 what is no name of a chain: scripts hold it as
// it is, and it must not bring them another word or line.
func CheckChain(key, name string) error {
	outside := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'\\`, r) }
	switch {
	case len(name) > maxChain:
		return cnierr.Config("%s %q: longer than %d characters", key, name, maxChain)
	case name == "", strings.HasPrefix(name, "-"), strings.HasPrefix(name, "!"), strings.ContainsFunc(name, outside):
		return cnierr.Config("%s %q: not a name that a chain can have", key, name)
	}
	return nil
}

// CheckWords refuses with code 7 words that Quote cannot write: a script's line
// ends where a word has its end of line.
func CheckWords(key string, words []string) error {
	for _, w := range words {
		if strings.ContainsFunc(w, unicode.IsControl) {
			return cnierr.Config("%s %q: has a control character", key, w)
		}
	}
	return nil
}

// Quote writes s as one word of a script.
func Quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// Hash returns the first n hex digits of the SHA-512 of s, as the names of the
// reference's chains have them.
func Hash(n int, s string) string {
	sum := sha2.Sum512([]byte(s))
	return hex.EncodeToString(sum[:])[:n]
}

// maxComment is how long a comment may be, in bytes.
const maxComment = 255

// Comment is what the reference writes beside the rules of a container, after
// kind; cut where iptables does not take it.
func Comment(kind, network, containerID string) string {
	c := fmt.Sprintf("%sname: %q id: %q", kind, network, containerID)
	if len(c) > maxComment {
		c = c[:maxComment-len("...")] + "..."
	}
	return c
}
