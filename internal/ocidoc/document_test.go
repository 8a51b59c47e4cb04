package ocidoc

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in, content, children, err string
	}{
		{`{"config":{"digest":"c"},"layers":[{"digest":"l"},{"digest":"m"}],"subject":{"digest":"s"}}`,
			"c l m", "c l m s", ""},
		{`{"manifests":[{"digest":"a"},{"digest":"b"}],"subject":{"digest":"s"}}`, "", "a b s", ""},
		{`{"blobs":[{"digest":"a"}],"subject":{"digest":"s"}}`, "a", "a s", ""},
		{`{}`, "", "", ""},
		{`{"manifests":[],"config":{}}`, "", "", "both a manifest and an index"},
		{`{"manifests":[],"layers":[]}`, "", "", "both a manifest and an index"},
		{`{"layers":[],"layers":[]}`, "", "", "twice"},
		{`{"layers":[{"digest":"a","Digest":"b"}]}`, "", "", "only in case"},
		{`{"layers":7}`, "", "", "cannot unmarshal"},
	} {
		doc, err := Parse([]byte(tt.in))
		if err != nil || tt.err != "" {
			if doc != nil || err == nil || tt.err == "" || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Parse(%s) = %v, %v, want %q", tt.in, doc, err, tt.err)
			}
			continue
		}
		for got, want := range map[string]string{digests(doc.Content()): tt.content,
			digests(doc.Children()): tt.children} {
			if got != want {
				t.Errorf("%s refers to %q, want %q", tt.in, got, want)
			}
		}
	}
}

func digests(list []ocispec.Descriptor) string {
	var all []string
	for _, d := range list {
		all = append(all, string(d.Digest))
	}
	return strings.Join(all, " ")
}

func TestMediaTypes(t *testing.T) {
	const docker = "application/vnd.docker.image.rootfs."
	for in, oci := range map[string]string{
		ocispec.MediaTypeImageLayerZstd: ocispec.MediaTypeImageLayerZstd,

		"application/vnd.docker.container.image.v1+json": ocispec.MediaTypeImageConfig,

		docker + "diff.tar.gzip":         ocispec.MediaTypeImageLayerGzip,
		docker + "foreign.diff.tar.gzip": foreignLayer + "+gzip",
	} {
		if got := OCIDescriptor(ocispec.Descriptor{MediaType: in, Size: 3}); got.MediaType != oci ||
			got.Size != 3 {
			t.Errorf("OCIDescriptor(%s) = %v", in, got)
		}
	}
	for docker, oci := range ociTypes {
		d := ocispec.Descriptor{MediaType: oci, Digest: digest.FromString("x")}
		if got := DockerDescriptor(d); got.MediaType != docker || got.Digest != d.Digest {
			t.Errorf("DockerDescriptor(%s) = %v, want type %s", oci, got, docker)
		}
		if c := Compression(docker); c != Compression(oci) {
			t.Errorf("%s is compressed with %q, %s is not", docker, c, oci)
		}
		if IsForeign(docker) != IsForeign(oci) || IsIndex(docker) != IsIndex(oci) ||
			IsLayer(docker) != IsLayer(oci) || RefersToOthers(docker) != RefersToOthers(oci) {
			t.Errorf("%s and %s differ", docker, oci)
		}
	}
	for _, mediaType := range Accepted() {
		if !RefersToOthers(mediaType) || IsLayer(mediaType) {
			t.Errorf("%s is not a document", mediaType)
		}
	}
	for mediaType, want := range map[string]string{ocispec.MediaTypeImageLayer: "",
		ocispec.MediaTypeImageLayerGzip: "gzip", docker + "diff.tar.zstd": "zstd",
		"application/gzip": "", "": ""} {
		if got := Compression(mediaType); got != want {
			t.Errorf("Compression(%q) = %q, want %q", mediaType, got, want)
		}
	}
	for mediaType, want := range map[string]bool{ocispec.MediaTypeImageLayer: true,
		ocispec.MediaTypeImageLayerGzip + "+encrypted": false,
		ocispec.MediaTypeImageLayer + "x":              false,
		ocispec.MediaTypeImageConfig:                   false} {
		if got := IsLayer(mediaType); got != want {
			t.Errorf("IsLayer(%q) = %v", mediaType, got)
		}
	}
}

func TestIsImage(t *testing.T) {
	unknown := &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	list := []ocispec.Descriptor{
		{}, {Platform: &ocispec.Platform{OS: "linux", Architecture: "unknown"}},
		{Platform: unknown}, {ArtifactType: "x"},
		{Annotations: map[string]string{attestationType: "attestation-manifest"}},
	}
	var got []bool
	for _, d := range list {
		got = append(got, IsImage(d))
	}
	if want := []bool{true, true, false, false, false}; !slices.Equal(got, want) {
		t.Errorf("IsImage: %v, want %v", got, want)
	}
}
