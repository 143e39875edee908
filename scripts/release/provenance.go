package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// object is one of JSON, whose keys are written in order.
type object map[string]any

const project = "https://github.com/netcleat/netcleat"

// provenance says what the files were made from, as SLSA's provenance 1.0 in a statement of in-toto. It is not
// signed: whoever publishes the release signs it.
func (m *maker) provenance(archs []string) error {
	var subjects []object
	for _, name := range slices.Sorted(slices.Values(m.made)) {
		sum, err := m.sum(name)
		if err != nil {
			return err
		}
		subjects = append(subjects, object{"name": name, "digest": object{"sha256": sum}})
	}
	builder := os.Getenv("BUILDER_ID")
	if builder == "" {
		builder = project + "/blob/main/Makefile"
	}
	statement := object{
		"_type": "https://in-toto.io/Statement/v1", "subject": subjects,
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": object{
			"buildDefinition": object{
				"buildType":            project + "/blob/main/docs/release.md",
				"externalParameters":   object{"version": m.version, "archs": archs},
				"internalParameters":   object{"go": runtime.Version(), "sourceDateEpoch": m.time.Unix()},
				"resolvedDependencies": []object{{"uri": "git+" + project, "digest": object{"gitCommit": m.revision}}},
			},
			"runDetails": object{"builder": object{"id": builder}},
		},
	}
	content, err := json.MarshalIndent(statement, "", "  ")
	if err != nil {
		return err
	}
	return m.write("netcleat-v"+m.version+".provenance.json", append(content, '\n'))
}

// checksums writes NAME.sha256 for each file, as the reference's releases have, and SHA256SUMS for all.
func (m *maker) checksums() error {
	var all strings.Builder
	for _, name := range slices.Sorted(slices.Values(m.made)) {
		sum, err := m.sum(name)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s  %s\n", sum, name)
		all.WriteString(line)
		if err := os.WriteFile(filepath.Join(m.out, name+".sha256"), []byte(line), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(m.out, "SHA256SUMS"), []byte(all.String()), 0o644)
}

func (m *maker) sum(name string) (string, error) {
	content, err := os.ReadFile(filepath.Join(m.out, name))
	return fmt.Sprintf("%x", sha256.Sum256(content)), err
}
