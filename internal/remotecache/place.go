package remotecache

import (
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/image"
	digest "github.com/opencontainers/go-digest"
)

// Place is a place from which a build imports step results (--cache-from), or to which it exports
// them (--cache-to).
type Place struct {
	// Type is "registry", "local" or, for an export, "inline": in the image itself.
	Type string
	// Ref is the name in a registry.
	Ref string
	// Plain is set if Ref was given alone: an image of that name in the local store is used, too.
	Plain bool
	// Dir is an image layout. Tag and Digest name an image in it; both "": "latest".
	Dir    string
	Tag    string
	Digest digest.Digest
	// Max exports the results of all stages, and not only of the image's own stages.
	Max bool
	// IgnoreError makes a failed export a warning.
	IgnoreError bool
	// Insecure allows plain http, and TLS without verification, for an export to a registry.
	Insecure bool
}

// ParseFrom parses a value of --cache-from.
func ParseFrom(s string) (Place, error) {
	p, fields, err := parsePlace(s)
	if err != nil {
		return p, fmt.Errorf("--cache-from %q: %w", s, err)
	}
	if err := checkType(fields, "registry", "local"); err != nil {
		return p, fmt.Errorf("--cache-from %q: %w", s, err)
	}
	for _, f := range fields {
		switch f[0] {
		case "type":
			p.Type = f[1]
		case "ref":
			p.Ref = f[1]
		case "src":
			p.Dir = f[1]
		case "tag":
			p.Tag = f[1]
		case "digest":
			p.Digest = digest.Digest(f[1])
		default:
			return p, fmt.Errorf(
				"--cache-from %q: unknown key %q (known: type, ref, src, tag, digest)", s, f[0])
		}
	}
	switch {
	case p.Type == "registry" && p.Ref == "":
		err = fmt.Errorf("ref=NAME is missing")
	case p.Type == "local" && p.Dir == "":
		err = fmt.Errorf("src=DIR is missing")
	case p.Digest != "":
		err = p.Digest.Validate()
	}
	if err != nil {
		return p, fmt.Errorf("--cache-from %q: %w", s, err)
	}
	return p, nil
}

// ParseTo parses a value of --cache-to.
func ParseTo(s string) (Place, error) {
	p, fields, err := parsePlace(s)
	if err != nil {
		return p, fmt.Errorf("--cache-to %q: %w", s, err)
	}
	if err := checkType(fields, "registry", "local", "inline"); err != nil {
		return p, fmt.Errorf("--cache-to %q: %w", s, err)
	}
	for _, f := range fields {
		if err := p.setTo(f[0], f[1]); err != nil {
			return p, fmt.Errorf("--cache-to %q: %w", s, err)
		}
	}
	switch {
	case p.Type == "registry" && p.Ref == "":
		err = fmt.Errorf("ref=NAME is missing")
	case p.Type == "local" && p.Dir == "":
		err = fmt.Errorf("dest=DIR is missing")
	case p.Type == "inline" && p.Max:
		err = fmt.Errorf("an image holds only the results of its own stages; mode=max requires " +
			"type=registry or type=local")
	}
	if err != nil {
		return p, fmt.Errorf("--cache-to %q: %w", s, err)
	}
	return p, nil
}

func (p *Place) setTo(key, value string) (err error) {
	switch key {
	case "type":
		p.Type = value
	case "ref":
		p.Ref = value
	case "dest":
		p.Dir = value
	case "tag":
		p.Tag = value
	case "mode":
		if value != "min" && value != "max" {
			return fmt.Errorf("mode %q: min or max is expected", value)
		}
		p.Max = value == "max"
	case "ignore-error":
		p.IgnoreError, err = strconv.ParseBool(value)
	case "registry.insecure":
		p.Insecure, err = strconv.ParseBool(value)
	case "image-manifest", "oci-mediatypes":
		// The exported artifact is always an OCI manifest.
		var is bool
		if is, err = strconv.ParseBool(value); err == nil && !is {
			return fmt.Errorf("%s=false is not supported", key)
		}
	case "compression", "compression-level", "force-compression":
		return fmt.Errorf(
			"the cache holds the layers as they are in the image; give %s to --output", key)
	default:
		return fmt.Errorf(
			"unknown key %q (known: type, ref, dest, tag, mode, ignore-error, registry.insecure)",
			key)
	}
	if err != nil {
		return fmt.Errorf("%s=%s: true or false is expected", key, value)
	}
	return nil
}

// parsePlace splits key=value pairs. A name alone is a name in a registry.
func parsePlace(s string) (Place, [][2]string, error) {
	r := csv.NewReader(strings.NewReader(s))
	list, err := r.Read()
	if err != nil {
		return Place{}, nil, fmt.Errorf("a name or type=TYPE,KEY=VALUE,… is expected")
	}
	if len(list) == 1 && !strings.Contains(list[0], "=") {
		return Place{Type: "registry", Ref: list[0], Plain: true}, nil, nil
	}
	var fields [][2]string
	for _, f := range list {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return Place{}, nil, fmt.Errorf("%q is not key=value", f)
		}
		fields = append(fields, [2]string{strings.ToLower(strings.TrimSpace(key)), value})
	}
	return Place{}, fields, nil
}

// checkType checks the type first, because the other valid keys depend on it.
func checkType(fields [][2]string, known ...string) error {
	if len(fields) == 0 {
		return nil // only a name was given
	}
	last := len(known) - 1
	list := strings.Join(known[:last], ", ") + " or " + known[last]
	given := false
	for _, f := range fields {
		switch {
		case f[0] != "type":
		case given:
			return errors.New("type is given twice")
		case !slices.Contains(known, f[1]):
			return fmt.Errorf("type %q is not supported: %s is expected", f[1], list)
		default:
			given = true
		}
	}
	if !given {
		return fmt.Errorf("type is missing: %s is expected", list)
	}
	return nil
}

// String returns the place in the form that the progress shows.
func (p Place) String() string {
	switch p.Type {
	case "local":
		return p.Dir
	case "inline":
		return "the image"
	}
	return p.Ref
}

// location returns the place as a reference for package image.
func (p Place) location() string {
	if p.Type != "local" {
		return p.Ref
	}
	at := image.SchemeLayout + p.Dir
	switch {
	case p.Digest != "":
		return at + "@" + p.Digest.String()
	case p.Tag != "":
		return at + ":" + p.Tag
	}
	return at + ":latest"
}
