// Package fields reads a JSON object into structs by their json tags, as
// encoding/json does, but prepares only what the object has.
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
	"strings"
)

// Object is a JSON object, its values not yet read.
type Object map[string]json.RawMessage

// Parse checks that b is one JSON object and takes it apart.
func Parse(b []byte) (Object, error) {
	var o Object
	return o, json.Unmarshal(b, &o)
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

// get returns the value of the key, spelt exactly or else in any case.
func (o Object) get(name string) (json.RawMessage, bool) {
	if raw, ok := o[name]; ok {
		return raw, true
	}
	for k, raw := range o {
		if strings.EqualFold(k, name) {
			return raw, true
		}
	}
	return nil, false
}

// set gives the field the value. What has a reading of its own, and what is
// neither struct nor list of such, is left to encoding/json.
func set(v reflect.Value, raw json.RawMessage) error {
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
		o, err := Parse(raw)
		if err != nil {
			return err
		}
		return o.into(v)
	case reflect.Slice:
		if composed(v.Type().Elem()) && len(raw) < long {
			return setList(v, raw)
		}
	}
	return json.Unmarshal(raw, v.Addr().Interface())
}

// long is from how many bytes on encoding/json's preparations are paid back: some
// hundred published ports.
const long = 16 << 10

func setList(v reflect.Value, raw json.RawMessage) (err error) {
	var all []json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	if all == nil {
		v.SetZero()
		return nil
	}
	list := reflect.MakeSlice(v.Type(), len(all), len(all))
	for i, raw := range all {
		err = first(err, set(list.Index(i), raw))
	}
	v.Set(list)
	return err
}

// composed reports whether reading a value of the type would have encoding/json
// prepare a struct.
func composed(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct, reflect.Pointer:
		return true
	case reflect.Slice:
		return composed(t.Elem())
	default:
		return false
	}
}

func readsItself(v reflect.Value) bool {
	switch v.Addr().Interface().(type) {
	case json.Unmarshaler, encoding.TextUnmarshaler:
		return true
	default:
		return false
	}
}
