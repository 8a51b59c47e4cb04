package imageanalysis

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/sbom"
	"github.com/layerbuild/layerbuild/internal/state"
)

// SBOMOptions are options of a software bill of materials.
type SBOMOptions struct {
	// Name is the name of the image in the document; "": that of the image.
	Name string
	// Created is the time of the document; nil: the time of the image.
	Created *time.Time
	// Tool is the version of the program.
	Tool string
}

// SBOM lists the packages of an image, with the layer and the instruction that brought each. The
// lines of the Dockerfile are known for images whose build has kept its Record.
func SBOM(ctx context.Context, s *state.State, images *image.Resolver, img *image.Image,
	o SBOMOptions) (*sbom.Document, error) {
	rec := recordOf(s, img.Manifest.Config.Digest)
	// A base that the record does not name is not searched for: the document must not depend on
	// the registries that are available.
	end, _ := recordedEnd(img, rec)
	in := sbom.Layers{Name: o.Name, Digest: img.Descriptor.Digest, Platform: img.Platform,
		Tool: o.Tool, Layers: make([]sbom.Layer, len(img.Manifest.Layers))}
	if in.Name == "" {
		in.Name = img.Name
	}
	switch {
	case o.Created != nil:
		in.Created = *o.Created
	case img.Config.Created != nil:
		in.Created = *img.Config.Created
	}
	for i, d := range img.Manifest.Layers {
		in.Layers[i] = sbom.Layer{
			DiffID: img.Config.RootFS.DiffIDs[i], Digest: d.Digest,
			Read: func(ctx context.Context, use func(io.Reader) error) error {
				return images.Read(ctx, img, i, use)
			},
		}
	}
	for _, ins := range instructions(img, end, rec) {
		if ins.Layer >= 0 {
			in.Layers[ins.Layer].Origin = origin(ins)
		}
	}
	doc, err := sbom.Scan(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("list the packages of %s: %w", img.Name, err)
	}
	return doc, nil
}

// origin returns the instruction that made a layer in the form of a software bill of materials.
func origin(ins analyze.Instruction) sbom.Origin {
	return sbom.Origin{Instruction: ins.Text, Stage: ins.Stage, Line: ins.Line,
		EndLine: ins.EndLine, Base: ins.Owner == analyze.BaseImage}
}
