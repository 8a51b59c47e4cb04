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
	// Type is "registry", "local" or, for an export, "inline": in the image itself. It may also be
	// one of Services: then an import or an export fails.
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
	// Insecure allows plain http, and TLS without verification, for Ref.
	Insecure bool
}

// Services are the types of BuildKit's caches in services for which there is no client here.
var Services = []string{"azblob", "gha", "s3"}

// isService reports whether the place is in one of Services.
func (p Place) isService() bool { return slices.Contains(Services, p.Type) }

// unsupported returns the error for a place in one of Services.
func (p Place) unsupported() error {
	return fmt.Errorf("layerbuild cannot access a cache of type %s; type=registry,ref=NAME is a "+
		"cache in a registry, and type=local one in a directory", p.Type)
}

// ParseFrom parses a value of --cache-from. A place in one of Services is valid, so that a build
// continues without it.
func ParseFrom(s string) (Place, error) {
	p, fields, err := parsePlace(s)
	if err != nil {
		return p, fmt.Errorf("--cache-from %q: %w", s, err)
	}
	service, err := checkType(fields, "registry", "local")
	if err != nil {
		return p, fmt.Errorf("--cache-from %q: %w", s, err)
	}
	if service != "" {
		return Place{Type: service}, nil
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
		case "registry.insecure":
			if p.Insecure, err = parseBool(f[0], f[1]); err != nil {
				return p, fmt.Errorf("--cache-from %q: %w", s, err)
			}
		default:
			return p, fmt.Errorf("--cache-from %q: unknown key %q (known: type, ref, src, tag, "+
				"digest, registry.insecure)", s, f[0])
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

// ParseTo parses a value of --cache-to. As in buildx, a cache that cannot be exported is an error.
// A place in one of Services is valid only with ignore-error=true.
func ParseTo(s string) (Place, error) {
	p, fields, err := parsePlace(s)
	if err != nil {
		return p, fmt.Errorf("--cache-to %q: %w", s, err)
	}
	service, err := checkType(fields, "registry", "local", "inline")
	if err != nil {
		return p, fmt.Errorf("--cache-to %q: %w", s, err)
	}
	if service != "" {
		if p, err = serviceTo(service, fields); err != nil {
			return p, fmt.Errorf("--cache-to %q: %w", s, err)
		}
		return p, nil
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

// serviceTo returns the place for an export to one of Services, whose other keys are not checked.
func serviceTo(service string, fields [][2]string) (Place, error) {
	p := Place{Type: service}
	for _, f := range fields {
		if f[0] == "ignore-error" {
			var err error
			if p.IgnoreError, err = parseBool(f[0], f[1]); err != nil {
				return p, err
			}
		}
	}
	if !p.IgnoreError {
		return p, fmt.Errorf("%w; with ignore-error=true the build continues without it",
			p.unsupported())
	}
	return p, nil
}

func parseBool(key, value string) (bool, error) {
	is, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s=%s: true or false is expected", key, value)
	}
	return is, nil
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
		p.IgnoreError, err = parseBool(key, value)
	case "registry.insecure":
		p.Insecure, err = parseBool(key, value)
	default:
		return without(key, value)
	}
	return err
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

// checkType checks the type first, because the other valid keys depend on it. For one of Services
// it returns the type, and otherwise "".
func checkType(fields [][2]string, known ...string) (service string, err error) {
	if len(fields) == 0 {
		return "", nil // only a name was given
	}
	last := len(known) - 1
	list := strings.Join(known[:last], ", ") + " or " + known[last]
	given := false
	for _, f := range fields {
		switch {
		case f[0] != "type":
		case given:
			return "", errors.New("type is given twice")
		case slices.Contains(Services, f[1]):
			given, service = true, f[1]
		case !slices.Contains(known, f[1]):
			return "", fmt.Errorf("type %q is not supported: %s is expected", f[1], list)
		default:
			given = true
		}
	}
	if !given {
		return "", fmt.Errorf("type is missing: %s is expected", list)
	}
	return service, nil
}

// String returns the place in the form that the progress shows.
func (p Place) String() string {
	switch p.Type {
	case "local":
		return p.Dir
	case "inline":
		return "the image"
	}
	if p.isService() {
		return "type=" + p.Type
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
