// Package schema is the JSON Schema of network configurations: of a list, and of
// each plugin in it. The files beside it are made from the plugins' types and the
// tables of their README.md (generate_test.go), so that there is one source of
// which keys there are.
//
// They are of draft 7, since that is what editors complete by: those built upon
// VS Code's language server read draft 2020-12 in part only.
package schema

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.json
var files embed.FS

// List is the name of the schema of a list of plugins.
const List = "conflist"

// Schema is a JSON Schema, as far as these need it.
type Schema struct {
	Schema               string             `json:"$schema,omitempty"`
	Title                string             `json:"title,omitempty"`
	Description          string             `json:"description,omitempty"`
	Type                 string             `json:"type,omitempty"`
	Const                string             `json:"const,omitempty"`
	Enum                 []string           `json:"enum,omitempty"`
	Examples             []string           `json:"examples,omitempty"`
	Minimum              *int               `json:"minimum,omitempty"`
	Required             []string           `json:"required,omitempty"`
	Properties           map[string]*Schema `json:"properties,omitempty"`
	PatternProperties    map[string]*Schema `json:"patternProperties,omitempty"`
	AdditionalProperties any                `json:"additionalProperties,omitempty"` // false, or a schema
	Items                *Schema            `json:"items,omitempty"`
	AnyOf                []*Schema          `json:"anyOf,omitempty"`
	AllOf                []*Schema          `json:"allOf,omitempty"`
	If                   *Schema            `json:"if,omitempty"`
	Then                 *Schema            `json:"then,omitempty"`
	Ref                  string             `json:"$ref,omitempty"`
	Definitions          map[string]*Schema `json:"definitions,omitempty"`
}

// Names returns the plugins that have a schema, sorted.
func Names() []string {
	all, err := fs.Glob(files, "*.json")
	if err != nil {
		return nil // the pattern is right
	}
	for i, f := range all {
		all[i] = strings.TrimSuffix(f, ".json")
	}
	return slices.DeleteFunc(all, func(n string) bool { return n == List })
}

// Text returns the schema of that name, List or a plugin's, as published.
func Text(name string) ([]byte, error) {
	b, err := files.ReadFile(name + ".json")
	if err != nil {
		return nil, fmt.Errorf("schema %q: there is none; there are: %s", name, strings.Join(Names(), ", "))
	}
	return b, nil
}

// Read returns the schema of that name, List or a plugin's.
func Read(name string) (*Schema, error) {
	b, err := Text(name)
	if err != nil {
		return nil, err
	}
	s := &Schema{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("schema %q: %w", name, err)
	}
	return s, nil
}

// Closed reports whether an object has no keys but those that the schema names.
func (s *Schema) Closed() bool { return s.AdditionalProperties == false }
