package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// owner says whose a file is.
type owner int

const (
	nobody    owner = iota // there is no file
	ours                   // netcleat's
	reference              // containernetworking/plugins'
	foreign                // somebody else's: never replaced unasked
)

// occupant is what stands under a plugin's name.
type occupant struct {
	owner   owner
	version string // "v1.9.1"; "" where it cannot be told
	sum     string // SHA-256; "" where there is no file
}

func (o occupant) String() string {
	switch o.owner {
	case nobody:
		return "nothing"
	case ours:
		return strings.TrimSpace("netcleat " + o.version)
	case reference:
		return strings.TrimSpace("the reference's " + o.version)
	default:
		return "a file that is neither netcleat's nor the reference's"
	}
}

// The Go modules whose programs may be replaced.
const (
	ownModule       = "github.com/netcleat/netcleat"
	referenceModule = "github.com/containernetworking/plugins"
)

// identify tells whose the file at path is. Go records in every program what it
// was built from. Only where that record is missing, as in distributions' old
// packages, the file is run to see whether it answers as the reference does.
func identify(ctx context.Context, path string) (occupant, error) {
	who, err := inspect(ctx, path)
	if err != nil || who.owner == nobody {
		return who, err
	}
	who.sum, err = checksum(path)
	if errors.Is(err, fs.ErrNotExist) {
		return who, nil // a symbolic link to nowhere
	}
	return who, err
}

// checksum returns the SHA-256 of a file; "" for what is no file.
func checksum(path string) (sum string, err error) {
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// short is as much of a checksum as a line needs.
func (o occupant) short() string {
	const digits = 12
	if len(o.sum) < digits {
		return ""
	}
	return "sha256:" + o.sum[:digits]
}

func inspect(ctx context.Context, path string) (occupant, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err == nil {
			return occupant{owner: foreign}, nil // a symbolic link to nowhere
		}
		return occupant{owner: nobody}, nil
	}
	if err != nil {
		return occupant{}, err
	}
	if !st.Mode().IsRegular() {
		return occupant{owner: foreign}, nil
	}
	who := builder(path)
	if who == foreign {
		return occupant{owner: foreign}, nil
	}
	version := aboutVersion(ctx, path)
	if who == nobody {
		if version == "" {
			return occupant{owner: foreign}, nil
		}
		who = reference
	}
	return occupant{owner: who, version: version}, nil
}

// builder reads from a program whose it is; nobody means that it does not say.
func builder(path string) owner {
	info, err := buildinfo.ReadFile(path)
	switch {
	case err != nil && isELF(path):
		return nobody
	case err != nil:
		return foreign // a script, say
	case within(info.Main.Path, ownModule), within(info.Path, ownModule):
		return ours
	case within(info.Main.Path, referenceModule), within(info.Path, referenceModule):
		return reference
	case info.Main.Path == "":
		return nobody
	default:
		return foreign
	}
}

// within reports whether a package is the module's, or a module that one.
func within(path, module string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func isELF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	magic := make([]byte, 4)
	_, err = f.Read(magic)
	return err == nil && string(magic) == "\x7fELF"
}

// answerTime bounds how long a program may take to say what it is.
const answerTime = 10 * time.Second

// aboutVersion runs the plugin at path without a verb and returns the version
// in "CNI <name> plugin <version>", or "" where it says nothing of the kind.
func aboutVersion(ctx context.Context, path string) string {
	out, _ := run(ctx, path, path) // a program that fails has said nothing
	line, _, _ := strings.Cut(out, "\n")
	rest, ok := strings.CutPrefix(line, "CNI "+filepath.Base(path)+" plugin ")
	if !ok {
		return ""
	}
	version, _, _ := strings.Cut(rest, " ")
	return version
}

// run runs a program under the name argv0, with nothing in its environment, and
// returns what it writes to standard error.
func run(ctx context.Context, path, argv0 string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Args, cmd.Env = []string{argv0}, []string{}
	cmd.Stderr, cmd.WaitDelay = &stderr, time.Second
	err := cmd.Run()
	return stderr.String(), err
}

// pluginNames asks a plugin binary of ours which plugins it holds: run under a
// name that is no plugin's, it lists them on a line of their own.
func pluginNames(ctx context.Context, binary string) ([]string, error) {
	if who := builder(binary); who != ours {
		return nil, fmt.Errorf("plugin binary %s: not a program of netcleat", binary)
	}
	out, err := run(ctx, binary, "cni")
	for line := range strings.SplitSeq(out, "\n") {
		if names := strings.Fields(line); strings.HasPrefix(line, "  ") && len(names) > 0 {
			return names, nil
		}
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("plugin binary %s: %w", binary, err)
	}
	return nil, fmt.Errorf("plugin binary %s: lists no plugins", binary)
}

// Installed says for each of the plugins' names that the directory has whose file it
// is: "netcleat v1.9.1", "the reference's v1.9.1".
func Installed(ctx context.Context, dir string, names []string) (map[string]string, error) {
	found := map[string]string{}
	for _, n := range names {
		o, err := identify(ctx, filepath.Join(dir, n))
		if err != nil {
			return found, err
		}
		if o.owner != nobody {
			found[n] = o.String()
		}
	}
	return found, nil
}
