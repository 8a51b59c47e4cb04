package attest

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/suggest"
)

// Options are the attestations of a build. The zero value is none.
type Options struct {
	Provenance *Provenance // nil: none
	SBOM       *SBOM       // nil: none
}

// Any reports whether there are attestations.
func (o Options) Any() bool { return o.Provenance != nil || o.SBOM != nil }

// Version is a version of the SLSA provenance.
type Version string

// The versions of the SLSA provenance.
const (
	V1  Version = "v1"
	V02 Version = "v0.2"
)

// Provenance are the options of the provenance of a build.
type Provenance struct {
	// Min leaves out build arguments, labels, secrets, steps and the Dockerfile.
	Min     bool
	Version Version // "": V1
	// BuilderID is the URI of the machine or service that builds.
	BuilderID string
	// Filename is the name of the file in a directory or tar; "": provenance.json.
	Filename string
	// InlineOnly leaves the provenance out of directories and tars.
	InlineOnly bool
	// NoEnvironment leaves out what describes the machine: its platform, and the program's version.
	NoEnvironment bool
	// Reproducible is set if the user states that the build is reproducible.
	Reproducible bool
	// Complete makes it an error if the materials of the build are not all known.
	Complete bool
}

// SBOM are the options of the list of the software in an image.
type SBOM struct {
	// Generator is the image of a scanner; "" is the built-in scanner.
	Generator string
	// Parameters are passed to the scanner, as variables BUILDKIT_SCAN_NAME.
	Parameters map[string]string
}

// The types of attestations.
const (
	typeProvenance = "provenance"
	typeSBOM       = "sbom"
)

// Flags are the values of the flags. For --provenance and --sbom "" is no value.
type Flags struct {
	Provenance, SBOM string
	Attest           []string
}

// Error is an error in the value of a flag.
type Error struct {
	Flag, Value string
	Err         error
}

// Error returns the text of the error, with the flag.
func (e *Error) Error() string { return fmt.Sprintf("--%s %q: %v", e.Flag, e.Value, e.Err) }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Parse parses the values of the flags. The error is an *Error.
func Parse(f Flags) (Options, error) {
	var o Options
	from := map[string]string{} // the flag with which a type was given
	for _, one := range f.list() {
		if err := o.add(one, from); err != nil {
			return Options{}, &Error{one.flag, one.value, err}
		}
	}
	return o, nil
}

// given is the value of a flag.
type given struct {
	flag, value string
	kind        string // the type of attestation that the flag stands for; "" for --attest
}

func (f Flags) list() []given {
	var all []given
	for _, v := range f.Attest {
		all = append(all, given{"attest", v, ""})
	}
	if f.Provenance != "" {
		all = append(all, given{"provenance", f.Provenance, typeProvenance})
	}
	if f.SBOM != "" {
		all = append(all, given{"sbom", f.SBOM, typeSBOM})
	}
	return all
}

// add adds the attestation of one flag.
func (o *Options) add(one given, from map[string]string) error {
	attrs, err := one.attributes()
	if err != nil {
		return err
	}
	kind := one.kind
	disabled := false
	if v, ok := attrs.take("type"); ok {
		if kind != "" && v != kind {
			return fmt.Errorf("the type is %s; give --attest %s", kind, one.value)
		}
		kind = v
	}
	if v, ok := attrs.take("disabled"); ok {
		if disabled, err = parseBool("disabled", v); err != nil {
			return err
		}
	}
	switch kind {
	case "":
		return errors.New("type is missing: type=provenance or type=sbom is expected")
	case typeProvenance, typeSBOM:
	default:
		return unknown("type", kind, []string{typeProvenance, typeSBOM})
	}
	if other := from[kind]; other != "" {
		return fmt.Errorf("--%s has the options of the %s too; give them once", other, kind)
	}
	from[kind] = one.flag
	if kind == typeSBOM {
		s, err := attrs.sbom()
		if err == nil && !disabled {
			o.SBOM = s
		}
		return err
	}
	p, err := attrs.provenance()
	if err == nil && !disabled {
		o.Provenance = p
	}
	return err
}

// attribute is KEY=VALUE. Keys of the flags are in lower case; those of a scanner are as given.
type attribute struct{ key, value string }

type attributes []attribute

// attributes splits a value. A value of --provenance or --sbom may be true, false, or a mode.
func (g given) attributes() (attributes, error) {
	if g.kind != "" {
		if is, err := strconv.ParseBool(g.value); err == nil {
			return attributes{{"disabled", strconv.FormatBool(!is)}}, nil
		}
	}
	if g.kind == typeProvenance && slices.Contains(modes, g.value) {
		return attributes{{"mode", g.value}}, nil
	}
	if g.kind != "" && g.value != "" && !strings.ContainsAny(g.value, "=, \t\n\"") {
		return nil, fmt.Errorf("%s or KEY=VALUE,… is expected", words[g.kind])
	}
	fields, err := fields(g.value)
	if err != nil {
		return nil, err
	}
	var list attributes
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if key = strings.TrimSpace(key); !ok || key == "" {
			return nil, fmt.Errorf("%q is not KEY=VALUE", f)
		}
		if _, twice := list.get(key); twice {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		list = append(list, attribute{key, value})
	}
	return list, nil
}

func (l attributes) get(key string) (string, bool) {
	for _, a := range l {
		if strings.EqualFold(a.key, key) {
			return a.value, true
		}
	}
	return "", false
}

// take removes an attribute and returns its value.
func (l *attributes) take(key string) (string, bool) {
	v, ok := l.get(key)
	if ok {
		*l = slices.DeleteFunc(*l, func(a attribute) bool { return strings.EqualFold(a.key, key) })
	}
	return v, ok
}

// fields splits a value at commas, with the quoting rules of CSV.
func fields(s string) ([]string, error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New("it is empty")
	}
	r := csv.NewReader(strings.NewReader(s))
	r.FieldsPerRecord = -1
	record, err := r.Read()
	if pe, ok := errors.AsType[*csv.ParseError](err); ok {
		return nil, fmt.Errorf("%w (a value with a comma is quoted with its key: "+
			"\"builder-id=a,b\")", pe.Err)
	}
	if err != nil {
		return nil, errors.New("it is empty")
	}
	if _, err := r.Read(); err != io.EOF {
		return nil, errors.New("it has more than one line")
	}
	return record, nil
}

// words are the values of the flags that are one word.
var words = map[string]string{typeProvenance: "true, false, min, max", typeSBOM: "true, false"}

var (
	modes          = []string{"max", "min", "full"} // full is an older name of max
	versions       = []string{string(V1), string(V02)}
	provenanceKeys = []string{"builder-id", "capture-usage", "complete-materials", "disable-env",
		"filename", "inline-only", "mode", "reproducible", "version"}
)

// provenance returns the options of the provenance.
func (l attributes) provenance() (*Provenance, error) {
	p := &Provenance{Version: V1}
	for _, a := range l {
		var err error
		switch strings.ToLower(a.key) {
		case "mode":
			if !slices.Contains(modes, a.value) {
				return nil, unknown("mode", a.value, modes[:2])
			}
			p.Min = a.value == "min"
		case "version":
			if p.Version = Version(a.value); !slices.Contains(versions, a.value) {
				return nil, unknown("version", a.value, versions)
			}
		case "builder-id":
			p.BuilderID = a.value
		case "filename":
			p.Filename, err = a.value, checkFilename(a.value)
		case "inline-only":
			p.InlineOnly, err = parseBool(a.key, a.value)
		case "disable-env":
			p.NoEnvironment, err = parseBool(a.key, a.value)
		case "reproducible":
			p.Reproducible, err = parseBool(a.key, a.value)
		case "complete-materials":
			p.Complete, err = parseBool(a.key, a.value)
		case "capture-usage":
			var is bool
			if is, err = parseBool(a.key, a.value); is && err == nil {
				err = errors.New("capture-usage: layerbuild does not measure the memory and the " +
					"CPU time of steps; leave it out")
			}
		default:
			return nil, unknown("key", a.key, append([]string{"disabled"}, provenanceKeys...))
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// checkFilename returns an error unless name is that of a file in the directory of an export.
func checkFilename(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("filename %q: a name without slashes is expected", name)
	}
	return nil
}

// sbom returns the options of the list of software.
func (l attributes) sbom() (*SBOM, error) {
	s := &SBOM{}
	if generator, ok := l.take("generator"); ok {
		if _, err := reference.Parse(generator); err != nil {
			return nil, fmt.Errorf("generator %q: %w", generator, err)
		}
		s.Generator = generator
	}
	for _, a := range l {
		if s.Generator == "" {
			return nil, fmt.Errorf("%s: the built-in scanner has no parameters; give "+
				"generator=IMAGE for another scanner", a.key)
		}
		if strings.ContainsAny(a.key, "\x00") || strings.ContainsAny(a.value, "\x00") {
			return nil, errors.New("it contains a NUL byte")
		}
		if s.Parameters == nil {
			s.Parameters = map[string]string{}
		}
		s.Parameters[a.key] = a.value
	}
	return s, nil
}

func parseBool(key, value string) (bool, error) {
	is, err := strconv.ParseBool(strings.TrimSpace(value))
	if err != nil {
		return false, fmt.Errorf("%s is %q: true or false is expected", key, value)
	}
	return is, nil
}

// unknown returns an error for an unknown name, with a similar known name and the list of the known
// names.
func unknown(what, got string, known []string) error {
	list := slices.Sorted(slices.Values(known))
	if best := suggest.NearFold(got, list); best != "" {
		return fmt.Errorf("unknown %s %q: did you mean %s? (known: %s)", what, got, best,
			strings.Join(list, ", "))
	}
	return fmt.Errorf("unknown %s %q (known: %s)", what, got, strings.Join(list, ", "))
}
