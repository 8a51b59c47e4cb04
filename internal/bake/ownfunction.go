package bake

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/big"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// ownFunctions returns the functions of buildx that are not those of packages hcl and cty.
func ownFunctions(o *Options) map[string]function.Function {
	hash := func(sum func(string) []byte) function.Function {
		return ofString(func(s string) (string, error) { return hex.EncodeToString(sum(s)), nil })
	}
	return map[string]function.Function{
		"basename": ofString(func(s string) (string, error) { return path.Base(s), nil }),
		"dirname":  ofString(func(s string) (string, error) { return path.Dir(s), nil }),
		"sanitize": ofString(func(s string) (string, error) { return sanitize(s), nil }),
		"base64encode": ofString(func(s string) (string, error) {
			return base64.StdEncoding.EncodeToString([]byte(s)), nil
		}),
		"base64decode": ofString(func(s string) (string, error) {
			data, err := base64.StdEncoding.DecodeString(s)
			return string(data), err
		}),
		"urlencode": ofString(func(s string) (string, error) { return url.QueryEscape(s), nil }),
		"md5":       hash(func(s string) []byte { b := md5.Sum([]byte(s)); return b[:] }),
		"sha1":      hash(func(s string) []byte { b := sha1.Sum([]byte(s)); return b[:] }),
		"sha256":    hash(func(s string) []byte { b := sha256.Sum256([]byte(s)); return b[:] }),
		"sha512":    hash(func(s string) []byte { b := sha512.Sum512([]byte(s)); return b[:] }),
		"homedir":   constant(func() string { return o.Home }),
		"timestamp": constant(func() string { return o.now().UTC().Format(time.RFC3339) }),
		"uuidv4":    constant(randomUUID),
		"uuidv5":    uuidFunction(),
		"indexof":   indexOf(), "formattimestamp": formatTimestamp(),
		"unixtimestampparse": parseTimestamp(), "semvercmp": compareVersions(),
		"cidrhost": cidrHost(), "cidrnetmask": cidrNetmask(), "cidrsubnet": cidrSubnet(),
		"cidrsubnets": cidrSubnets(),
	}
}

// ofString returns a function of a string to a string.
func ofString(f func(string) (string, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			s, err := f(args[0].AsString())
			return cty.StringVal(s), err
		},
	})
}

// constant returns a function without parameters.
func constant(f func() string) function.Function {
	return function.New(&function.Spec{Type: function.StaticReturnType(cty.String),
		Impl: func([]cty.Value, cty.Type) (cty.Value, error) { return cty.StringVal(f()), nil }})
}

// sanitize replaces the characters that the name of a target cannot have with underscores.
func sanitize(s string) string {
	return strings.Map(func(r rune) rune {
		if isNameRune(r) {
			return r
		}
		return '_'
	}, s)
}

// indexOf returns a function that finds a value in a list.
func indexOf() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType},
			{Name: "value", Type: cty.DynamicPseudoType}},
		Type: function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if t := args[0].Type(); !t.IsListType() && !t.IsTupleType() {
				return cty.NilVal, function.NewArgErrorf(0, "a list is expected")
			}
			for index, v := range args[0].Elements() {
				if same, err := stdlib.Equal(v, args[1]); err == nil && same.True() {
					return index, nil
				}
			}
			return cty.NilVal, errors.New("the list does not have the value")
		},
	})
}

// unixTime returns the time of a number of seconds since 1970.
func unixTime(v cty.Value) (time.Time, error) {
	n, accuracy := v.AsBigFloat().Int64()
	if accuracy != big.Exact {
		return time.Time{}, errors.New("a whole number of seconds is expected")
	}
	return time.Unix(n, 0).UTC(), nil
}

// formatTimestamp returns a function that formats a time, given as in RFC 3339 or in seconds. The
// format X is the time in seconds.
func formatTimestamp() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "format", Type: cty.String},
			{Name: "time", Type: cty.DynamicPseudoType}},
		Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			var t time.Time
			var err error
			switch args[1].Type() {
			case cty.String:
				t, err = time.Parse(time.RFC3339, args[1].AsString())
			case cty.Number:
				t, err = unixTime(args[1])
			default:
				err = errors.New("a time as in RFC 3339 or a number of seconds is expected")
			}
			if err != nil {
				return cty.NilVal, function.NewArgError(1, err)
			}
			if args[0].AsString() == "X" {
				return cty.StringVal(strconv.FormatInt(t.Unix(), 10)), nil
			}
			return stdlib.FormatDate(args[0], cty.StringVal(t.Format(time.RFC3339)))
		},
	})
}

// parseTimestamp returns a function for the parts of a time that is given in seconds.
func parseTimestamp() function.Function {
	numbers := func(t time.Time) map[string]int {
		isoYear, isoWeek := t.ISOWeek()
		return map[string]int{"year": t.Year(), "year_day": t.YearDay(), "day": t.Day(),
			"month": int(t.Month()), "weekday": int(t.Weekday()), "hour": t.Hour(),
			"minute": t.Minute(), "second": t.Second(), "iso_year": isoYear,
			"iso_week": isoWeek}
	}
	texts := func(t time.Time) map[string]string {
		return map[string]string{"month_name": t.Month().String(),
			"weekday_name": t.Weekday().String(), "rfc3339": t.Format(time.RFC3339)}
	}
	types := map[string]cty.Type{}
	for name := range numbers(time.Time{}) {
		types[name] = cty.Number
	}
	for name := range texts(time.Time{}) {
		types[name] = cty.String
	}
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "seconds", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.Object(types)),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			t, err := unixTime(args[0])
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			values := map[string]cty.Value{}
			for name, n := range numbers(t) {
				values[name] = cty.NumberIntVal(int64(n))
			}
			for name, s := range texts(t) {
				values[name] = cty.StringVal(s)
			}
			return cty.ObjectVal(values), nil
		},
	})
}
