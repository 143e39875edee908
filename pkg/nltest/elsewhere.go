package nltest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// Elsewhere are changes of records, which then are of another host's network
// namespace, or of another boot, than they were made in. What such a record names by
// index or name is another's here.
var Elsewhere = map[string]func(*Bed){
	"another host":    func(b *Bed) { b.rewrite(`"hostID":\{[^}]*\}`, `"hostID":{"dev":4,"ino":1,"cookie":1}`) },
	"an earlier boot": func(b *Bed) { b.rewrite(`"boot":\d+`, `"boot":1`) },
}

// rewrite changes what all records say.
func (b *Bed) rewrite(pattern, to string) {
	b.t.Helper()
	re, changed := regexp.MustCompile(pattern), 0
	must(b.t, filepath.WalkDir(string(b.Journal()), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !re.Match(text) {
			return err
		}
		changed++
		return os.WriteFile(path, re.ReplaceAll(text, []byte(to)), 0o600)
	}))
	if changed == 0 {
		b.t.Fatalf("no record has %s", pattern)
	}
}
