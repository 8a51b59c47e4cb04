package bake

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// compareVersions returns a function that reports whether a version satisfies a constraint, such as
// ">=1.2, <2" or "^1.2 || ~2.3.4".
func compareVersions() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "version", Type: cty.String},
			{Name: "constraint", Type: cty.String}},
		Type: function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			v, parts, err := parseVersion(args[0].AsString())
			if err == nil && parts == 0 {
				err = fmt.Errorf("%q is not a version", args[0].AsString())
			}
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			ok, err := satisfies(v, args[1].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgError(1, err)
			}
			return cty.BoolVal(ok), nil
		},
	})
}

// version is a semantic version (semver.org) without its build metadata.
type version struct {
	numbers [3]uint64
	pre     string
}

// parseVersion parses a version, of which the last numbers may be missing or x. It returns how many
// numbers there are.
func parseVersion(s string) (v version, parts int, err error) {
	text, _, _ := strings.Cut(strings.TrimPrefix(s, "v"), "+")
	text, v.pre, _ = strings.Cut(text, "-")
	fields := strings.Split(text, ".")
	bad := fmt.Errorf("%q is not a version", s)
	if len(fields) > 3 {
		return v, 0, bad
	}
	for i, field := range fields {
		if field == "x" || field == "X" || field == "*" {
			return v, i, nil
		}
		if v.numbers[i], err = strconv.ParseUint(field, 10, 63); err != nil {
			return v, 0, bad
		}
	}
	return v, len(fields), nil
}

// compare orders versions as semver.org says.
func (v version) compare(other version) int {
	if c := slices.Compare(v.numbers[:], other.numbers[:]); c != 0 {
		return c
	}
	switch {
	case v.pre == other.pre:
		return 0
	case v.pre == "":
		return 1
	case other.pre == "":
		return -1
	}
	return slices.CompareFunc(strings.Split(v.pre, "."), strings.Split(other.pre, "."),
		func(a, b string) int {
			n, aErr := strconv.ParseUint(a, 10, 64)
			m, bErr := strconv.ParseUint(b, 10, 64)
			switch {
			case aErr == nil && bErr == nil:
				return cmp.Compare(n, m)
			case aErr == nil:
				return -1 // numbers come first
			case bErr == nil:
				return 1
			}
			return cmp.Compare(a, b)
		})
}

// next returns the first version after all that have the same first numbers.
func (v version) next(numbers int) version {
	out := version{}
	copy(out.numbers[:], v.numbers[:numbers])
	out.numbers[numbers-1]++
	return out
}

// satisfies reports whether a version satisfies a constraint: one of the alternatives that ||
// separates, of which all parts must hold.
func satisfies(v version, constraint string) (bool, error) {
	any := false
	for alternative := range strings.SplitSeq(constraint, "||") {
		if low, high, ok := strings.Cut(alternative, " - "); ok {
			alternative = ">=" + strings.TrimSpace(low) + ",<=" + strings.TrimSpace(high)
		}
		all := true
		fields := strings.FieldsFunc(joinOperators(alternative),
			func(r rune) bool { return r == ',' || r == ' ' })
		if len(fields) == 0 {
			return false, fmt.Errorf("%q is not a constraint", constraint)
		}
		for _, field := range fields {
			ok, err := holds(v, field)
			if err != nil {
				return false, err
			}
			all = all && ok
		}
		any = any || all
	}
	return any, nil
}

// joinOperators removes the spaces after operators.
func joinOperators(s string) string {
	var b strings.Builder
	operator := false
	for _, r := range s {
		if r == ' ' && operator {
			continue
		}
		operator = strings.ContainsRune("=!<>~^", r)
		b.WriteRune(r)
	}
	return b.String()
}

// holds reports whether a version satisfies one comparison. Pre-releases satisfy only comparisons
// with a pre-release.
func holds(v version, comparison string) (bool, error) {
	text := strings.TrimLeft(comparison, "=!<>~^")
	operator := comparison[:len(comparison)-len(text)]
	limit, parts, err := parseVersion(text)
	if err != nil {
		return false, err
	}
	if v.pre != "" && limit.pre == "" {
		return false, nil
	}
	c := v.compare(limit)
	within := func(numbers int) bool { // and below the next version
		return c >= 0 && (numbers == 0 || v.compare(limit.next(numbers)) < 0)
	}
	switch operator {
	case "", "=":
		if parts < 3 {
			return within(parts), nil
		}
		return c == 0, nil
	case "!=":
		if parts < 3 {
			return !within(parts), nil
		}
		return c != 0, nil
	case ">":
		if parts < 3 && parts > 0 {
			return v.compare(limit.next(parts)) >= 0, nil
		}
		return c > 0, nil
	case "<":
		return c < 0, nil
	case ">=", "=>":
		return c >= 0, nil
	case "<=", "=<":
		return c <= 0 || parts < 3 && within(parts), nil
	case "~", "~>":
		return within(min(parts, 2)), nil
	case "^":
		return within(leading(limit, parts)), nil
	}
	return false, fmt.Errorf("%q has the unknown operator %s", comparison, operator)
}

// leading returns how many numbers the operator ^ keeps: those up to the first that is not 0.
func leading(v version, parts int) int {
	for i, n := range v.numbers[:parts] {
		if n != 0 {
			return i + 1
		}
	}
	return parts
}
