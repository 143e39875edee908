package fields

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/pkg/jsontext"
)

// Text writes the struct v as encoding/json does, by its json tags, but raw JSON as
// it is. Maps,
// interfaces, bytes, most kinds of numbers and what has a writing of its own are
// left to encoding/json. Fields of an embedded struct must not have the names of
// others.
func Text(v any) (jsontext.Value, error) { return text(reflect.ValueOf(v)) }

func text(v reflect.Value) (jsontext.Value, error) {
	if v.Kind() == reflect.Pointer && v.IsNil() {
		return jsontext.Value("null"), nil
	}
	switch own := writer(v).(type) {
	case json.RawMessage:
		if own != nil {
			return jsontext.Value(own), nil
		}
	case *json.RawMessage:
		if *own != nil {
			return jsontext.Value(*own), nil
		}
	case json.Marshaler:
		return own.MarshalJSON()
	case encoding.TextMarshaler:
		b, err := own.MarshalText()
		return jsontext.String(string(b)), err
	}
	switch v.Kind() {
	case reflect.String:
		return jsontext.String(v.String()), nil
	case reflect.Bool:
		return strconv.AppendBool(nil, v.Bool()), nil
	case reflect.Int:
		return jsontext.Int(int(v.Int())), nil
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return jsontext.Uint(v.Uint()), nil
	case reflect.Pointer:
		return text(v.Elem())
	case reflect.Struct:
		list, err := members(v)
		return jsontext.Object(list...), err
	case reflect.Slice:
		if !v.IsNil() && v.Type().Elem().Kind() != reflect.Uint8 && v.Len() < many {
			return list(v)
		}
	}
	return json.Marshal(v.Interface())
}

// many is from how many elements on encoding/json's preparations are paid back.
const many = 200

// writer returns v, or a pointer to it, as what may write itself; nil for a type
// without a name of its own, which has no methods.
func writer(v reflect.Value) any {
	t := v.Type()
	switch {
	case t.PkgPath() != "" && v.CanAddr():
		return v.Addr().Interface()
	case t.PkgPath() != "", t.Kind() == reflect.Pointer:
		return v.Interface()
	default:
		return nil
	}
}

func members(v reflect.Value) (list []jsontext.Field, err error) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct {
			inner, ierr := members(v.Field(i))
			list, err = append(list, inner...), first(err, ierr)
			continue
		}
		if !f.IsExported() || name == "-" || omits(options, v.Field(i)) {
			continue
		}
		if name == "" {
			name = f.Name
		}
		value, verr := text(v.Field(i))
		list, err = append(list, jsontext.Field{Key: name, Value: value}), first(err, verr)
	}
	return list, err
}

func list(v reflect.Value) (_ jsontext.Value, err error) {
	all := make([]reflect.Value, v.Len())
	for i := range all {
		all[i] = v.Index(i)
	}
	return jsontext.Array(all, func(e reflect.Value) jsontext.Value {
		b, terr := text(e)
		err = first(err, terr)
		return b
	}), err
}

// omits reports whether the tag's options leave v out.
func omits(options string, v reflect.Value) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == "omitempty" && isEmpty(v) || o == "omitzero" && isZero(v) {
			return true
		}
	}
	return false
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.Array:
		return v.Len() == 0
	case reflect.Struct:
		return false
	default:
		return v.IsZero()
	}
}

func isZero(v reflect.Value) bool {
	if z, ok := v.Interface().(interface{ IsZero() bool }); ok {
		return z.IsZero()
	}
	return v.IsZero()
}
