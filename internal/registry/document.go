package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// DocumentType returns the media type of a manifest or an index. said are the types in the
// Content-Type of the answer and in the descriptor of an index; empty ones are ignored.
//
// An error is returned for a document that can be read both as a manifest and as an index, or
// whose content contradicts its own type or those of said. Two programs could read two different
// images from such a document, with one digest (CVE-2021-41190). A general type such as
// application/json is not a contradiction: file servers that act as registries send it.
func DocumentType(data []byte, said ...string) (string, error) {
	top, err := topLevel(data)
	if err != nil {
		return "", fmt.Errorf("not a manifest: %w", err)
	}
	var own string
	if raw, ok := top["mediaType"]; ok {
		if err := json.Unmarshal(raw, &own); err != nil {
			return "", fmt.Errorf("not a manifest: mediaType: %w", err)
		}
	}
	if string(top["schemaVersion"]) == "1" || slices.ContainsFunc(said, func(t string) bool {
		return strings.HasPrefix(t, "application/vnd.docker.distribution.manifest.v1+")
	}) {
		return "", errors.New("it has the format of Docker before 1.10 (schema 1), which is not supported: push the image again with a current tool")
	}
	_, isIndex := top["manifests"]
	_, hasConfig := top["config"]
	_, hasLayers := top["layers"]
	if isIndex && (hasConfig || hasLayers) {
		return "", errors.New("it is both a manifest and an index")
	}
	t := ""
	for _, name := range append([]string{own}, said...) {
		switch {
		case !definite(name):
		case t == "":
			t = name
		case t != name:
			return "", fmt.Errorf("its type is given as both %q and %q",
				printable(t), printable(name))
		}
	}
	switch {
	case own != "" && !definite(own):
		return "", fmt.Errorf("it is not an image but %q", printable(own))
	case t != "" && !slices.Contains(accepted, t):
		return "", fmt.Errorf("it is not an image but %q", printable(t))
	case t != "" && (IsIndex(t) && (hasConfig || hasLayers) || !IsIndex(t) && isIndex):
		return "", fmt.Errorf("its type is given as %q, which does not match its content",
			printable(t))
	case t != "":
		return t, nil
	case isIndex:
		return ocispec.MediaTypeImageIndex, nil
	case hasConfig && hasLayers:
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("it is not an image but %q", printable(strings.Join(said, " ")))
}

// definite reports whether a media type is one of those of images, and so identifies the kind of a
// document.
func definite(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.")
}

// topLevel returns the values, except null, of the keys that identify the kind of a document. A key
// that occurs twice, or in different case, is an error: encoding/json and other readers use
// different occurrences.
func topLevel(data []byte) (map[string]json.RawMessage, error) {
	keys := []string{"schemaVersion", "mediaType", "manifests", "config", "layers"}
	d := json.NewDecoder(bytes.NewReader(data))
	if tok, err := d.Token(); err != nil {
		return nil, err
	} else if tok != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	found := map[string]json.RawMessage{}
	seen := map[string]bool{}
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		key, _ := tok.(string)
		i := slices.IndexFunc(keys, func(k string) bool { return strings.EqualFold(k, key) })
		if i < 0 {
			continue
		}
		if seen[keys[i]] || key != keys[i] {
			return nil, fmt.Errorf("the key %q occurs twice, or in different case", printable(key))
		}
		seen[key] = true
		if string(value) != "null" {
			found[key] = value
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(data[d.InputOffset():])) > 0 {
		return nil, errors.New("there is data after its end")
	}
	return found, nil
}
