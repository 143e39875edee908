package overlay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/netcleat/netcleat/cmd/netcleat/create"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

// Underlay is what a host says for all its overlay networks.
type Underlay struct {
	Dev  string // the interface to the other hosts
	Port int    // 0: VXLAN's
}

type conflist struct {
	CNIVersion  string   `json:"cniVersion"`
	CNIVersions []string `json:"cniVersions"`
	Name        string   `json:"name"`
	DisableGC   bool     `json:"disableGC"`
	Mark        string   `json:"netcleat.dev/made-by"`
	Plugins     []any    `json:"plugins"`
}

// mark is what tells the files that the cluster's daemon has written from all others.
const mark = "cluster"

type bridge struct {
	Type      string     `json:"type"`
	Bridge    string     `json:"bridge"`
	IsGateway bool       `json:"isGateway,omitempty"`
	IPMasq    bool       `json:"ipMasq,omitempty"`
	Hairpin   bool       `json:"hairpinMode"`
	MTU       int        `json:"mtu,omitempty"`
	VXLAN     uplinkKey  `json:"vxlan"`
	Caps      capability `json:"capabilities"`
	IPAM      ipam       `json:"ipam"`
}

type uplinkKey struct {
	ID   int    `json:"id"`
	Dev  string `json:"dev"`
	Port int    `json:"port,omitempty"`
}

type capability struct {
	IPs   bool `json:"ips,omitempty"`
	Ports bool `json:"portMappings,omitempty"`
	Alias bool `json:"aliases,omitempty"`
}

type ipam struct {
	Type   string      `json:"type"`
	Ranges [][]ipRange `json:"ranges"`
	Routes []route     `json:"routes,omitempty"`
}

type ipRange struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway"`
}

type route struct {
	Dst string `json:"dst"`
}

type chained struct {
	Type    string      `json:"type"`
	Domain  string      `json:"domainName,omitempty"`
	Caps    *capability `json:"capabilities,omitempty"`
	Ingress string      `json:"ingressPolicy,omitempty"`
}

// Conflist is the network's list of plugins on a host: what docker network create would
// make, with an uplink.
func (d *Definition) Conflist(u Underlay) ([]byte, error) {
	b := bridge{
		Type: "bridge", Bridge: d.bridge(), Hairpin: true, MTU: d.MTU, IsGateway: !d.Internal || d.Names, IPMasq: !d.Internal,
		VXLAN: uplinkKey{d.VNI, u.Dev, u.Port}, Caps: capability{IPs: true}, IPAM: ipam{Type: "cluster-local"},
	}
	for i, s := range d.Subnets {
		b.IPAM.Ranges = append(b.IPAM.Ranges, []ipRange{{s, d.Gateways[i]}})
		dst := "0.0.0.0/0"
		if s.Addr().Is6() {
			dst = "::/0"
		}
		if !d.Internal {
			b.IPAM.Routes = append(b.IPAM.Routes, route{dst})
		}
	}
	l := conflist{CNIVersion: "1.0.0", CNIVersions: []string{"1.0.0", "1.1.0"}, Name: d.Name, DisableGC: true, Mark: mark, Plugins: []any{b}}
	if !d.Internal {
		l.Plugins = append(l.Plugins, chained{Type: "portmap", Caps: &capability{Ports: true}}, chained{Type: "firewall", Ingress: "same-bridge"})
	}
	l.Plugins = append(l.Plugins, chained{Type: "tuning"})
	if d.Names {
		domain, _ := dnsname.Canonical("dns." + d.Name) // "" where the name cannot be a part of one
		l.Plugins = append(l.Plugins, chained{Type: dnsname.Name, Domain: domain, Caps: &capability{Alias: true}})
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	err := e.Encode(l)
	return out.Bytes(), err
}

// bridge is br-NAME, or where no link can have that name br- and a part of a hash.
func (d *Definition) bridge() string {
	const maxLinkName = 15
	if name := "br-" + d.Name; len(name) <= maxLinkName {
		return name
	}
	hash := sha256.Sum256([]byte(d.Name))
	return "br-" + hex.EncodeToString(hash[:6])
}

// Write writes the network's file, unless it is there. It does not touch files of
// others, and does not write what runtimes would find first: containerd takes that for
// its pods.
func (d *Definition) Write(ctx context.Context, dir string, u Underlay) (err error) {
	text, err := d.Conflist(u)
	if err != nil {
		return err
	}
	unlock, err := create.Lock(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	path := create.File(dir, d.Name)
	had, err := os.ReadFile(path)
	switch {
	case err == nil && !Made(had):
		return fmt.Errorf("%s: is not the cluster's, and stays", path)
	case err == nil && bytes.Equal(had, text):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := notFirst(dir, filepath.Base(path)); err != nil {
		return err
	}
	return create.Write(path, text)
}

// Made reports whether a file's content is the cluster's.
func Made(text []byte) bool {
	var l conflist
	return json.Unmarshal(text, &l) == nil && l.Mark == mark
}

// notFirst refuses a file that runtimes would find before all others.
func notFirst(dir, name string) error {
	names, err := create.Files(dir)
	if err != nil {
		return err
	}
	if len(names) > 0 && names[0] < name {
		return nil
	}
	return fmt.Errorf("%s: would be the first file there, of which runtimes take the network for all pods: create the default network first", filepath.Join(dir, name))
}
