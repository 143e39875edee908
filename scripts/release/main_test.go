package main

import "testing"

func TestSection(t *testing.T) {
	const changelog = "# Changelog\n\n## Unreleased\n\n## 1.10.1 - 2026-12-31\n\n### Fixed\n\n- a\n\n## 1.10\n\nb\n"
	for name, want := range map[string]string{"Unreleased": "", "1.10.1": "### Fixed\n\n- a", "1.10": "b", "1.1": ""} {
		if got := section(changelog, name); got != want {
			t.Errorf("%s: want %q, got %q", name, want, got)
		}
	}
}
