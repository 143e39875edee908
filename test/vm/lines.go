package main

import (
	"fmt"
	"os"
	"strings"
)

// entry is one line of a list such as kernels.txt: a value and what is said about it.
type entry struct{ value, comment string }

// readEntries reads a list: a line holds a value and, after a #, a comment. Empty lines and lines of comment do not count.
func readEntries(file string) ([]entry, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseEntries(string(b)), nil
}

func parseEntries(text string) []entry {
	var list []entry
	for line := range strings.Lines(text) {
		value, comment, _ := strings.Cut(line, "#")
		if value = strings.TrimSpace(value); value != "" {
			list = append(list, entry{value, strings.TrimSpace(comment)})
		}
	}
	return list
}

// readSkips reads the skips that are allowed. Each needs a reason: a list without reasons only grows.
func readSkips(file string) ([]string, error) {
	entries, err := readEntries(file)
	if err != nil {
		return nil, err
	}
	var messages []string
	for _, e := range entries {
		if e.comment == "" {
			return nil, fmt.Errorf("%s: %q: no reason given", file, e.value)
		}
		messages = append(messages, e.value)
	}
	return messages, nil
}
