package export

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/blocks"
	"github.com/layerbuild/layerbuild/internal/suggest"
)

// Type is the form in which an image is exported.
type Type string

// The types. "registry" is another spelling of TypeImage with Push.
const (
	TypeImage  Type = "image"  // a name in the local store, and in a registry with Push
	TypeOCI    Type = "oci"    // an OCI image layout, as an archive or a directory
	TypeDocker Type = "docker" // an archive for docker load
	TypeLocal  Type = "local"  // a directory with the files of the image
	TypeTar    Type = "tar"    // a tar of the files of the image
	// TypeCacheOnly writes nothing: the steps run, and their results are in the cache.
	TypeCacheOnly Type = "cacheonly"
)

// Spec is one destination of an image, as described by -o.
type Spec struct {
	Type Type
	// Dest is a file, or a directory if Dir is set; "-" is the standard output. It is "" for
	// TypeImage, and for TypeDocker if the image is loaded into a local engine.
	Dest string
	// Names are further names of the image in this place.
	Names []string
	// Dir is set if Dest is a directory: always for TypeLocal, with tar=false for TypeOCI and
	// TypeDocker.
	Dir bool

	Push     bool // for TypeImage: push to the registries of its names
	NoPush   bool // push=false was given: ByDigest and Insecure are for another value of it
	ByDigest bool // with Push: push without a tag
	Insecure bool // with Push: plain http, or TLS without verifying

	// Layers has the format of the image's blobs. It is used when layers are sealed; exporters copy
	// blobs unchanged.
	Layers Layers
	// Annotations are added to the image's documents before it is exported.
	Annotations []Annotation

	// Epoch is the latest time of a file, in seconds since 1970; nil: that of the build.
	Epoch *int64
	// NoEpoch is set by an empty source-date-epoch: RewriteTimestamp has no effect.
	NoEpoch bool
	// AttestationPrefix precedes the names of the files with attestations, in a flat export.
	AttestationPrefix string
	// Split sets whether a flat export has a directory for each platform, "linux_amd64"; nil: if
	// there are several.
	Split *bool
	// Context is the docker context to load into; "": the current one.
	Context string
}

// Uncompressed is the value of compression=… for layers that are not compressed.
const Uncompressed = "uncompressed"

// Layers is the format of an image's blobs.
type Layers struct {
	Compression      string // "gzip", "zstd" or Uncompressed; "": the default
	Level            *int   // nil: the compression's default
	Force            bool   // apply to existing layers, too
	OCIMediaTypes    *bool  // nil: true
	PruneDead        bool   // remove entries that are not visible in the image
	RewriteTimestamp *bool  // limit the times in layers to SOURCE_DATE_EPOCH; nil: not given
	// Artifact writes the manifests of attestations as artifacts that refer to the image.
	Artifact bool
	// InlineAttestations sets whether provenance with inline-only makes an index of an image for
	// one platform; nil: with TypeImage.
	InlineAttestations *bool
}

// Annotation is an OCI annotation and the document to which it is added.
type Annotation struct {
	Target Target
	// Platform limits the annotation to the manifest of one platform, "linux/arm64"; "": all.
	Platform   string
	Key, Value string
}

// Target is a document to which an annotation is added, or the descriptor of the document in the
// index that refers to it.
type Target string

// The targets, as users write them.
const (
	Manifest           Target = "manifest"
	Index              Target = "index"
	ManifestDescriptor Target = "manifest-descriptor"
	IndexDescriptor    Target = "index-descriptor"
)

// IsTarget reports whether a word is a target.
func IsTarget(word string) bool { return slices.Contains(targets, word) }

var targets = []string{string(Index), string(IndexDescriptor), string(Manifest),
	string(ManifestDescriptor)}

// String returns a in the syntax of --annotation, without the value.
func (a Annotation) String() string {
	s := string(a.Target)
	if a.Platform != "" {
		s += "[" + a.Platform + "]"
	}
	return s + ":" + a.Key
}

// Flat reports whether s exports only the image's files, for which no layers, config and
// manifest are needed.
func (s Spec) Flat() bool { return s.Type == TypeLocal || s.Type == TypeTar }

// MakesImage reports whether an image is made for s: manifest, configuration and layers.
func (s Spec) MakesImage() bool { return !s.Flat() && s.Type != TypeCacheOnly }

// String returns s in the syntax of -o.
func (s Spec) String() string {
	if s.Dest == "" {
		return "type=" + string(s.Type)
	}
	return "type=" + string(s.Type) + ",dest=" + s.Dest
}

// Parse parses a value of -o: "type=oci,dest=out.tar,name=a", comma-separated with the quoting
// rules of CSV. A directory alone means type=local, and "-" means type=tar to the standard
// output. name may be given more than once, and may have several names separated by commas
// (quoted: "name=a,b").
func Parse(s string) (Spec, error) {
	spec, err := parse(s)
	if err != nil {
		return Spec{}, fmt.Errorf("output %q: %w", s, err)
	}
	return spec, nil
}

func parse(s string) (Spec, error) {
	fields, err := fields(s)
	if err != nil {
		return Spec{}, err
	}
	if len(fields) == 1 && !isAttr(fields[0]) {
		switch fields[0] {
		case "":
			return Spec{}, errors.New("it is empty")
		case "-":
			return Spec{Type: TypeTar, Dest: "-"}, nil
		}
		return Spec{Type: TypeLocal, Dest: fields[0], Dir: true}, nil
	}
	var spec Spec
	attrs := make([]attr, 0, len(fields))
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return Spec{}, fmt.Errorf("%q is not key=value", f)
		}
		key = strings.TrimSpace(key)
		if strings.EqualFold(key, "type") {
			if spec.Type != "" {
				return Spec{}, errors.New("type is given twice")
			}
			if err := spec.setType(value); err != nil {
				return Spec{}, err
			}
			continue
		}
		attrs = append(attrs, attr{key, value})
	}
	if spec.Type == "" {
		return Spec{}, fmt.Errorf("type is missing: one of %s", strings.Join(typeNames, ", "))
	}
	seen := map[string]bool{}
	for _, a := range attrs {
		key := strings.ToLower(a.key)
		if strings.HasPrefix(key, "annotation") {
			key = a.key // the case of an annotation's key matters
		}
		if seen[key] && key != "name" {
			return Spec{}, fmt.Errorf("%s is given twice", a.key)
		}
		seen[key] = true
		if err := spec.set(a); err != nil {
			return Spec{}, err
		}
	}
	return spec, spec.check()
}

type attr struct{ key, value string }

// isAttr reports whether a value is an attribute without a type ("dest=x"), which is an error,
// and not a directory's name.
func isAttr(field string) bool {
	key, _, ok := strings.Cut(field, "=")
	return ok && (strings.EqualFold(key, "type") ||
		slices.Contains(allKeys(), strings.ToLower(key)))
}

func fields(s string) ([]string, error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New("it is empty")
	}
	if strings.ContainsAny(s, "\x00") {
		return nil, errors.New("it contains a NUL byte")
	}
	r := csv.NewReader(strings.NewReader(s))
	r.FieldsPerRecord = -1
	record, err := r.Read()
	if pe, ok := errors.AsType[*csv.ParseError](err); ok {
		return nil, fmt.Errorf("%w (a value with a comma is quoted with its key: \"name=a,b\")",
			pe.Err)
	}
	if err != nil {
		return nil, errors.New("it is empty")
	}
	if _, err := r.Read(); err != io.EOF {
		return nil, errors.New("it has more than one line")
	}
	return record, nil
}

var typeNames = []string{"cacheonly", "docker", "image", "local", "oci", "registry", "tar"}

func (s *Spec) setType(value string) error {
	switch name := strings.ToLower(strings.TrimSpace(value)); name {
	case "registry":
		s.Type, s.Push = TypeImage, true
	case "image", "oci", "docker", "tar", "cacheonly":
		s.Type = Type(name)
	case "local":
		s.Type, s.Dir = TypeLocal, true
	default:
		return unknown("type", value, typeNames)
	}
	return nil
}

// Keys by the types that they apply to. "annotation" means annotation.KEY and its variants.
var (
	layerKeys = []string{"annotation", "attestation-inline", "compression", "compression-level",
		"force-compression", "oci-artifact", "oci-mediatypes", "prune-dead", "rewrite-timestamp",
		"source-date-epoch"}
	keysOf = map[Type][]string{
		TypeImage: append([]string{"name", "push", "push-by-digest", "registry.insecure"},
			layerKeys...),
		TypeOCI:    append([]string{"dest", "name", "tar"}, layerKeys...),
		TypeDocker: append([]string{"context", "dest", "name", "tar"}, layerKeys...),
		TypeLocal:  {"attestation-prefix", "dest", "platform-split", "source-date-epoch"},
		TypeTar:    {"attestation-prefix", "dest", "platform-split", "source-date-epoch"},
	}
)

func allKeys() []string {
	var all []string
	for _, keys := range keysOf {
		all = append(all, keys...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *Spec) set(a attr) error {
	if annotation, ok, err := parseAnnotation(a); ok || err != nil {
		s.Annotations = append(s.Annotations, annotation)
		if err == nil && !slices.Contains(keysOf[s.Type], "annotation") {
			err = s.notTaken("annotation")
		}
		return err
	}
	key := strings.ToLower(a.key)
	if known, err := without(s.Type, key, a); known || err != nil {
		return err
	}
	if !slices.Contains(keysOf[s.Type], key) || key == "annotation" {
		if key != "annotation" && slices.Contains(allKeys(), key) {
			return s.notTaken(key)
		}
		return unknown("key", a.key, append(s.keys(), "type"))
	}
	var err error
	switch key {
	case "dest", "context":
		// An unset variable in dest=$FILE must not mean the standard output.
		if a.value == "" {
			return fmt.Errorf("%s is empty", key)
		}
		if key == "dest" {
			s.Dest = a.value
		} else {
			s.Context = a.value
		}
	case "name":
		err = s.addNames(a.value)
	case "tar":
		var tar bool
		tar, err = parseBool(a)
		s.Dir = !tar
	case "push":
		var push bool
		push, err = parseBool(a)
		s.Push = push // type=registry sets push only as a default
		s.NoPush = !push
	case "push-by-digest":
		s.ByDigest, err = parseBool(a)
	case "registry.insecure":
		s.Insecure, err = parseBool(a)
	case "attestation-prefix":
		s.AttestationPrefix, err = a.value, checkPrefix(a.value)
	case "platform-split":
		s.Split, err = parseBoolPtr(a)
	case "source-date-epoch":
		s.Epoch, err = parseEpoch(a)
		s.NoEpoch = a.value == ""
	default:
		err = s.Layers.set(key, a)
	}
	return err
}

func (l *Layers) set(key string, a attr) error {
	var err error
	switch key {
	case "compression":
		kinds := []string{"gzip", Uncompressed, "zstd"}
		if l.Compression = strings.ToLower(a.value); !slices.Contains(kinds, l.Compression) {
			return unknown("compression", a.value, kinds)
		}
	case "compression-level":
		level, aerr := strconv.Atoi(a.value)
		if aerr != nil {
			return fmt.Errorf("compression-level %q is not a number", a.value)
		}
		l.Level = &level
	case "force-compression":
		l.Force, err = parseBool(a)
	case "attestation-inline":
		l.InlineAttestations, err = parseBoolPtr(a)
	case "oci-artifact":
		l.Artifact, err = parseBool(a)
	case "oci-mediatypes":
		l.OCIMediaTypes, err = parseBoolPtr(a)
	case "prune-dead":
		l.PruneDead, err = parseBool(a)
	case "rewrite-timestamp":
		l.RewriteTimestamp, err = parseBoolPtr(a)
	default:
		panic("unreachable: " + key)
	}
	return err
}

// checkPrefix returns an error for a prefix with which a name is not in the directory of the
// export.
func checkPrefix(prefix string) error {
	if strings.ContainsAny(prefix, "/\x00") {
		return fmt.Errorf("attestation-prefix %q: a prefix without slashes is expected", prefix)
	}
	return nil
}

func (s *Spec) addNames(value string) error {
	if strings.Trim(value, ", ") == "" {
		return errors.New("name is empty")
	}
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if _, err := normalize(name); err != nil {
			return err
		}
		s.Names = append(s.Names, name)
	}
	return nil
}

// check finds errors that concern several keys.
func (s *Spec) check() error {
	switch {
	case s.Dir && s.Dest == "":
		return fmt.Errorf("type=%s requires dest, a directory", s.Type)
	case s.Dir && s.Dest == "-":
		return errors.New("a directory cannot be written to standard output")
	case s.Dest == "" && (s.Type == TypeOCI || s.Type == TypeTar):
		s.Dest = "-"
	case s.Context != "" && s.Dest != "":
		return errors.New("context selects where the image is loaded, and dest where it is " +
			"written; give one of them")
	}
	if oci := s.Layers.OCIMediaTypes; s.Layers.Artifact && oci != nil && !*oci {
		return errors.New("oci-artifact=true has no effect with oci-mediatypes=false: Docker's " +
			"format has no artifacts")
	}
	if l := s.Layers.Level; l != nil {
		highest := blocks.MaxLevel(cmp.Or(s.Layers.Compression, "gzip"))
		if highest == 0 {
			return fmt.Errorf("compression-level has no effect with compression=%s",
				s.Layers.Compression)
		}
		if *l < 1 || *l > highest {
			return fmt.Errorf("compression-level %d is not in 1..%d; to disable compression, "+
				"give compression=%s", *l, highest, Uncompressed)
		}
	}
	return nil
}

// keys returns the keys that are valid for s's type, in the syntax of -o.
func (s *Spec) keys() []string {
	keys := slices.Clone(keysOf[s.Type])
	for i, k := range keys {
		if k == "annotation" {
			keys[i] = "annotation.KEY"
		}
	}
	slices.Sort(keys)
	return keys
}

func (s *Spec) notTaken(key string) error {
	if len(keysOf[s.Type]) == 0 {
		return fmt.Errorf("type=%s accepts no other attribute, and not %s", s.Type, key)
	}
	return fmt.Errorf("type=%s does not accept %s: it accepts %s", s.Type, key,
		strings.Join(s.keys(), ", "))
}

// parseAnnotation parses annotation[-TARGET][PLATFORM in brackets].KEY=VALUE. It reports whether
// a is an annotation.
func parseAnnotation(a attr) (Annotation, bool, error) {
	head, key, found := strings.Cut(a.key, ".")
	head = strings.ToLower(head)
	rest, ok := strings.CutPrefix(head, "annotation")
	if !ok || !found && !strings.Contains(head, "[") {
		return Annotation{}, false, nil
	}
	platform := ""
	if target, p, bracket := strings.Cut(rest, "["); bracket {
		if p, bracket = strings.CutSuffix(p, "]"); !bracket || p == "" {
			return Annotation{}, true, fmt.Errorf("%q is not annotation[PLATFORM].KEY", a.key)
		}
		rest, platform = target, p
	}
	target := strings.TrimPrefix(rest, "-")
	switch {
	case rest == "":
		target = string(Manifest)
	case rest[0] != '-':
		return Annotation{}, false, nil
	}
	if !IsTarget(target) {
		return Annotation{}, true, unknown("annotation target", target, targets)
	}
	if key == "" {
		return Annotation{}, true, fmt.Errorf("%q has no annotation key", a.key)
	}
	return Annotation{Target: Target(target), Platform: platform, Key: key, Value: a.value}, true,
		nil
}

func parseBool(a attr) (bool, error) {
	b, err := strconv.ParseBool(strings.TrimSpace(a.value))
	if err != nil {
		return false, fmt.Errorf("%s is %q: true or false is expected", a.key, a.value)
	}
	return b, nil
}

// parseEpoch parses a time in seconds since 1970. An empty value means that the output has no
// epoch of its own, as in BuildKit.
func parseEpoch(a attr) (*int64, error) {
	if a.value == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(a.value), 10, 64)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("%s is %q: a time in seconds since 1970 is expected", a.key, a.value)
	}
	return &n, nil
}

func parseBoolPtr(a attr) (*bool, error) {
	b, err := parseBool(a)
	return &b, err
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
