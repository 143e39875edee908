package house

import (
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/tools/go/packages"
)

// platforms are the architectures of the reference's releases, all on Linux.
var platforms = []string{"386", "amd64", "arm", "arm64", "mips64le", "ppc64le", "riscv64", "s390x"}

// Product and tests are right by their types on every platform, which takes a tenth
// of the time that a build would. CI runs go vet for each of them, too.
func TestPlatforms(t *testing.T) {
	for pair := range slices.Chunk(platforms, 2) {
		var all sync.WaitGroup
		for _, arch := range pair {
			all.Go(func() { typecheck(t, arch) })
		}
		all.Wait()
	}
}

// typecheck reports what the compiler would refuse.
func typecheck(t *testing.T, arch string) {
	t.Helper()
	conf := &packages.Config{
		Context: t.Context(), Dir: root, Env: append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch), Tests: true,
		Mode: packages.NeedName | packages.NeedImports | packages.NeedDeps | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesSizes,
	}
	all, err := packages.Load(conf, "./...")
	if err != nil {
		t.Error(err)
		return
	}
	packages.Visit(all, nil, func(p *packages.Package) {
		for _, e := range p.Errors {
			t.Errorf("%s: %v", arch, e)
		}
	})
}
