package house

import (
	"os"
	"testing"

	"golang.org/x/tools/go/packages"
)

// platforms are those of the reference's releases, but for amd64, for which all is
// built: arm and 386 have short ints, mips64le other types in its system calls,
// s390x the other order of bytes.
var platforms = []string{"386", "arm", "arm64", "mips64le", "ppc64le", "riscv64", "s390x"}

// All packages and their tests are right by their types on every platform, which
// takes a tenth of the time that a build would.
func TestPlatforms(t *testing.T) {
	for _, arch := range platforms {
		conf := &packages.Config{
			Context: t.Context(), Dir: root, Env: append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch), Tests: true,
			Mode: packages.NeedName | packages.NeedImports | packages.NeedDeps | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesSizes,
		}
		all, err := packages.Load(conf, "./...")
		if err != nil {
			t.Fatal(err)
		}
		packages.Visit(all, nil, func(p *packages.Package) {
			for _, e := range p.Errors {
				t.Errorf("%s: %v", arch, e)
			}
		})
	}
}
