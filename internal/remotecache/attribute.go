package remotecache

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Attribute is an attribute of BuildKit's --cache-to that has no effect here, or is refused.
// docs/CLI.md is made from Attributes.
type Attribute struct {
	Key string
	// Values are the values that the attribute may have. {"N"} stands for numbers.
	Values []string
	// Refused holds those of Values that are refused.
	Refused []string
	// Why is the reason why nothing is lost, or why values are refused, with the remedy.
	Why string
}

var (
	booleans = []string{"true", "false"}

	attributes = [...]Attribute{
		{Key: "image-manifest", Values: booleans, Why: oneManifest},
		{Key: "oci-mediatypes", Values: booleans, Why: oneManifest},
		{Key: "compression", Values: []string{"gzip", "zstd", "uncompressed", "estargz"},
			Why: sameLayers},
		{Key: "compression-level", Values: []string{"N"}, Why: sameLayers},
		{Key: "force-compression", Values: booleans, Why: sameLayers},
		{Key: "reset", Values: booleans, Refused: []string{"true"},
			Why: "layerbuild deletes no files of the directory; to begin with an empty one, " +
				"remove it before the build"},
	}
)

const (
	oneManifest = "the cache is always one OCI manifest"
	sameLayers  = "the cache holds the layers as they are in the image; compression=… of " +
		"--output changes both"
)

// Attributes returns the attributes of --cache-to that have no effect or are refused.
func Attributes() []Attribute { return slices.Clone(attributes[:]) }

// without returns an error unless an attribute of --cache-to has no effect.
func without(key, value string) error {
	for _, row := range attributes {
		if row.Key != key {
			continue
		}
		switch {
		case slices.Contains(row.Refused, value):
			return fmt.Errorf("%s=%s: %s", key, value, row.Why)
		case row.Values[0] == "N":
			if _, err := strconv.Atoi(value); err != nil {
				return fmt.Errorf("%s=%s: a number is expected", key, value)
			}
		case row.Values[0] == "true":
			_, err := parseBool(key, value)
			return err
		case !slices.Contains(row.Values, value):
			return fmt.Errorf("%s=%s: %s is expected", key, value,
				strings.Join(row.Values, " or "))
		}
		return nil
	}
	return fmt.Errorf("unknown key %q (known: type, ref, dest, tag, mode, ignore-error, "+
		"registry.insecure)", key)
}
