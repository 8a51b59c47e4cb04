package main

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/layerbuild/layerbuild/parser"
)

// imageFilter selects images of a list.
type imageFilter struct {
	kind  string
	match func(l listed) bool
	// of names the image with whose time of creation others are compared; "": the filter has no
	// image, and match is set
	of string
}

// filterImages returns the images that match the filters. Filters of one kind are alternatives.
func filterImages(list []listed, filters []imageFilter) ([]listed, error) {
	kinds := map[string][]func(listed) bool{}
	for _, f := range filters {
		match := f.match
		if f.of != "" {
			i := slices.IndexFunc(list, func(l listed) bool { return l.is(f.of) })
			if i < 0 {
				return nil, fmt.Errorf("--filter %s=%s: there is no such image", f.kind, f.of)
			}
			at := list[i].Created
			match = func(l listed) bool { return l.Created.After(at) }
			if f.kind == "before" {
				match = func(l listed) bool { return l.Created.Before(at) }
			}
		}
		kinds[f.kind] = append(kinds[f.kind], match)
	}
	return slices.DeleteFunc(list, func(l listed) bool {
		for _, alternatives := range kinds {
			if !slices.ContainsFunc(alternatives, func(m func(listed) bool) bool { return m(l) }) {
				return true
			}
		}
		return false
	}), nil
}

// is reports whether a word is the image's name, or its ID or the beginning of it.
func (l listed) is(word string) bool {
	if n, err := reference.Full(word); err == nil && l.Name != "" && n.String() == l.Name {
		return true
	}
	hex := strings.TrimPrefix(word, "sha256:")
	return len(hex) >= 4 && (strings.HasPrefix(strings.TrimPrefix(l.ID, "sha256:"), hex) ||
		strings.HasPrefix(strings.TrimPrefix(l.Digest, "sha256:"), hex))
}

// imageFilters are the kinds of filters of images.
var imageFilters = []string{"dangling", "label", "reference", "platform", "before", "since",
	"until"}

// parseImageFilter parses KEY=VALUE.
func parseImageFilter(s string) (imageFilter, error) {
	kind, value, ok := strings.Cut(s, "=")
	if !slices.Contains(imageFilters, kind) {
		if near := suggest.Near(kind, imageFilters); near != "" {
			return imageFilter{}, fmt.Errorf("unknown filter %q: did you mean %s?", kind, near)
		}
		return imageFilter{}, fmt.Errorf("unknown filter %q; %s is expected", kind,
			orList(imageFilters))
	}
	if !ok || value == "" {
		return imageFilter{}, errors.New("KEY=VALUE is expected")
	}
	f := imageFilter{kind: kind}
	var err error
	switch kind {
	case "dangling":
		var want bool
		if want, err = strconv.ParseBool(value); err != nil {
			return f, errors.New("true or false is expected")
		}
		f.match = func(l listed) bool { return (l.Name == "") == want }
	case "label":
		key, want, hasValue := strings.Cut(value, "=")
		f.match = func(l listed) bool {
			have, ok := l.labels[key]
			return ok && (!hasValue || have == want)
		}
	case "reference":
		if _, err = path.Match(value, ""); err != nil {
			return f, errors.New("it is not a pattern")
		}
		f.match = nameFilter(value)
	case "platform":
		p, err := parsePlatform(value)
		if err != nil {
			return f, err
		}
		want := parser.FormatPlatform(parser.NormalizePlatform(p))
		f.match = func(l listed) bool { return slices.Contains(l.Platforms, want) }
	case "before", "since":
		f.of = value
	case "until":
		at, err := parseUntil(value, time.Now())
		if err != nil {
			return f, err
		}
		f.match = func(l listed) bool { return l.Created.Before(at) }
	}
	return f, nil
}

// parseUntil parses a time: how long ago it was (24h), seconds since 1970, a date, or RFC 3339.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("a time such as 24h or 2026-01-31 is expected")
}

// nameFilter returns a filter for a name or a repository, perhaps with wildcards. A pattern without
// a tag matches all tags.
func nameFilter(pattern string) func(listed) bool {
	return func(l listed) bool {
		if l.Name == "" {
			return false
		}
		n, err := reference.Full(l.Name)
		if err != nil {
			return false
		}
		short := n
		short.Tag, short.Digest = "", ""
		for _, name := range []string{n.Familiar(), n.String(), short.Familiar(), short.String()} {
			if ok, err := path.Match(pattern, name); ok && err == nil {
				return true
			}
		}
		return false
	}
}

// imageLine has the fields of docker for a template of images.
type imageLine struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Repository string
	SharedSize, Size, Tag, UniqueSize, VirtualSize              string
	Name, Platforms                                             string
	Layers                                                      int
}

// imageHeadings returns the headings of a table, by field.
func imageHeadings() map[string]string {
	return map[string]string{"Containers": "CONTAINERS", "CreatedAt": "CREATED AT",
		"CreatedSince": "CREATED", "Digest": "DIGEST", "ID": "IMAGE ID",
		"Repository": "REPOSITORY", "SharedSize": "SHARED SIZE", "Size": "SIZE", "Tag": "TAG",
		"UniqueSize": "UNIQUE SIZE", "VirtualSize": "VIRTUAL SIZE", "Name": "NAME",
		"Platforms": "PLATFORM", "Layers": "LAYERS"}
}

// line returns the fields of an image for a template.
func (l listed) line(whole bool) imageLine {
	const unknown = "N/A" // as docker prints it
	out := imageLine{Containers: unknown, SharedSize: unknown, UniqueSize: unknown,
		VirtualSize: sizeText(l.Size), Size: sizeText(l.Size), Digest: l.Digest, ID: l.ID,
		Repository: "<none>", Tag: "<none>", Name: familiar(l.Name), Layers: l.Layers,
		Platforms: strings.Join(l.Platforms, ","), CreatedSince: age(l.Created),
		CreatedAt: l.Created.Local().Format("2006-01-02 15:04:05 -0700 MST")}
	if !whole {
		out.ID = shortDigest(l.ID)
	}
	if n, err := reference.Full(cmp.Or(l.Name, "-")); err == nil {
		out.Tag = cmp.Or(n.Tag, "<none>")
		n.Tag, n.Digest = "", ""
		out.Repository = n.Familiar()
	}
	return out
}
