package clusterlocal

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/pkg/boot"
	"github.com/netcleat/netcleat/pkg/file"
	"github.com/netcleat/netcleat/pkg/ranges"
	"github.com/netcleat/netcleat/pkg/slot"
)

// blocksDir is where the daemon says what this host owns, below the journal. No
// network's name begins with a dot.
const blocksDir = ".cluster"

// BlocksFile returns the file with the blocks of a network. It is below /run, and
// names the boot: after a boot nothing is used before the daemon has confirmed it.
func BlocksFile(journal, network string) string {
	return filepath.Join(journal, blocksDir, network)
}

// errUnconfirmed says that there is no file with blocks of this boot.
var errUnconfirmed = errors.New("no block of this host is confirmed since the boot")

const blocksHead = "netcleat blocks 1"

// EncodeBlocks is the content of the file.
func EncodeBlocks(p *Pool, parts slot.Parts) []byte {
	b := fmt.Appendf(nil, "%s\nboot %x\nleases %q\nlayout %s\n", blocksHead, boot.ID(), p.Dir, p.Layout)
	for _, part := range parts {
		b = fmt.Appendf(b, "part %d %d %d\n", part.Slot, part.Off, part.Bits)
	}
	return b
}

// ReadBlocks returns the parts that this host may hand out of.
func ReadBlocks(journal string, p *Pool) (slot.Parts, error) {
	if journal == "" {
		return nil, errUnconfirmed
	}
	path := BlocksFile(journal, p.Name)
	text, err := file.Read(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errUnconfirmed
	}
	if err != nil {
		return nil, err
	}
	parts, err := decodeBlocks(string(text), p)
	if err != nil && !errors.Is(err, errUnconfirmed) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return parts, err
}

func decodeBlocks(text string, p *Pool) (parts slot.Parts, err error) {
	line, rest, _ := strings.Cut(text, "\n")
	if line != blocksHead {
		return nil, fmt.Errorf("%w: %.40q: another version's file", errUnconfirmed, line)
	}
	head := map[string]string{}
	for line := range strings.Lines(rest) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if key != "part" {
			head[key] = value
			continue
		}
		part, err := decodePart(value, p.Layout)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	if id := strconv.FormatUint(boot.ID(), 16); head["boot"] != id {
		return nil, errUnconfirmed
	}
	if dir, err := strconv.Unquote(head["leases"]); err != nil || dir != p.Dir {
		return nil, fmt.Errorf("the leases of this network are in %s on this host; this configuration's dataDir says %s", head["leases"], p.Dir)
	}
	if head["layout"] != p.Layout.String() {
		return nil, fmt.Errorf("the cluster has the network cut as %q, this configuration as %q: the subnets and blockSize must be the same on all hosts", head["layout"], p.Layout)
	}
	return parts, nil
}

func decodePart(s string, l slot.Layout) (p slot.Part, err error) {
	f := strings.Fields(s)
	if len(f) != 3 {
		return p, fmt.Errorf("part %.80q", s)
	}
	p.Slot, err = strconv.ParseUint(f[0], 10, 64)
	if err == nil {
		p.Off, err = strconv.ParseUint(f[1], 10, 64)
	}
	n, nerr := strconv.ParseUint(f[2], 10, 6)
	if err != nil || nerr != nil || p.Slot >= l.Slots() || n > uint64(l.Bits()) || p.Off>>l.Bits() != 0 || p.Off&(1<<n-1) != 0 {
		return p, fmt.Errorf("part %.80q: not in the network", s)
	}
	p.Bits = uint8(n)
	return p, nil
}

// owned returns what this host may hand out of each set. It is called with the
// leases locked, under which the daemon changes the file.
func owned(journal string, p *Pool) ([]ranges.Set, error) {
	parts, err := ReadBlocks(journal, p)
	if err != nil {
		return nil, err
	}
	sets := make([]ranges.Set, len(p.Sets))
	for i := range sets {
		sets[i] = p.Usable(i, parts)
	}
	return sets, nil
}

// slotsOf cuts the subnets.
func slotsOf(subnets [][]netip.Prefix, blockSize int) (slot.Layout, error) {
	for _, set := range subnets {
		if !slices.IsSortedFunc(set, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) {
			slices.SortFunc(set, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		}
	}
	return slot.New(subnets, blockSize)
}

// HasBlocks reports whether there is a file that the plugin accepts.
func HasBlocks(journal string, p *Pool) bool {
	_, err := ReadBlocks(journal, p)
	return err == nil
}
