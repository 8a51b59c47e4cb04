package ocidoc

import (
	"encoding/json"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	manifestJSON = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`
	indexJSON    = `{"schemaVersion":2,` +
		`"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
)

// TestTypeOf checks that a document is refused if two readers could interpret it differently.
func TestTypeOf(t *testing.T) {
	const bare = `{"schemaVersion":2,"config":{},"layers":[]}`
	tests := []struct {
		name, data string
		given      []string
		want, err  string
	}{
		{"manifest", manifestJSON, nil, ocispec.MediaTypeImageManifest, ""},
		{"index", indexJSON, []string{ocispec.MediaTypeImageIndex},
			ocispec.MediaTypeImageIndex, ""},
		{"by its keys", bare, nil, ocispec.MediaTypeImageManifest, ""},
		{"by its keys, an index", `{"manifests":[]}`, []string{"text/plain"},
			ocispec.MediaTypeImageIndex, ""},
		{"by the header", bare, []string{DockerManifest}, DockerManifest, ""},
		{"general header", manifestJSON, []string{"application/octet-stream"},
			ocispec.MediaTypeImageManifest, ""},
		{"null is nothing", `{"manifests":null,"config":{},"layers":[]}`, nil,
			ocispec.MediaTypeImageManifest, ""},
		{"both", `{"manifests":[],"config":{},"layers":[]}`, nil, "", "both a manifest"},
		{"both, with a type", `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"layers":[]}`, nil, "", "both a manifest"},
		{"twice", `{"manifests":[],"manifests":null}`, nil, "", "twice"},
		{"other letters", `{"config":{},"layers":[],"Manifests":[]}`, nil, "", "only in case"},
		{"other letters, folded", "{\"config\":{},\"layer\u017f\":[]}", nil, "", "only in case"},
		{"twice, escaped", `{"config":{},"layers":[],"l\u0061yers":[1]}`, nil, "", "twice"},
		{"media type twice", `{"mediaType":"application/vnd.oci.image.index.v1+json","mediatype":"x","manifests":[]}`, nil, "", "only in case"},
		{"header is another", manifestJSON, []string{DockerManifest}, "", "both"},
		{"header is an index", bare, []string{ocispec.MediaTypeImageIndex}, "",
			"which does not match its content"},
		{"header is a manifest", `{"manifests":[]}`, []string{ocispec.MediaTypeImageManifest}, "",
			"which does not match its content"},
		{"header is a layer", manifestJSON, []string{ocispec.MediaTypeImageLayerGzip}, "", "both"},
		{"descriptor is another", indexJSON,
			[]string{"", ocispec.MediaTypeImageManifest}, "", "both"},
		{"own type lies", `{"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}`, nil, "", "which does not match its content"},
		{"schema 1", `{"schemaVersion":1}`, nil, "", "schema 1"},
		{"helm", `{"mediaType":"application/vnd.cncf.helm.config.v1+json"}`,
			nil, "", "not an image"},
		{"nothing", `{}`, []string{"text/html"}, "", `not an image but "text/html"`},
		{"array", `[]`, nil, "", "not a manifest"},
		{"trailing", manifestJSON + `{}`, nil, "", "after top-level value"},
		{"cut", manifestJSON[:40], nil, "", "not a manifest"},
		{"empty", ``, nil, "", "not a manifest"},
		{"deep", strings.Repeat("[", 1<<20), nil, "", "not a manifest"},
	}
	for _, tt := range tests {
		got, err := TypeOf([]byte(tt.data), tt.given...)
		if got != tt.want || tt.err == "" && err != nil ||
			tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: TypeOf = %q, %v, want %q, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// FuzzTypeOf checks that an accepted document has the same type for readers that use the first of
// two equal keys and for readers that use the last.
func FuzzTypeOf(f *testing.F) {
	for _, data := range []string{manifestJSON, indexJSON, `{"manifests":[],"layers":null}`,
		`{"Layers":[],"layers":[]}`} {
		f.Add([]byte(data), "")
		f.Add([]byte(data), DockerManifest)
	}
	f.Fuzz(func(t *testing.T, data []byte, given string) {
		got, err := TypeOf(data, given)
		if err != nil {
			return
		}
		var m ocispec.Manifest
		var index ocispec.Index
		if json.Unmarshal(data, &m) != nil || json.Unmarshal(data, &index) != nil {
			return // refused later
		}
		if m.MediaType != "" && m.MediaType != got {
			t.Errorf("%s calls itself %q and is taken for %q", data, m.MediaType, got)
		}
		if IsIndex(got) && (m.Layers != nil || m.Config.Digest != "") ||
			!IsIndex(got) && index.Manifests != nil {
			t.Errorf("%s is taken for %q", data, got)
		}
	})
}
