package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/sorting"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// graph holds all documents and blobs of an image.
type graph struct {
	blobs     []ocispec.Descriptor     // each once, by digest
	documents map[digest.Digest][]byte // manifests and indexes, which were read to find the blobs
	manifests []manifest               // manifests of images, in the order of their indexes
	size      int64                    // of all blobs
}

// manifest is an image's manifest, in OCI's or Docker's format: they differ in media types only.
type manifest struct {
	desc   ocispec.Descriptor
	config ocispec.Descriptor
	layers []ocispec.Descriptor
}

// readGraph reads the documents below root.
func readGraph(ctx context.Context, content Fetcher, root ocispec.Descriptor) (*graph, error) {
	g := &graph{documents: map[digest.Digest][]byte{}}
	w := walk{content: content, graph: g, seen: map[digest.Digest]int64{}}
	if err := w.document(ctx, root, 0); err != nil {
		return nil, err
	}
	sorting.Func(g.blobs, func(a, b ocispec.Descriptor) int {
		return strings.Compare(string(a.Digest), string(b.Digest))
	})
	return g, nil
}

type walk struct {
	content Fetcher
	graph   *graph
	seen    map[digest.Digest]int64
}

// blob adds d. It reports whether d is new.
func (w *walk) blob(d ocispec.Descriptor) (bool, error) {
	if err := d.Digest.Validate(); err != nil {
		return false, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if size, ok := w.seen[d.Digest]; ok {
		if size != d.Size {
			return false, fmt.Errorf("%s has two different sizes, %d and %d bytes",
				d.Digest, size, d.Size)
		}
		return false, nil
	}
	w.seen[d.Digest] = d.Size
	w.graph.blobs = append(w.graph.blobs, d)
	w.graph.size += d.Size
	return true, nil
}

func (w *walk) document(ctx context.Context, d ocispec.Descriptor, depth int) error {
	isNew, err := w.blob(d)
	if err != nil || !isNew {
		return err
	}
	if depth > ocidoc.MaxNesting {
		return fmt.Errorf("%s: %w", d.Digest, ocidoc.ErrNesting)
	}
	data, err := read(ctx, w.content, d)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	w.graph.documents[d.Digest] = data
	doc, err := ocidoc.Parse(data)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	switch {
	case doc.Config != nil:
		for _, child := range doc.Content() {
			if _, err := w.blob(child); err != nil {
				return fmt.Errorf("manifest %s: %w", d.Digest, err)
			}
		}
		w.graph.manifests = append(w.graph.manifests,
			manifest{desc: d, config: *doc.Config, layers: doc.Layers})
		return nil
	case doc.Manifests != nil:
		for _, child := range doc.Manifests {
			if err := w.document(ctx, child, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%s is neither a manifest nor an index", d.Digest)
}

// read returns the whole of a document.
func read(ctx context.Context, content Fetcher, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > ocidoc.MaxDocument {
		return nil, fmt.Errorf("%d bytes are too many for a document", d.Size)
	}
	r, err := content.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err == nil && int64(len(data)) != d.Size {
		err = fmt.Errorf("its size is not %d bytes", d.Size)
	}
	return data, err
}

// open opens a blob for reading, from memory if it was read before. The reader is nil for a
// "foreign" layer that is not in content: the layer's descriptor has URLs to fetch it from.
func (g *graph) open(ctx context.Context, content Fetcher,
	d ocispec.Descriptor) (io.ReadCloser, error) {
	if data, ok := g.documents[d.Digest]; ok {
		return io.NopCloser(strings.NewReader(string(data))), nil
	}
	r, err := content.Fetch(ctx, d)
	if err != nil && len(d.URLs) > 0 && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	return r, nil
}

// images returns the manifests of g that can be run, without attestations.
func (g *graph) images() []manifest {
	return slices.DeleteFunc(slices.Clone(g.manifests), func(m manifest) bool {
		return !ocidoc.IsImage(m.desc)
	})
}

// graphs holds the blobs of several images, each once.
type graphs struct {
	blobs []ocispec.Descriptor // by digest
	size  int64                // of all blobs
	roots []*graph             // of each image
	of    map[digest.Digest]blobIn
}

// blobIn is the image from which a blob is read.
type blobIn struct {
	graph   *graph
	content Fetcher
}

func readGraphs(ctx context.Context, members []Member) (*graphs, error) {
	all := &graphs{of: map[digest.Digest]blobIn{}}
	for _, m := range members {
		g, err := readGraph(ctx, m.Content, m.Root)
		if err != nil {
			return nil, err
		}
		all.roots = append(all.roots, g)
		for _, d := range g.blobs {
			if _, ok := all.of[d.Digest]; !ok {
				all.of[d.Digest] = blobIn{g, m.Content}
				all.blobs = append(all.blobs, d)
				all.size += d.Size
			}
		}
	}
	sorting.Func(all.blobs, func(a, b ocispec.Descriptor) int {
		return strings.Compare(string(a.Digest), string(b.Digest))
	})
	return all, nil
}

// open is like graph.open.
func (g *graphs) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	in := g.of[d.Digest]
	return in.graph.open(ctx, in.content, d)
}
