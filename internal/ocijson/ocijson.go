package ocijson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"unicode"
)

// MaxValues is the largest number of values in a document. An image of 10,000 layers with a history
// has about 100,000.
const MaxValues = 250_000

// Unmarshal is like json.Unmarshal, for a document of an image. It returns an error for an object
// with two equal keys, for an object that is decoded into a struct and has a key of the struct in
// another case, and for more than MaxValues values.
func Unmarshal(data []byte, v any) error {
	if !json.Valid(data) {
		return json.Unmarshal(data, v) // json.Unmarshal returns the error
	}
	s := scanner{data: data}
	if err := s.value(reflect.TypeOf(v)); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// scanner scans a valid document.
type scanner struct {
	data   []byte
	at     int
	values int
}

var errValues = fmt.Errorf("it has more than %d values", MaxValues)

func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// value scans a value that is decoded into a value of type t; nil: the type is not known.
func (s *scanner) value(t reflect.Type) error {
	if s.values++; s.values > MaxValues {
		return errValues
	}
	s.space()
	switch s.data[s.at] {
	case '{':
		return s.object(t)
	case '[':
		return s.array(t)
	case '"':
		s.skipString()
		return nil
	}
	for ; s.at < len(s.data); s.at++ { // a number, true, false or null
		switch s.data[s.at] {
		case ',', ']', '}', ' ', '\t', '\n', '\r':
			return nil
		}
	}
	return nil
}

func (s *scanner) array(t reflect.Type) error {
	if t = base(t); t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) &&
		!decodesItself(t) {
		t = t.Elem()
	} else {
		t = nil
	}
	s.at++ // [
	for s.space(); s.data[s.at] != ']'; s.space() {
		if s.data[s.at] == ',' {
			s.at++
		}
		if err := s.value(t); err != nil {
			return err
		}
	}
	s.at++
	return nil
}

func (s *scanner) object(t reflect.Type) error {
	var known *fields
	var elem reflect.Type
	if t = base(t); t != nil && !decodesItself(t) {
		switch t.Kind() {
		case reflect.Struct:
			known = fieldsOf(t)
		case reflect.Map:
			elem = t.Elem()
		}
	}
	s.at++ // {
	var seen keys
	for s.space(); s.data[s.at] != '}'; s.space() {
		if s.data[s.at] == ',' {
			s.at++
			s.space()
		}
		key := s.key()
		if !seen.add(key) {
			return fmt.Errorf("the key %q occurs twice", short(key))
		}
		of := elem
		if known != nil {
			var ok bool
			if of, ok = known.exact[string(key)]; !ok {
				if name, ok := known.folded[fold(string(key))]; ok {
					return fmt.Errorf("the key %q differs from %q only in case", short(key), name)
				}
			}
		}
		s.space()
		s.at++ // :
		if err := s.value(of); err != nil {
			return err
		}
	}
	s.at++
	return nil
}

// keys is a set of the keys of an object. While the set is small, as it nearly always is, it is a
// list.
type keys struct {
	list [][]byte
	set  map[string]bool
}

// add adds a key, and reports whether it was not in the set.
func (k *keys) add(key []byte) bool {
	if k.set == nil && len(k.list) < 32 {
		for _, have := range k.list {
			if bytes.Equal(have, key) {
				return false
			}
		}
		k.list = append(k.list, key)
		return true
	}
	if k.set == nil {
		k.set = map[string]bool{}
		for _, have := range k.list {
			k.set[string(have)] = true
		}
	}
	if k.set[string(key)] {
		return false
	}
	k.set[string(key)] = true
	return true
}

// key scans a string and returns its value.
func (s *scanner) key() []byte {
	start := s.at
	s.skipString()
	raw := s.data[start:s.at]
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' || c >= 0x80 {
			var text string
			if json.Unmarshal(raw, &text) == nil {
				return []byte(text)
			}
			break
		}
	}
	return inner
}

func (s *scanner) skipString() {
	for s.at++; s.data[s.at] != '"'; s.at++ {
		if s.data[s.at] == '\\' {
			s.at++
		}
	}
	s.at++
}

// short returns the beginning of a key, for an error.
func short(key []byte) string {
	if len(key) > 60 {
		return string(key[:60]) + "…"
	}
	return string(key)
}

// base returns the type to which a pointer type points, or any other type unchanged.
func base(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

var (
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
	rawMessage  = reflect.TypeFor[json.RawMessage]()
)

// decodesItself reports whether values of a type have a method that decodes JSON, so that
// encoding/json does not decode objects and arrays into their fields or elements.
func decodesItself(t reflect.Type) bool {
	return t == rawMessage || t.Implements(unmarshaler) ||
		reflect.PointerTo(t).Implements(unmarshaler)
}

// fields are the fields of a struct, by their names in JSON.
type fields struct {
	exact  map[string]reflect.Type
	folded map[string]string // the names, by what fold returns for them
}

// fold returns the same string for all keys that encoding/json takes for one field. Case alone does
// not decide that: U+017F folds to s, and U+212A to k.
func fold(key string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r { // the smallest rune follows the largest
				return next
			}
			r = next
		}
	}, key)
}

var fieldCache sync.Map // reflect.Type to *fields

// fieldsOf returns the fields of a struct.
func fieldsOf(t reflect.Type) *fields {
	if have, ok := fieldCache.Load(t); ok {
		return have.(*fields)
	}
	list := &fields{map[string]reflect.Type{}, map[string]string{}}
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() || f.Anonymous && base(f.Type).Kind() == reflect.Struct &&
			f.Tag.Get("json") == "" {
			continue // the fields of an embedded struct are visible themselves
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch name {
		case "-":
			continue
		case "":
			name = f.Name
		}
		list.exact[name], list.folded[fold(name)] = f.Type, name
	}
	fieldCache.Store(t, list)
	return list
}
