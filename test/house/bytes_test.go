package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Numbers of the kernel's are read by pkg/nl, which looks at the length, and
// nothing swaps bytes on every machine: s390x has the network's order.
func TestKernelNumbers(t *testing.T) {
	unchecked := regexp.MustCompile(`NativeEndian\.Uint|<< *8 *\| *\w+ *>> *8|ReverseBytes`)
	for _, top := range []string{"cmd", "pkg", "plugins"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			nl := strings.Contains(path, filepath.Join("pkg", "nl")+"/")
			for _, found := range unchecked.FindAllString(string(text), -1) {
				if !nl || !strings.HasPrefix(found, "Native") {
					t.Errorf("%s: %s: use nl.Uint32 and its like, and nl.NetworkOrder", path, found)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
