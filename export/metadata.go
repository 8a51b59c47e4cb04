package export

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Metadata is the content of the file that --metadata-file names, with the keys of buildx.
type Metadata struct {
	// Ref identifies the build. Nothing is kept under it.
	Ref string `json:"buildx.build.ref,omitempty"`
	// Warnings are the warnings of the build, in BuildKit's form.
	Warnings   json.RawMessage     `json:"buildx.build.warnings,omitempty"`
	Config     digest.Digest       `json:"containerimage.config.digest,omitempty"`
	Descriptor *ocispec.Descriptor `json:"containerimage.descriptor,omitempty"`
	Digest     digest.Digest       `json:"containerimage.digest,omitempty"`
	Name       string              `json:"image.name,omitempty"`
	// Provenance has the provenance of the build by platform; "" is the only one.
	Provenance map[string]json.RawMessage `json:"-"`
}

// Describe returns the metadata of an image with the names that it and the specs give it. As in
// buildx, the config's digest is set only for a single manifest, and not for an index.
func Describe(ctx context.Context, img *Image, specs ...Spec) (Metadata, error) {
	root := img.Root
	m := Metadata{Digest: root.Digest, Descriptor: &root}
	var extra Spec
	for _, s := range specs {
		extra.Names = append(extra.Names, s.Names...)
	}
	tags, err := names(img, extra)
	if err != nil {
		return Metadata{}, err
	}
	var list []string
	for _, tag := range tags {
		list = append(list, tag.String())
	}
	m.Name = strings.Join(list, ",")
	g, err := readGraph(ctx, img.Content, root)
	if err != nil {
		return Metadata{}, fmt.Errorf("describe %s: %w", root.Digest, err)
	}
	if len(g.manifests) == 1 && g.manifests[0].desc.Digest == root.Digest {
		m.Config = g.manifests[0].config.Digest
	}
	return m, nil
}

// ID returns the image ID for --iidfile: the digest of the config for a single manifest, as in
// Docker, and the digest of the index otherwise.
func (m Metadata) ID() digest.Digest {
	if m.Config != "" {
		return m.Config
	}
	return m.Digest
}

// JSON returns the content of the file.
func (m Metadata) JSON() ([]byte, error) { return json.MarshalIndent(m, "", "  ") }

// MarshalJSON returns an object with the keys of buildx.
func (m Metadata) MarshalJSON() ([]byte, error) {
	type fields Metadata
	data, err := json.Marshal(fields(m))
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &all); err != nil { // not ocijson: it is data of this program
		return nil, err
	}
	for platform, p := range m.Provenance {
		key := "buildx.build.provenance"
		if platform != "" {
			key += "/" + platform
		}
		all[key] = p
	}
	return json.Marshal(all)
}
