// Package jsontext writes JSON without reflection: results and records, which
// every ADD writes, and which encoding/json would first prepare their types for.
package jsontext

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Value is JSON text. An empty Value is absent: Object leaves its field out.
type Value []byte

// Field is one field of an object.
type Field struct {
	Key   string
	Value Value
}

// String is a JSON string, as encoding/json writes it.
func String(s string) Value {
	if plain(s) {
		return append(append(append(make(Value, 0, len(s)+2), '"'), s...), '"')
	}
	b, err := json.Marshal(s)
	if err != nil {
		return Value(`""`) // a string cannot fail
	}
	return b
}

// Optional is a JSON string, absent where s is empty.
func Optional(s string) Value {
	if s == "" {
		return nil
	}
	return String(s)
}

// plain reports whether s stands in JSON as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(`"\<>&`, c) >= 0 {
			return false
		}
	}
	return true
}

// Int is a JSON number.
func Int(n int) Value { return strconv.AppendInt(nil, int64(n), 10) }

// Uint is a JSON number.
func Uint(n uint64) Value { return strconv.AppendUint(nil, n, 10) }

// OptionalInt is a JSON number, absent where n is 0.
func OptionalInt(n int) Value {
	if n == 0 {
		return nil
	}
	return Int(n)
}

// Object is an object of the fields that are not absent, in their order.
func Object(fields ...Field) Value {
	b := Value{'{'}
	for _, f := range fields {
		if len(f.Value) == 0 {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, String(f.Key)...), ':'), f.Value...)
	}
	return append(b, '}')
}

// Sorted is Object with the fields in the order of their keys.
func Sorted(fields ...Field) Value {
	slices.SortFunc(fields, func(a, b Field) int { return strings.Compare(a.Key, b.Key) })
	return Object(fields...)
}

// Array is an array of what value makes of each of the list.
func Array[T any](list []T, value func(T) Value) Value {
	b := Value{'['}
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, value(e)...)
	}
	return append(b, ']')
}

// OptionalArray is Array, absent where the list is empty.
func OptionalArray[T any](list []T, value func(T) Value) Value {
	if len(list) == 0 {
		return nil
	}
	return Array(list, value)
}
