// Command sbom writes what the built programs are made of, as CycloneDX JSON:
// every module whose code is linked in, read from the programs themselves.
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/plugin"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// document is the part of CycloneDX 1.5 that is used here. It names no time and
// no serial number: the same programs give the same document.
type document struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Ref     string `json:"bom-ref"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

func run(w io.Writer, programs []string) error {
	suite := module(&debug.Module{Path: "github.com/netcleat/netcleat", Version: "v" + plugin.Version})
	suite.Type = "application"
	doc := document{
		Schema: "http://cyclonedx.org/schema/bom-1.5.schema.json", Format: "CycloneDX", SpecVersion: "1.5", Version: 1,
		Metadata: metadata{suite},
	}
	libraries := map[string]component{}
	all := dependency{Ref: suite.Ref}
	for _, path := range programs {
		p, mods, err := program(path)
		if err != nil {
			return err
		}
		doc.Components = append(doc.Components, p)
		all.DependsOn = append(all.DependsOn, p.Ref)
		needs := dependency{Ref: p.Ref}
		for _, m := range mods {
			libraries[m.Ref] = m
			needs.DependsOn = append(needs.DependsOn, m.Ref)
		}
		doc.Dependencies = append(doc.Dependencies, needs)
	}
	doc.Dependencies = append(doc.Dependencies, all)
	for _, ref := range slices.Sorted(maps.Keys(libraries)) {
		doc.Components = append(doc.Components, libraries[ref])
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// program returns the program and the modules that it is linked from, the
// standard library among them.
func program(path string) (c component, mods []component, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return c, nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return c, nil, fmt.Errorf("%s: %w", path, err)
	}
	sum := sha256.Sum256(content)
	name := filepath.Base(path)
	c = component{
		Ref: "file:" + name, Type: "file", Name: name, Version: plugin.Version,
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
	}
	mods = []component{module(&debug.Module{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")})}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		mods = append(mods, module(m))
	}
	return c, mods, nil
}

// module is a module with its hash, which is that of go.sum.
func module(m *debug.Module) component {
	purl := "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B")
	c := component{Ref: purl, Type: "library", Name: m.Path, Version: m.Version, PURL: purl}
	if sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(sum) > 0 {
		c.Hashes = []hash{{"SHA-256", hex.EncodeToString(sum)}}
	}
	return c
}
