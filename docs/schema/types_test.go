package schema

import (
	"go/ast"
	"go/types"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

const module = "github.com/netcleat/netcleat/"

// plugin is what the code says of one.
type plugin struct {
	name     string
	room     string     // below plugins/
	document types.Type // what it reads of its configuration; nil is nothing
	common   map[string]bool
}

// code is the packages that the schemas are made from, by their paths.
type code map[string]*packages.Package

const (
	sublinkPath = module + "pkg/sublink"
	confPath    = module + "pkg/plugin"
	rangePath   = module + "pkg/ranges"
	typesPath   = "github.com/containernetworking/cni/pkg/types"
)

func load(t *testing.T) code {
	t.Helper()
	all, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports,
		Dir:  "../..",
	}, "./plugins/...", sublinkPath, confPath, rangePath, typesPath)
	if err != nil {
		t.Fatal(err)
	}
	if packages.PrintErrors(all) > 0 {
		t.Fatal("the plugins' code cannot be read")
	}
	c := code{}
	for _, p := range all {
		c[p.PkgPath] = p
		for _, f := range p.GoFiles { // go test is to know what the answer depends on
			if _, err := os.Stat(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

// plugins returns what the code says of each.
func (c code) plugins(t *testing.T) (all []plugin) {
	t.Helper()
	for path, p := range c {
		if room, ok := strings.CutPrefix(path, module+"plugins/"); ok {
			all = append(all, plugin{name: specName(t, p), room: room, document: document(p), common: c.common(p)})
		}
	}
	return all
}

// specName finds the name in `var Plugin = plugin.Spec[…]{Name: …}`.
func specName(t *testing.T, p *packages.Package) (name string) {
	t.Helper()
	for _, f := range p.Syntax {
		ast.Inspect(f, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if key, ok := kv.Key.(*ast.Ident); ok && key.Name == "Name" && isSpec(p, key) {
				name = strings.Trim(p.TypesInfo.Types[kv.Value].Value.ExactString(), `"`)
			}
			return true
		})
	}
	if name == "" {
		t.Fatalf("%s: no plugin.Spec with a Name", p.PkgPath)
	}
	return name
}

// isSpec reports whether the field is one of plugin.Spec.
func isSpec(p *packages.Package, field *ast.Ident) bool {
	v, ok := p.TypesInfo.Uses[field].(*types.Var)
	return ok && v.IsField() && v.Pkg().Path() == module+"pkg/plugin"
}

// document finds what the plugin reads its configuration into: what its parse
// gives to Call.Decode. dhcp reads a Network.
func document(p *packages.Package) (typ types.Type) {
	if n, ok := p.Types.Scope().Lookup("Network").(*types.TypeName); ok {
		return n.Type()
	}
	for _, f := range p.Syntax {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "parse" {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || sel.Sel.Name != "Decode" {
					return true
				}
				if ptr, ok := p.TypesInfo.Types[call.Args[0]].Type.(*types.Pointer); ok {
					typ = ptr.Elem()
				}
				return true
			})
		}
	}
	return typ
}

// common returns the keys of plugin.Conf and its ipam section that the plugin's
// code uses, those of pkg/sublink and pkg/ranges included where it is built upon them.
func (c code) common(p *packages.Package) map[string]bool {
	used := map[string]bool{}
	all := []*packages.Package{p}
	for _, path := range []string{sublinkPath, rangePath} {
		if p.Imports[path] != nil {
			all = append(all, c[path])
		}
	}
	for _, p := range all {
		for _, s := range p.TypesInfo.Selections {
			if v, ok := s.Obj().(*types.Var); ok && v.IsField() && v.Pkg() != nil && v.Pkg().Path() == module+"pkg/plugin" {
				used[v.Name()] = true
			}
		}
	}
	return used
}

// written are the types that read themselves, as they are written.
var written = map[string]*Schema{
	module + "pkg/ranges.addr":      {Type: "string"},
	module + "pkg/ranges.prefix":    {Type: "string"},
	module + "pkg/ranges.requested": {Type: "string"},
	"net.IP":                        {Type: "string"},
	"github.com/containernetworking/cni/pkg/types.IPNet": {Type: "string"},
	"encoding/json.RawMessage":                           {},
}

// schemaOf is the schema of what is read into the type.
func (c code) schemaOf(t *testing.T, typ types.Type) *Schema {
	t.Helper()
	typ = types.Unalias(typ)
	if s := written[typ.String()]; s != nil {
		return clone(s)
	}
	if n, ok := typ.(*types.Named); ok && n.Obj().Name() == "Route" { // whose reading is that of an unexported twin
		typ = c.typeOf(typesPath, "route")
	} else if m, _, _ := types.LookupFieldOrMethod(types.NewPointer(typ), true, nil, "UnmarshalJSON"); m != nil {
		t.Fatalf("%s reads itself: add it to written", typ)
	}
	switch u := typ.Underlying().(type) {
	case *types.Basic:
		return basic(t, u)
	case *types.Pointer:
		return c.schemaOf(t, u.Elem())
	case *types.Slice:
		return &Schema{Type: "array", Items: c.schemaOf(t, u.Elem())}
	case *types.Map:
		return &Schema{Type: "object", AdditionalProperties: c.schemaOf(t, u.Elem())}
	case *types.Interface:
		return &Schema{}
	case *types.Struct:
		s := &Schema{Type: "object", Properties: map[string]*Schema{}, AdditionalProperties: false}
		c.addFields(t, s, u)
		return s
	}
	t.Fatalf("%s: no schema for that", typ)
	return nil
}

func basic(t *testing.T, b *types.Basic) *Schema {
	t.Helper()
	switch {
	case b.Info()&types.IsBoolean != 0:
		return &Schema{Type: "boolean"}
	case b.Info()&types.IsUnsigned != 0:
		return &Schema{Type: "integer", Minimum: new(int)}
	case b.Info()&types.IsInteger != 0:
		return &Schema{Type: "integer"}
	case b.Info()&types.IsString != 0:
		return &Schema{Type: "string"}
	}
	t.Fatalf("%s: no schema for that", b)
	return nil
}

// addFields adds the keys that package fields reads into the struct. Keys with a
// slash or a dot are what programs tell each other.
func (c code) addFields(t *testing.T, s *Schema, u *types.Struct) {
	t.Helper()
	for i := range u.NumFields() {
		f := u.Field(i)
		name, _, _ := strings.Cut(reflect.StructTag(u.Tag(i)).Get("json"), ",")
		if inner, ok := f.Type().Underlying().(*types.Struct); ok && f.Embedded() && name == "" {
			c.addFields(t, s, inner)
			continue
		}
		if name == "" {
			name = f.Name()
		}
		if !f.Exported() || name == "-" || strings.ContainsAny(name, "/.") {
			continue
		}
		s.Properties[name] = c.schemaOf(t, f.Type())
	}
}

// typeOf returns the type of that name in a package.
func (c code) typeOf(path, name string) types.Type { return c[path].Types.Scope().Lookup(name).Type() }
