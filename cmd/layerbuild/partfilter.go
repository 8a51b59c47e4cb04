package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/suggest"
)

// partFilter selects parts of the state, for du and prune.
type partFilter struct {
	key   string
	must  bool // it must match, also if another filter with this key does
	match func(p state.Part) bool
}

// partFilterKeys are the keys of filters of parts. The others of docker buildx du and prune are
// refused: see refusedFilters.
var partFilterKeys = []string{"kind", "type", "id", "image", "until", "unused-for", "mutable",
	"immutable"}

// refusedFilters are keys of buildx and docker that layerbuild refuses, with the reasons.
var refusedFilters = map[string]string{
	"description": "parts of the state have no descriptions",
	"inuse":       "data that other processes use are never removed",
	"label":       "it is a filter of 'layerbuild image prune'",
	"parents":     "give id=ID, with the ID of a snapshot",
	"private":     "layers that images and the cache share count once",
	"shared":      "layers that images and the cache share count once",
}

// partTypes are BuildKit's types of records, with the kinds of parts that have the same content.
var partTypes = map[string][]string{
	"regular":         {state.PartSnapshot, state.PartBlob, state.PartRecords},
	"exec.cachemount": {state.PartMount},
}

// refusedTypes are BuildKit's other types of records, with the reasons why there are none.
var refusedTypes = map[string]string{
	"frontend":            "the frontend is built in, and is no image",
	"internal":            "there are no internal images",
	"source.git.checkout": "checkouts are not kept",
	"source.local":        "contexts are read in their place, and not kept",
}

// parsePartFilter parses KEY=VALUE or, for kind, type and id, KEY!=VALUE and, for these and image,
// KEY~=REGEXP.
func parsePartFilter(s string, now time.Time) (partFilter, error) {
	key, value, ok := strings.Cut(s, "=")
	key, not := strings.CutSuffix(key, "!")
	key, matches := strings.CutSuffix(key, "~")
	f := partFilter{key: key}
	why, isRefused := refusedFilters[key]
	switch {
	case isRefused:
		return f, errors.New(why)
	case !slices.Contains(partFilterKeys, key):
		if near := suggest.Near(key, partFilterKeys); near != "" {
			return f, fmt.Errorf("unknown filter %q: did you mean %s?", key, near)
		}
		return f, fmt.Errorf("unknown filter %q; %s is expected", key, orList(partFilterKeys))
	case !ok || value == "":
		return f, errors.New("KEY=VALUE is expected")
	}
	if matches {
		return f, f.parseRegexp(value)
	}
	err := f.parse(value, now)
	if err == nil && not {
		is := f.match
		f.match = func(p state.Part) bool { return !is(p) }
		f.must = true
		if key != "kind" && key != "type" && key != "id" {
			err = fmt.Errorf("%s=VALUE is expected, not %[1]s!=VALUE", key)
		}
	}
	return f, err
}

func (f *partFilter) parse(value string, now time.Time) error {
	switch f.key {
	case "kind":
		f.match = func(p state.Part) bool { return p.Kind == value }
		if !slices.Contains(state.Parts(), value) {
			return fmt.Errorf("%s is expected", orList(state.Parts()))
		}
	case "type":
		return f.parseType(value)
	case "id":
		f.match = func(p state.Part) bool {
			return strings.HasPrefix(p.ID, value) || strings.HasPrefix(p.ID, "sha256:"+value)
		}
	case "image":
		f.match = func(p state.Part) bool {
			return slices.ContainsFunc(p.Images, func(name string) bool {
				return listed{Name: name}.is(value)
			})
		}
	case "mutable", "immutable":
		if value != "true" && value != "false" {
			return errors.New("true or false is expected")
		}
		mutable := (f.key == "mutable") == (value == "true")
		f.match = func(p state.Part) bool { return isMutable(p) == mutable }
	default:
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return errors.New("a time such as 90m or 72h is expected")
		}
		f.must = true
		f.match = func(p state.Part) bool { return p.LastUsed.Before(now.Add(-d)) }
	}
	return nil
}

// parseRegexp parses a regular expression, which may match a part of the text, as in buildx.
func (f *partFilter) parseRegexp(value string) error {
	re, err := regexp.Compile(value)
	if err != nil {
		return fmt.Errorf("a regular expression is expected: %w", err)
	}
	switch f.key {
	case "kind":
		f.match = func(p state.Part) bool { return re.MatchString(p.Kind) }
	case "type":
		f.match = func(p state.Part) bool { return re.MatchString(typeOf(p)) }
	case "id":
		f.match = func(p state.Part) bool {
			return re.MatchString(p.ID) || re.MatchString(strings.TrimPrefix(p.ID, "sha256:"))
		}
	case "image":
		f.match = func(p state.Part) bool {
			return slices.ContainsFunc(p.Images, func(name string) bool {
				return re.MatchString(name) || re.MatchString(familiar(name))
			})
		}
	default:
		return fmt.Errorf("%s=VALUE is expected, not %[1]s~=REGEXP", f.key)
	}
	f.must = true // as in buildx, KEY=VALUE must match, too
	return nil
}

// parseType parses one of BuildKit's types. The kinds of parts are types, too.
func (f *partFilter) parseType(value string) error {
	if why, ok := refusedTypes[value]; ok {
		return errors.New(why)
	}
	kinds := partTypes[value]
	if slices.Contains(state.Parts(), value) {
		kinds = []string{value}
	}
	if kinds == nil {
		return errors.New("regular, exec.cachemount or a kind, which is " +
			orList(state.Parts()) + ", is expected")
	}
	f.match = func(p state.Part) bool { return slices.Contains(kinds, p.Kind) }
	return nil
}

// isMutable reports whether a part changes after it was made.
func isMutable(p state.Part) bool { return p.Kind == state.PartMount }

// matchesParts returns the function that reports whether a part matches filters. Filters of one
// key are alternatives, except until and those with != or ~=; filters of different keys must all
// match.
// It returns nil for no filters.
func matchesParts(filters []partFilter) func(state.Part) bool {
	if len(filters) == 0 {
		return nil
	}
	return func(p state.Part) bool {
		matched := map[string]bool{}
		for _, f := range filters {
			is := f.match(p)
			if f.must && !is {
				return false
			}
			if !f.must {
				matched[f.key] = matched[f.key] || is
			}
		}
		for _, is := range matched {
			if !is {
				return false
			}
		}
		return true
	}
}
