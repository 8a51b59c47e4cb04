package gotemplate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// function is a function of templates.
type function func(args []reflect.Value) (reflect.Value, error)

// functions are the functions of text/template and of docker's --format.
var functions = map[string]function{
	"not":     one(func(v reflect.Value) (any, error) { return !truth(v), nil }),
	"len":     one(length),
	"json":    one(toJSON),
	"index":   index,
	"slice":   slice,
	"print":   printer(fmt.Sprint),
	"println": printer(fmt.Sprintln),
	"printf":  printf,
	"eq":      equal,
	"ne":      compare(func(c int) bool { return c != 0 }),
	"lt":      compare(func(c int) bool { return c < 0 }),
	"le":      compare(func(c int) bool { return c <= 0 }),
	"gt":      compare(func(c int) bool { return c > 0 }),
	"ge":      compare(func(c int) bool { return c >= 0 }),

	"lower": texts(1, func(s []string) (any, error) { return strings.ToLower(s[0]), nil }),
	"upper": texts(1, func(s []string) (any, error) { return strings.ToUpper(s[0]), nil }),
	"title": texts(1, func(s []string) (any, error) { return title(s[0]), nil }),
	"split": texts(2, func(s []string) (any, error) { return strings.Split(s[0], s[1]), nil }),
	"join":  join, "pad": pad, "truncate": truncate,
}

// errArguments is returned for a wrong number of arguments.
var errArguments = errors.New("wrong number of arguments")

// maxText limits the length of a text that pad makes.
const maxText = 1 << 16

// one returns a function with one argument.
func one(f func(reflect.Value) (any, error)) function {
	return func(args []reflect.Value) (reflect.Value, error) {
		if len(args) != 1 {
			return reflect.Value{}, errArguments
		}
		v, err := f(args[0])
		return reflect.ValueOf(v), err
	}
}

// texts returns a function with n texts as arguments.
func texts(n int, f func([]string) (any, error)) function {
	return func(args []reflect.Value) (reflect.Value, error) {
		if len(args) != n {
			return reflect.Value{}, errArguments
		}
		list := make([]string, n)
		for i, a := range args {
			var err error
			if list[i], err = textArg(a); err != nil {
				return reflect.Value{}, err
			}
		}
		v, err := f(list)
		return reflect.ValueOf(v), err
	}
}

func textArg(v reflect.Value) (string, error) {
	if v = indirect(v); v.Kind() != reflect.String {
		return "", fmt.Errorf("%s is not a text", text(v))
	}
	return v.String(), nil
}

func intArg(v reflect.Value) (int, error) {
	if v = indirect(v); !v.IsValid() || !v.CanInt() {
		return 0, fmt.Errorf("%s is not a whole number", text(v))
	}
	return int(v.Int()), nil
}

func length(v reflect.Value) (any, error) {
	switch v = indirect(v); v.Kind() {
	case reflect.String, reflect.Slice, reflect.Array, reflect.Map:
		return v.Len(), nil
	}
	return nil, fmt.Errorf("%s has no length", text(v))
}

func toJSON(v reflect.Value) (any, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	var value any
	if v.IsValid() {
		value = v.Interface()
	}
	err := enc.Encode(value)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// index returns the element of an element …
func index(args []reflect.Value) (reflect.Value, error) {
	if len(args) == 0 {
		return reflect.Value{}, errArguments
	}
	v := indirect(args[0])
	for _, key := range args[1:] {
		switch v.Kind() {
		case reflect.Map:
			key = indirect(key)
			if !key.IsValid() || !key.CanConvert(v.Type().Key()) ||
				(key.Kind() == reflect.String) != (v.Type().Key().Kind() == reflect.String) {
				return v, fmt.Errorf("%s is not a key", text(key))
			}
			item := v.MapIndex(key.Convert(v.Type().Key()))
			if !item.IsValid() {
				item = reflect.Zero(v.Type().Elem())
			}
			v = indirect(item)
		case reflect.Slice, reflect.Array, reflect.String:
			i, err := intArg(key)
			if err != nil {
				return v, err
			}
			if i < 0 || i >= v.Len() {
				return v, fmt.Errorf("there is no element %d: there are %d", i, v.Len())
			}
			v = indirect(v.Index(i))
		default:
			return v, fmt.Errorf("%s has no elements", text(v))
		}
	}
	return v, nil
}

// slice returns a part of a list or a text.
func slice(args []reflect.Value) (reflect.Value, error) {
	if len(args) == 0 || len(args) > 3 {
		return reflect.Value{}, errArguments
	}
	v := indirect(args[0])
	if v.Kind() != reflect.Slice && v.Kind() != reflect.String {
		return v, fmt.Errorf("%s has no parts", text(v))
	}
	bounds := [2]int{0, v.Len()}
	for i, a := range args[1:] {
		var err error
		if bounds[i], err = intArg(a); err != nil {
			return v, err
		}
	}
	if bounds[0] < 0 || bounds[0] > bounds[1] || bounds[1] > v.Len() {
		return v, fmt.Errorf("there is no part from %d to %d: there are %d", bounds[0], bounds[1],
			v.Len())
	}
	return v.Slice(bounds[0], bounds[1]), nil
}

// values returns the arguments for package fmt.
func values(args []reflect.Value) []any {
	list := make([]any, len(args))
	for i, a := range args {
		if a = printed(a); a.IsValid() {
			list[i] = a.Interface()
		}
	}
	return list
}

func printer(f func(...any) string) function {
	return func(args []reflect.Value) (reflect.Value, error) {
		return reflect.ValueOf(f(values(args)...)), nil
	}
}

func printf(args []reflect.Value) (reflect.Value, error) {
	if len(args) == 0 {
		return reflect.Value{}, errArguments
	}
	format, err := textArg(args[0])
	if err != nil {
		return reflect.Value{}, err
	}
	return reflect.ValueOf(fmt.Sprintf(format, values(args[1:])...)), nil
}

// equal reports whether the first argument equals one of the others.
func equal(args []reflect.Value) (reflect.Value, error) {
	if len(args) < 2 {
		return reflect.Value{}, errArguments
	}
	for _, other := range args[1:] {
		c, err := order(args[0], other)
		if err != nil {
			return reflect.Value{}, err
		}
		if c == 0 {
			return reflect.ValueOf(true), nil
		}
	}
	return reflect.ValueOf(false), nil
}

func compare(is func(int) bool) function {
	return func(args []reflect.Value) (reflect.Value, error) {
		if len(args) != 2 {
			return reflect.Value{}, errArguments
		}
		c, err := order(args[0], args[1])
		return reflect.ValueOf(is(c)), err
	}
}

// order compares two texts, numbers or truth values of the same kind.
func order(a, b reflect.Value) (int, error) {
	a, b = indirect(a), indirect(b)
	switch {
	case a.Kind() == reflect.String && b.Kind() == reflect.String:
		return strings.Compare(a.String(), b.String()), nil
	case a.Kind() == reflect.Bool && b.Kind() == reflect.Bool:
		if a.Bool() == b.Bool() {
			return 0, nil
		}
		return 1, nil
	case !a.IsValid() || !b.IsValid():
	case a.CanInt() && b.CanInt():
		return cmp.Compare(a.Int(), b.Int()), nil
	case a.CanFloat() && b.CanFloat():
		return cmp.Compare(a.Float(), b.Float()), nil
	case a.CanUint() && b.CanUint():
		return cmp.Compare(a.Uint(), b.Uint()), nil
	}
	return 0, fmt.Errorf("%s and %s cannot be compared", text(a), text(b))
}

// title makes the first letter of each word upper case, with the words of strings.Title. That
// function is deprecated, but the templates of Docker use it.
func title(s string) string {
	before := ' '
	return strings.Map(func(r rune) rune {
		first := separates(before)
		before = r
		if first {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

// separates reports whether a character is between words.
func separates(r rune) bool {
	if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' {
		return false
	}
	return r <= unicode.MaxASCII || unicode.IsSpace(r)
}

// join joins the elements of a list with a separator.
func join(args []reflect.Value) (reflect.Value, error) {
	if len(args) != 2 {
		return reflect.Value{}, errArguments
	}
	sep, err := textArg(args[1])
	if err != nil {
		return reflect.Value{}, err
	}
	v := indirect(args[0])
	if v.IsValid() && v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return v, fmt.Errorf("%s is not a list", text(v))
	}
	var list []string
	for i := 0; v.IsValid() && i < v.Len(); i++ {
		list = append(list, text(v.Index(i)))
	}
	return reflect.ValueOf(strings.Join(list, sep)), nil
}

// pad adds spaces before and after a text that is not empty.
func pad(args []reflect.Value) (reflect.Value, error) {
	if len(args) != 3 {
		return reflect.Value{}, errArguments
	}
	s, err := textArg(args[0])
	before, err1 := intArg(args[1])
	after, err2 := intArg(args[2])
	if err := errors.Join(err, err1, err2); err != nil {
		return reflect.Value{}, err
	}
	if before < 0 || after < 0 || before > maxText || after > maxText {
		return reflect.Value{}, fmt.Errorf("%d and %d spaces cannot be added", before, after)
	}
	if s != "" {
		s = strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
	}
	return reflect.ValueOf(s), nil
}

// truncate shortens a text to a number of bytes.
func truncate(args []reflect.Value) (reflect.Value, error) {
	if len(args) != 2 {
		return reflect.Value{}, errArguments
	}
	s, err := textArg(args[0])
	n, err1 := intArg(args[1])
	if err := errors.Join(err, err1); err != nil {
		return reflect.Value{}, err
	}
	if n < 0 {
		return reflect.Value{}, fmt.Errorf("%d is not a length", n)
	}
	return reflect.ValueOf(s[:min(n, len(s))]), nil
}

// item is an element of a list or a map, with its index or key.
type item struct{ key, value reflect.Value }

// itemsOf returns the elements over which range iterates, those of a map in the order of their
// keys. A missing value has none.
func itemsOf(v reflect.Value) ([]item, error) {
	var list []item
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			list = append(list, item{reflect.ValueOf(i), v.Index(i)})
		}
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			return nil, errors.New("the keys are not texts")
		}
		keyed := map[string]reflect.Value{}
		for _, key := range v.MapKeys() {
			keyed[key.String()] = v.MapIndex(key)
		}
		for _, key := range slices.Sorted(maps.Keys(keyed)) {
			list = append(list, item{reflect.ValueOf(key), keyed[key]})
		}
	case reflect.Invalid:
	default:
		return nil, fmt.Errorf("%s has no elements", text(v))
	}
	return list, nil
}
