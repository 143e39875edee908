package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// A deferred clean-up that looks at err never runs where the result that the
// function returns is another variable. Where something must be undone the
// result has a name, and the undo takes its address.
func TestDeferredCleanupSeesTheResult(t *testing.T) {
	for _, f := range files(t, ".go") {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, filepath.Join(root, f), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, pos := range blind(file) {
			t.Errorf("%s: a deferred `if err != nil` where the result has no name: it does not see what is returned", set.Position(pos))
		}
	}
}

func TestBlindCleanupIsFound(t *testing.T) {
	const src = `package p
func bad() error { var err error; defer func() { if err != nil { undo() } }(); return g() }
func good() (err error) { defer func() { if err != nil { undo() } }(); return g() }
func none() { var err error; defer func() { if err != nil { undo() } }() }
var lit = func() (int, error) { var err error; defer func() { x(); if err != nil { undo() } }(); return 0, g() }
`
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := blind(file)
	if len(found) != 2 || set.Position(found[0]).Line != 2 || set.Position(found[1]).Line != 5 {
		t.Errorf("found %v, want those of lines 2 and 5", found)
	}
}

// blind returns the clean-ups of a file that cannot see the result.
func blind(file *ast.File) []token.Pos {
	var found []token.Pos
	ast.Inspect(file, func(n ast.Node) bool {
		switch f := n.(type) {
		case *ast.FuncDecl:
			found = append(found, blindIn(f.Type, f.Body)...)
		case *ast.FuncLit:
			found = append(found, blindIn(f.Type, f.Body)...)
		}
		return true
	})
	return found
}

func blindIn(typ *ast.FuncType, body *ast.BlockStmt) []token.Pos {
	if body == nil || !returnsUnnamedError(typ) {
		return nil
	}
	var found []token.Pos
	ast.Inspect(body, func(n ast.Node) bool {
		if _, inner := n.(*ast.FuncLit); inner {
			return false // has a turn of its own
		}
		if d, ok := n.(*ast.DeferStmt); ok && looksAtErr(d.Call) {
			found = append(found, d.Pos())
		}
		return true
	})
	return found
}

func returnsUnnamedError(typ *ast.FuncType) bool {
	if typ.Results == nil {
		return false
	}
	for _, r := range typ.Results.List {
		if id, ok := r.Type.(*ast.Ident); ok && id.Name == "error" {
			return len(r.Names) == 0
		}
	}
	return false
}

// looksAtErr reports whether a deferred function asks if err is nil.
func looksAtErr(call *ast.CallExpr) bool {
	fn, ok := call.Fun.(*ast.FuncLit)
	if !ok {
		return false
	}
	for _, s := range fn.Body.List {
		if i, ok := s.(*ast.IfStmt); ok && i.Init == nil && isErrNotNil(i.Cond) {
			return true
		}
	}
	return false
}

func isErrNotNil(e ast.Expr) bool {
	b, ok := e.(*ast.BinaryExpr)
	if !ok || b.Op != token.NEQ {
		return false
	}
	x, ok := b.X.(*ast.Ident)
	return ok && x.Name == "err"
}
