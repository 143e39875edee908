// Package fields reads a JSON object into structs by their json tags, and writes
// them, as encoding/json does, but prepares only what the object has.
//
// encoding/json builds encoders and decoders for every field of a type, and of
// all types below it, before it reads the first byte. In a process that reads one
// configuration and ends, that was a tenth of an ADD.
package fields

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Object is a JSON object, its values not yet read.
type Object map[string]json.RawMessage

// Parse checks that b is one JSON object and takes it apart. The values, and what
// Into makes json.RawMessage of, are parts of b: neither is to be changed after.
func Parse(b []byte) (Object, error) {
	if !json.Valid(b) {
		var o Object
		return o, json.Unmarshal(b, &o) // says what is wrong
	}
	return parse(bytes.TrimSpace(b))
}

// parse is Parse of valid JSON without space around it.
func parse(b []byte) (o Object, err error) {
	if b[0] != '{' {
		return o, json.Unmarshal(b, &o)
	}
	o = Object{}
	err = each(b, func(key, value []byte) error {
		name, err := unquote(key)
		o[name] = value
		return err
	})
	return o, err
}

// Into sets the fields of the struct that v points to. Keys are matched exactly,
// or else in any case; keys that the struct has not are ignored. A value of the
// wrong type leaves its field as it is; Into goes on and returns the first such
// error, which names the key.
func (o Object) Into(v any) error {
	return o.into(reflect.ValueOf(v).Elem())
}

func (o Object) into(s reflect.Value) (err error) {
	for i := range s.NumField() {
		f := s.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct {
			err = first(err, o.into(s.Field(i)))
			continue
		}
		if name == "" {
			name = f.Name
		}
		raw, ok := o.get(name)
		if !ok || !f.IsExported() || name == "-" {
			continue
		}
		if ferr := set(s.Field(i), raw); ferr != nil {
			err = first(err, fmt.Errorf("%s: %w", name, ferr))
		}
	}
	return err
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// get returns the value of the key, spelt exactly or else in any case: of several
// the first in the order of bytes.
func (o Object) get(name string) (json.RawMessage, bool) {
	if raw, ok := o[name]; ok {
		return raw, true
	}
	found, ok := "", false
	for k := range o {
		if strings.EqualFold(k, name) && (!ok || k < found) {
			found, ok = k, true
		}
	}
	return o[found], ok
}

// set gives the field the value, which is valid JSON. What has a reading of its
// own, and what is neither plain nor made of structs and lists, is left to
// encoding/json.
func set(v reflect.Value, raw json.RawMessage) error {
	if setPlain(v, raw) {
		return nil
	}
	if readsItself(v) {
		return json.Unmarshal(raw, v.Addr().Interface())
	}
	null := bytes.Equal(raw, []byte("null"))
	switch v.Kind() {
	case reflect.Pointer:
		if null {
			v.SetZero()
			return nil
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return set(v.Elem(), raw)
	case reflect.Struct:
		if null {
			return nil
		}
		o, err := parse(raw)
		if err != nil {
			return err
		}
		return o.into(v)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 && len(raw) < long {
			return setList(v, raw)
		}
	}
	return json.Unmarshal(raw, v.Addr().Interface())
}

// setPlain sets a string, a number or a boolean of a type without methods, and
// raw JSON. It reports whether it could: whatever else raw may be is left to the
// others, who say what is wrong.
func setPlain(v reflect.Value, raw json.RawMessage) bool {
	t := v.Type()
	if t == reflect.TypeFor[json.RawMessage]() {
		v.SetBytes(raw)
		return true
	}
	if t.PkgPath() != "" {
		return false
	}
	switch text := string(raw); v.Kind() {
	case reflect.String:
		s, ok := plain(raw)
		if ok {
			v.SetString(s)
		}
		return ok
	case reflect.Bool:
		if text == "true" || text == "false" {
			v.SetBool(text == "true")
			return true
		}
		return false
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err == nil {
			v.SetInt(int64(n))
		}
		return err == nil
	default:
		return false
	}
}

// long is from how many bytes on encoding/json's preparations are paid back: some
// hundred published ports.
const long = 16 << 10

func setList(v reflect.Value, raw json.RawMessage) (err error) {
	if raw[0] != '[' {
		return json.Unmarshal(raw, v.Addr().Interface()) // null, or what is wrong
	}
	list := reflect.MakeSlice(v.Type(), 0, 0)
	_ = each(raw, func(_, value []byte) error {
		e := reflect.New(v.Type().Elem()).Elem()
		err = first(err, set(e, value))
		list = reflect.Append(list, e)
		return nil
	})
	v.Set(list)
	return err
}

func readsItself(v reflect.Value) bool {
	switch v.Addr().Interface().(type) {
	case json.Unmarshaler, encoding.TextUnmarshaler:
		return true
	default:
		return false
	}
}
