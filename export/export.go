package export

import (
	"context"
	"io"
	"time"

	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/event"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fetcher reads blobs. The caller closes the reader that Fetch returns. The reader returns
// exactly d.Size bytes, and an error if the content does not match d's digest.
type Fetcher interface {
	Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// Image is a finished image.
type Image struct {
	// Root is the image's manifest, or its index if it is for several platforms. Its annotations
	// and platform are written to index.json.
	Root ocispec.Descriptor
	// Names are the image's names, normalized or not; a name without a tag means ":latest".
	Names []string
	// Content has Root and all blobs below it. It may be nil if all exports are flat
	// (Spec.Flat).
	Content Fetcher
	// Absent is set if Content lacks layers that the registries have, to which the image is pushed.
	// Such an image gets no names in the store.
	Absent bool
	// Trees are the image's file systems, one for each platform, in the order of the requested
	// platforms. They may be nil if no export is flat.
	Trees []Tree
}

// Tree is the file system of an image for one platform, all layers applied.
type Tree struct {
	Platform ocispec.Platform
	// Tar writes the tree as an uncompressed tar stream, end marker included. It may be called more
	// than once.
	Tar func(ctx context.Context, w io.Writer) error
	// Attestations returns the attestations of the files; nil: there are none.
	Attestations func(ctx context.Context) ([]attest.Attestation, error)
	// Time is the time of the files with attestations.
	Time time.Time
}

// Exporter sends an image to one place. Export reports its work to sink, Start and Done
// included, and returns when the export is complete. On an error the destination of an archive
// is unchanged, while a directory may hold a part. Export is called once.
type Exporter interface {
	Export(ctx context.Context, img *Image, sink event.Sink) error
}

// Pusher sends an image to a registry.
type Pusher interface {
	// Push copies root and everything below it to the repository of name and, unless o.ByDigest
	// is set, tags it there. name is normalized and has a tag; with o.ByDigest it may have none.
	// Progress is reported to o.Sink as parts of o.ID.
	Push(ctx context.Context, name string, root ocispec.Descriptor,
		content Fetcher, o PushOptions) error
}

// PushOptions are the options of a push.
type PushOptions struct {
	ByDigest bool       // push without a tag: the image is found by its digest only
	Insecure bool       // plain http, or TLS without verifying
	ID       event.ID   // the work to which the progress belongs
	Sink     event.Sink // never nil
}

// Tagger names an image in the local store.
type Tagger interface {
	// Tag makes name, which is normalized and has a tag, refer to d. It replaces an earlier
	// reference of name.
	Tag(ctx context.Context, name string, d ocispec.Descriptor) error
}

// Env holds what exporters need from the program.
type Env struct {
	// Stdout is the destination of dest=-; New returns an error if it is a terminal. nil: dest=-
	// is not available.
	Stdout io.Writer
	// Pusher pushes for push=true. nil: New returns an error for such a Spec.
	Pusher Pusher
	// Tagger names images for type=image. nil: the caller names them.
	Tagger Tagger
	// KeepOwners sets the owners of files in a directory export to those in the image. It is
	// meant for the real root; without it files belong to the user that runs the build.
	KeepOwners bool
	// Load passes an archive in docker's format to a local engine (type=docker without dest). nil:
	// the first of "docker load" and "podman load" that is installed is run.
	Load func(ctx context.Context, archive io.Reader) error
}
