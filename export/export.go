// Package export sends a finished image somewhere: into an archive, a directory, a registry.
//
// Parse turns what a person wrote after -o into a Spec; New looks at the Specs' destinations, before anything is
// built, and makes an Exporter of each; the Exporter is run once, when the image is finished. Blobs are copied as
// they are: how they are compressed was settled when the layers were sealed, with Spec.Layers in hand.
package export

import (
	"context"
	"io"

	"github.com/layerbuild/layerbuild/internal/event"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fetcher reads blobs. The reader that Fetch returns, which the caller closes, has exactly d.Size bytes and ends in
// an error where the content is not what d's digest says.
type Fetcher interface {
	Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// Image is a finished image.
type Image struct {
	// Root is the image's manifest, or its index where it is for several platforms. Its annotations and platform
	// are kept where an index.json is written.
	Root ocispec.Descriptor
	// Names are the image's names, normalized or not; a name without a tag means ":latest".
	Names []string
	// Content has Root and everything below it. Nil where only flat exports (Spec.Flat) are asked for.
	Content Fetcher
	// Trees are the image's file systems, one a platform, in the order in which the platforms were asked for.
	// They may be nil where no flat export is asked for.
	Trees []Tree
}

// Tree is the file system of an image for one platform, all layers applied.
type Tree struct {
	Platform ocispec.Platform
	// Tar writes the tree as an uncompressed tar stream, end marker included. It may be called more than once.
	Tar func(ctx context.Context, w io.Writer) error
}

// Exporter sends an image to one place. Export reports its work to sink, Start and Done included, and returns when
// the image is there entirely; on an error nothing is left at an archive's destination that was not there before,
// while a directory may hold a part. Export is called once.
type Exporter interface {
	Export(ctx context.Context, img *Image, sink event.Sink) error
}

// Pusher sends an image to a registry.
type Pusher interface {
	// Push copies root and everything below it to the repository of name and, unless o.ByDigest, gives it name's
	// tag there. name is normalized and has a tag, with o.ByDigest it may have none. Progress is reported to o.Sink
	// as parts of o.ID.
	Push(ctx context.Context, name string, root ocispec.Descriptor, content Fetcher, o PushOptions) error
}

// PushOptions are what can be said about one push.
type PushOptions struct {
	ByDigest bool       // give it no tag: it is to be found by its digest only
	Insecure bool       // plain http, or TLS without verifying
	ID       event.ID   // the work that progress is a part of
	Sink     event.Sink // never nil
}

// Tagger names an image in the own store.
type Tagger interface {
	// Tag makes name, which is normalized and has a tag, mean d. What name meant before is forgotten.
	Tag(ctx context.Context, name string, d ocispec.Descriptor) error
}

// Env is what exporters need from the program they are a part of.
type Env struct {
	// Stdout is where dest=- goes; when it is a terminal, New refuses. Nil: dest=- cannot be had.
	Stdout io.Writer
	// Pusher serves push=true. Nil: New refuses such a Spec.
	Pusher Pusher
	// Tagger serves type=image. Nil: names are given by somebody else.
	Tagger Tagger
	// KeepOwners says that a directory export gives files the owners that they have in the image. It is meant for
	// the real root; without it files belong to whoever runs the build.
	KeepOwners bool
	// Load feeds an archive in docker's format to a local engine (type=docker without dest). Nil: the first of
	// docker and podman that is installed is run with "load".
	Load func(ctx context.Context, archive io.Reader) error
}
