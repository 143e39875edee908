package house

import (
	"os"
	"testing"

	"golang.org/x/tools/go/packages"
)

// platforms are those of the reference's releases that differ from amd64 in more
// than their instructions: arm has short ints, mips64le other types in its system
// calls, s390x the other order of bytes. arm64, ppc64le and riscv64 do not.
var platforms = []string{"arm", "mips64le", "s390x"}

// Both programs are right by their types on every platform, which takes a tenth
// of the time that a build would.
func TestPlatforms(t *testing.T) {
	for _, arch := range platforms {
		conf := &packages.Config{
			Context: t.Context(), Dir: root, Env: append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch),
			Mode: packages.NeedName | packages.NeedImports | packages.NeedDeps | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesSizes,
		}
		all, err := packages.Load(conf, "./cmd/cni", "./cmd/netcleat")
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
