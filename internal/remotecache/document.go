package remotecache

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/sorting"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// MediaType is the media type of a Document that is the configuration of an artifact.
	MediaType = "application/vnd.layerbuild.cache.v1+json"
	// Field is the field of an image's configuration that holds a Document.
	Field = "layerbuild.cache.v1"
)

// Document holds the results of steps.
type Document struct {
	Records []Record `json:"records"`
	// Written is the time when a Shared wrote the document, by the clock of its machine.
	Written time.Time `json:"written,omitzero"`
}

// Record is the result of a step. Its Layer is nil for an instruction that only changes the image's
// configuration: the record then only has the time when the instruction was first built.
type Record struct {
	Key cache.Key `json:"key"`
	// Content is the step's content key; "" if it is Key.
	Content cache.Key `json:"content,omitempty"`
	Created time.Time `json:"created"`
	Layer   *Layer    `json:"layer,omitempty"`
	// Written is the time when a Shared last wrote the record. It is not signed.
	Written time.Time `json:"written,omitzero"`
	// Step is the instruction, for people who look at the cache. It is not signed.
	Step string `json:"step,omitempty"`
	// Signature is the signature of a Key in base64; "": the record is not signed.
	Signature string `json:"signature,omitempty"`
}

// ContentKey returns the key from which the key of the next step is made.
func (r Record) ContentKey() cache.Key { return cmp.Or(r.Content, r.Key) }

// Layer is the layer that a step has made. It can be used only on the layers of Parent: a command
// that runs again on another machine may make different files, and layers of two runs do not fit
// together.
type Layer struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	DiffID     digest.Digest      `json:"diffID"`
	Parent     digest.Digest      `json:"parent,omitempty"` // chain ID
	// Sealed is the text of the layer's format (layers.Format). The blob is used unchanged only in
	// a build with that format.
	Sealed string `json:"sealed"`
}

// Epoch returns the epoch with which the layer was sealed; nil for none.
func (l *Layer) Epoch() *int64 { return layers.EpochOf(l.Sealed) }

// Sort sorts the records and removes duplicates, so that the same results always have the same
// document, in whatever order they were added. Duplicates have the same key, and the same layer on
// the same layers; the one that was built first is kept.
func (doc *Document) Sort() {
	result := func(r Record) digest.Digest {
		if r.Layer == nil {
			return ""
		}
		return r.Layer.Parent + r.Layer.DiffID
	}
	blob := func(r Record) string {
		if r.Layer == nil {
			return ""
		}
		return string(r.Layer.Descriptor.Digest) + r.Layer.Sealed
	}
	sorting.Func(doc.Records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(result(a), result(b)),
			a.Created.Compare(b.Created), cmp.Compare(a.Content, b.Content),
			cmp.Compare(blob(a), blob(b)))
	})
	doc.Records = slices.CompactFunc(doc.Records,
		func(a, b Record) bool { return a.Key == b.Key && result(a) == result(b) })
}

// errNoRecords is returned for an image without inline records.
var errNoRecords = errors.New("it holds no records of steps; was it built with --cache-to?")

// recordsOf returns the records of an artifact, or those in the configuration of an image.
func recordsOf(a *image.Artifact) ([]Record, error) {
	data := json.RawMessage(a.Config)
	if a.Manifest.Config.MediaType != MediaType {
		var config map[string]json.RawMessage
		if err := ocijson.Unmarshal(a.Config, &config); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		if data = config[Field]; data == nil {
			return nil, errNoRecords
		}
	}
	var doc Document
	if err := ocijson.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	return doc.Records, nil
}
