package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// As text, version 1.10.0 comes before 1.9.0: pkg/semver compares versions.
func TestVersionsAreNotComparedAsText(t *testing.T) {
	for _, f := range files(t, ".go") {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, filepath.Join(root, f), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, pos := range textual(file) {
			t.Errorf("%s: compares versions as text; want semver.Compare or semver.AtLeast", set.Position(pos))
		}
	}
}

func TestTextualComparisonIsFound(t *testing.T) {
	const src = `package p
var a = version < "0.3.0"
var b = "1.0" >= x.CNIVersion
var c = max(n.version, s)
var d = version == "0.3.0" || r.Version > 2 || s < "b"
var e = q.parser.since > n.version
var f = min(1, 2) > max(int(x), 3)
func newer(version int) bool { return version > known }
`
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	var lines []int
	for _, pos := range textual(file) {
		lines = append(lines, set.Position(pos).Line)
	}
	if want := []int{2, 3, 4, 6}; !slices.Equal(lines, want) {
		t.Errorf("found in lines %v, want %v", lines, want)
	}
}

var (
	versionText = regexp.MustCompile(`^"v?\d+\.\d`)
	versionName = regexp.MustCompile(`^(version|CNIVersion|since|Since)$`)
)

// textual returns the comparisons of versions by the operators of strings.
func textual(file *ast.File) (found []token.Pos) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch e := n.(type) {
		case *ast.BinaryExpr:
			ordered := slices.Contains([]token.Token{token.LSS, token.GTR, token.LEQ, token.GEQ}, e.Op)
			if ordered && (isVersion(e.X) || isVersion(e.Y)) && !isNumber(e.X) && !isNumber(e.Y) {
				found = append(found, e.Pos())
			}
		case *ast.CallExpr:
			fn, ok := e.Fun.(*ast.Ident)
			if ok && (fn.Name == "max" || fn.Name == "min") && slices.ContainsFunc(e.Args, isVersion) {
				found = append(found, e.Pos())
			}
		}
		return true
	})
	return found
}

func isNumber(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind != token.STRING
}

// isVersion reports whether an expression is a version: by its text, or by the
// names that versions have here.
func isVersion(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return versionText.MatchString(e.Value)
	case *ast.SelectorExpr: // a name alone may be a number's, as in the journal
		return versionName.MatchString(e.Sel.Name)
	}
	return false
}
