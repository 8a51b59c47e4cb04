package ocidoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/ocijson"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TypeOf returns the media type of a manifest or an index. given are the types in the
// Content-Type of the answer and in the descriptor of an index; empty ones are ignored.
//
// An error is returned for a document that can be read both as a manifest and as an index, or
// whose content contradicts its own type or those of given. Two programs could read two different
// images from such a document, with one digest (CVE-2021-41190). A general type such as
// application/json is not a contradiction: file servers that act as registries send it.
func TypeOf(data []byte, given ...string) (string, error) {
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return "", errors.New("not a manifest: not a JSON object")
	}
	var top topLevel
	if err := ocijson.Unmarshal(data, &top); err != nil {
		return "", fmt.Errorf("not a manifest: %w", err)
	}
	own := top.MediaType
	if string(top.SchemaVersion) == "1" || slices.ContainsFunc(given, func(t string) bool {
		return strings.HasPrefix(t, "application/vnd.docker.distribution.manifest.v1+")
	}) {
		return "", errors.New("it has the format of Docker before 1.10 (schema 1), which is not " +
			"supported; push the image again with a current tool")
	}
	isIndex, hasConfig, hasLayers := has(top.Manifests), has(top.Config), has(top.Layers)
	if isIndex && (hasConfig || hasLayers) {
		return "", errBoth
	}
	t := ""
	for _, name := range append([]string{own}, given...) {
		switch {
		case !definite(name):
		case t == "":
			t = name
		case t != name:
			return "", fmt.Errorf("its type is given as both %.300q and %.300q", t, name)
		}
	}
	switch {
	case own != "" && !definite(own):
		return "", fmt.Errorf("it is not an image but %.300q", own)
	case t != "" && !slices.Contains(Accepted(), t):
		return "", fmt.Errorf("it is not an image but %.300q", t)
	case t != "" && (IsIndex(t) && (hasConfig || hasLayers) || !IsIndex(t) && isIndex):
		return "", fmt.Errorf("its type is given as %.300q, which does not match its content",
			t)
	case t != "":
		return t, nil
	case isIndex:
		return ocispec.MediaTypeImageIndex, nil
	case hasConfig && hasLayers:
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("it is not an image but %.300q", strings.Join(given, " "))
}

// topLevel contains the keys that identify the kind of a document.
type topLevel struct {
	SchemaVersion json.RawMessage `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Manifests     json.RawMessage `json:"manifests"`
	Config        json.RawMessage `json:"config"`
	Layers        json.RawMessage `json:"layers"`
}

// has reports whether a document has the key of this value.
func has(value json.RawMessage) bool { return value != nil && string(value) != "null" }

// definite reports whether a media type is a type for images, and so identifies the kind of a
// document.
func definite(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.")
}
