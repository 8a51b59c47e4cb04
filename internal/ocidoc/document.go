package ocidoc

import (
	"errors"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/ocijson"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The sizes of the largest documents that are read. Real ones are a thousand times smaller; larger
// ones may be an attack.
const (
	// MaxManifest limits manifests and indexes in registries. The distribution specification asks
	// registries to accept at least 4 MiB.
	MaxManifest = 8 << 20
	// MaxConfig limits configurations, and the index.json of a layout. A long history makes a
	// configuration larger than its manifest.
	MaxConfig = 16 << 20
	// MaxDocument limits documents in the store and in exports. It is larger than the other two, so
	// that whatever could be fetched can also be read and exported.
	MaxDocument = 32 << 20
)

// MaxNesting limits the depth of indexes in indexes.
const MaxNesting = 4

// ErrNesting is returned for an image whose indexes are nested more deeply than MaxNesting.
var ErrNesting = fmt.Errorf("indexes are nested more than %d deep", MaxNesting)

// Document contains the descriptors in a manifest or an index, whose formats have them in fields of
// different names.
type Document struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Blobs     []ocispec.Descriptor `json:"blobs"` // of an artifact manifest
	Manifests []ocispec.Descriptor `json:"manifests"`
	Subject   *ocispec.Descriptor  `json:"subject"`
}

var errBoth = errors.New("it is both a manifest and an index")

// Parse decodes a manifest or an index. It returns an error for a document that two readers could
// interpret differently. TypeOf also returns the type, and compares it with types from other
// sources.
func Parse(data []byte) (*Document, error) {
	d := new(Document)
	if err := ocijson.Unmarshal(data, d); err != nil {
		return nil, err
	}
	if d.Manifests != nil && (d.Config != nil || d.Layers != nil) {
		return nil, errBoth
	}
	return d, nil
}

// Content returns the blobs of a manifest that refer to no other blobs: its configuration and its
// layers.
func (d *Document) Content() []ocispec.Descriptor {
	var out []ocispec.Descriptor
	if d.Config != nil {
		out = append(out, *d.Config)
	}
	out = append(out, d.Layers...)
	return append(out, d.Blobs...)
}

// Children returns all descriptors in a document.
func (d *Document) Children() []ocispec.Descriptor {
	out := append(d.Content(), d.Manifests...)
	if d.Subject != nil {
		out = append(out, *d.Subject)
	}
	return out
}
