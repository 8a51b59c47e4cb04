package export

import (
	"fmt"
	"slices"
	"strings"
)

// Attribute is an attribute of BuildKit's exporters that has no effect here, or is refused.
// docs/CLI.md is made from Attributes.
type Attribute struct {
	Key string
	// Value is the value to which the row applies; "": every value that no other row has.
	Value string
	// Bool is set if the value must be true or false.
	Bool    bool
	Types   []Type
	Refused bool
	// Why is the reason why nothing is lost or, of a refused attribute, why it is refused, with the
	// remedy.
	Why string
}

// String returns a in the syntax of -o.
func (a Attribute) String() string {
	if a.Value == "" {
		return a.Key
	}
	return a.Key + "=" + a.Value
}

// The types for which an image is made, and the types that write files.
var (
	imageTypes = []Type{TypeImage, TypeOCI, TypeDocker}
	fileTypes  = []Type{TypeLocal, TypeTar}
)

var attributes = [...]Attribute{
	{Key: "name-canonical", Bool: true, Types: imageTypes,
		Why: "an image can always be found by NAME@DIGEST"},
	{Key: "dangling-name-prefix", Types: imageTypes,
		Why: "an image without a name can be found by its image ID and by its digests"},
	{Key: "danging-name-empty-only", Bool: true, Types: imageTypes, // BuildKit's spelling
		Why: "it changes only dangling-name-prefix"},
	{Key: "unpack", Bool: true, Types: imageTypes,
		Why: "the layers of an image are unpacked when they are needed"},
	{Key: "store", Bool: true, Types: imageTypes,
		Why: "the image is always in the store, from which rm and prune remove it"},
	{Key: "prefer-nondist-layers", Bool: true, Types: imageTypes,
		Why: "layers that must not be distributed always keep their media type"},
	{Key: "compression", Value: "estargz", Types: imageTypes, Refused: true,
		Why: "layerbuild writes no eStargz layers, and a registry would not show that they are " +
			"missing; give compression=zstd or compression=gzip"},
	{Key: "mode", Value: "copy", Types: []Type{TypeLocal},
		Why: "files that the destination already has are always kept"},
	{Key: "mode", Value: "delete", Types: []Type{TypeLocal}, Refused: true,
		Why: "layerbuild deletes no files of a destination; remove the directory before the build"},
	{Key: "src", Types: fileTypes, Refused: true,
		Why: "the whole file system is written; to select a directory, end the Dockerfile with a " +
			"stage FROM scratch that has COPY --from=STAGE DIRECTORY /"},
}

// Attributes returns the attributes of BuildKit's exporters that have no effect or are refused.
func Attributes() []Attribute { return slices.Clone(attributes[:]) }

// without reports whether an attribute of an output has no effect. For a refused one, or one with
// an unexpected value, it returns an error.
func without(t Type, key string, a attr) (bool, error) {
	var values []string
	for _, row := range attributes {
		if row.Key != key || !slices.Contains(row.Types, t) {
			continue
		}
		if row.Value != "" && !strings.EqualFold(row.Value, strings.TrimSpace(a.value)) {
			values = append(values, row.Value)
			continue
		}
		if row.Refused {
			return false, fmt.Errorf("%s: %s", row, row.Why)
		}
		if row.Bool {
			_, err := parseBool(a)
			return err == nil, err
		}
		return true, nil
	}
	if len(values) > 0 && !slices.Contains(keysOf[t], key) {
		return false, fmt.Errorf("%s %q: %s is expected", key, a.value,
			strings.Join(values, " or "))
	}
	return false, nil
}
