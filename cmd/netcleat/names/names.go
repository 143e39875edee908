// Package names is what hosts tell each other of the names of containers: an attachment
// to an overlay network as the cluster has it, and the files that the dns daemon reads.
//
// Whoever can write to etcd can give wrong names, and must not be able to do more. So
// what is read from there is typed and bounded, and says nothing but names and addresses:
// a host has the domain of a network, its gateways and its servers from its own records.
package names

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/slot"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// Attachment is the names of a container on one network.
type Attachment struct {
	// Names are the container's, the first of them its own. Aliases may be those of
	// others, too.
	Names   []string     `json:"names,omitempty"`
	Aliases []string     `json:"aliases,omitempty"`
	Addrs   []netip.Addr `json:"addrs"` // one of each family
}

// Bounds of what is read.
const (
	maxText  = 32 << 10 // of an attachment, in bytes
	maxNames = 128      // of an attachment, with aliases
	maxFile  = 4 << 20  // of a host's names on a network, in bytes
	// MaxAttachments is how many of a host's attachments to a network others know.
	MaxAttachments = 1 << 14
)

// Parse reads what another host says of an attachment.
func Parse(text string) (a Attachment, err error) {
	if len(text) > maxText {
		return a, fmt.Errorf("names: longer than %d bytes", maxText)
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("names: %w", err)
	}
	_, err = a.Text() // as it is kept it may be longer
	return a, err
}

// Text is what others are told.
func (a *Attachment) Text() (string, error) {
	if err := a.check(); err != nil {
		return "", err
	}
	b, err := json.Marshal(a)
	if len(b) > maxText {
		err = fmt.Errorf("names: longer than %d bytes", maxText)
	}
	return string(b), err
}

// All are the names that the attachment answers to.
func (a *Attachment) All() []string { return slices.Concat(a.Names, a.Aliases) }

func (a *Attachment) check() error {
	all := a.All()
	if len(all) == 0 || len(all) > maxNames {
		return fmt.Errorf("names: %d of them, want 1 to %d", len(all), maxNames)
	}
	for i, n := range all {
		if c, ok := dnsname.Canonical(n); !ok || c != n || slices.Contains(all[:i], n) {
			return fmt.Errorf("names: %.80q", n)
		}
	}
	if len(a.Addrs) == 0 || len(a.Addrs) > 2 || len(a.Addrs) == 2 && a.Addrs[0].Is4() == a.Addrs[1].Is4() {
		return errors.New("addrs: want one of each family")
	}
	for _, ip := range a.Addrs {
		if !ip.IsValid() || ip.Is4In6() || ip.Zone() != "" {
			return fmt.Errorf("addrs: %.80q", ip)
		}
	}
	return nil
}

// ID is an attachment among those of its host and network: CONTAINER:IFNAME.
func ID(container, ifName string) string { return container + ":" + ifName }

// IsID reports whether s can be an ID. Others are not published.
func IsID(s string) bool {
	container, ifName, ok := strings.Cut(s, ":")
	return ok && slot.IsHost(container) && nl.IsName(ifName)
}
