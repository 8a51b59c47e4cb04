package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Found is an image as it is in its place: a manifest, or an index of images for several platforms.
// Unlike an Image it may be any artifact, and nothing of it need be in the store.
type Found struct {
	Names  []string // its full names in the place; may be empty
	Origin Origin
	Root   ocispec.Descriptor
	// Repository is the repository of a registry that has the image; "" for other places.
	Repository string

	open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)
}

// Fetch opens a document or a blob of the image. The reader returns an error at its end if the
// content does not match the descriptor. The caller closes it. Found is a Fetcher of export and
// of registry.
func (f *Found) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return f.open(ctx, d)
}

// Read returns a document of the image.
func (f *Found) Read(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > ocidoc.MaxDocument {
		return nil, fmt.Errorf("document %s: %d bytes are too many", d.Digest, d.Size)
	}
	r, err := f.open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// ForPlatform returns the image for one platform of an index. A single manifest is returned as it
// is.
func (f *Found) ForPlatform(ctx context.Context, p ocispec.Platform) (*Found, error) {
	if !ocidoc.IsIndex(f.Root.MediaType) {
		return f, nil
	}
	d, _, err := walk(ctx, f.Read, f.Root, platform.Complete(p))
	if err != nil {
		return nil, err
	}
	one := *f
	one.Root = d
	return &one, nil
}

// Find finds an image with all its platforms. A name without a place is looked up in the store, and
// not in registries.
func (r *Resolver) Find(ctx context.Context, ref imageref.Ref) (*Found, error) {
	if ref.Path != "" || ref.Scheme == imageref.Daemon {
		if ref.Path != "" {
			if err := checkExists(ref); err != nil {
				return nil, err
			}
		}
		found, err := r.inLayout(ctx, ref)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", ref, err)
		}
		return found, nil
	}
	if ref.Scheme == imageref.Docker {
		return r.inRegistry(ctx, ref.Name)
	}
	return r.inStore(ctx, ref.Name)
}

// inStore finds an image of the store by its name, its digest or the beginning of its digest.
func (r *Resolver) inStore(ctx context.Context, word string) (*Found, error) {
	name, d, err := r.Identify(ctx, word)
	if err != nil {
		return nil, err
	}
	f := &Found{Origin: FromStore, Root: d, open: r.store.Fetch}
	if digest.Digest(name).Validate() != nil {
		full, err := store.Name(name)
		if err != nil {
			return nil, err
		}
		f.Names = []string{full}
	}
	return f, nil
}

// inRegistry finds an image of a registry.
func (r *Resolver) inRegistry(ctx context.Context, name string) (*Found, error) {
	root, err := r.registry.Root(ctx, name)
	if err != nil {
		return nil, err
	}
	f := &Found{Origin: FromRegistry, Root: root.Root().Descriptor,
		Repository: root.Source.Repository(), open: root.Source.Fetch}
	if digestOf(root.Name) == "" {
		f.Names = []string{root.Name}
	}
	return f, nil
}

// inLayout finds one image of a layout, an archive or a daemon.
func (r *Resolver) inLayout(ctx context.Context, ref imageref.Ref) (*Found, error) {
	f, err := r.filesOf(ctx, ref)
	if err != nil {
		return nil, err
	}
	if ref.Scheme == imageref.Daemon {
		ref = inDaemon(ref)
	}
	index, list, err := readLists(f, ref)
	if err != nil {
		return nil, err
	}
	if index == nil {
		images, err := parseDockerList(list)
		if err != nil {
			return nil, err
		}
		di, _, err := chooseDocker(images, ref)
		if err != nil {
			return nil, err
		}
		return r.dockerFound(ctx, f, di)
	}
	var ix ocispec.Index
	if err := ocijson.Unmarshal(index, &ix); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	root, _, err := choose(ix.Manifests, ref)
	if err != nil && ref.Digest != "" {
		if d, err1 := (blobsOf{f}).sized(ref.Digest); err1 == nil {
			root, err = &d, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if root == nil {
		return r.indexFound(ctx, f, index)
	}
	return r.layoutFound(ctx, f, *root, ix.Manifests)
}

// Stream returns all images of a layout in an archive, or of an archive of docker save, that is
// read from a file or a pipe. The archive may be compressed. Stream closes the file; the images can
// be read until Resolver.Close.
func (r *Resolver) Stream(ctx context.Context, file *os.File) ([]*Found, error) {
	f, err := r.openStream(ctx, file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return r.all(ctx, f, imageref.Ref{})
}

// All returns all images of a layout or an archive.
func (r *Resolver) All(ctx context.Context, ref imageref.Ref) ([]*Found, error) {
	if err := checkExists(ref); err != nil {
		return nil, err
	}
	f, err := r.openFiles(ctx, ref.Path)
	if err != nil {
		return nil, err
	}
	return r.all(ctx, f, ref)
}

func (r *Resolver) all(ctx context.Context, f files, ref imageref.Ref) ([]*Found, error) {
	index, list, err := readLists(f, ref)
	if err != nil {
		return nil, err
	}
	var out []*Found
	if index == nil {
		images, err := parseDockerList(list)
		if err != nil {
			return nil, err
		}
		for _, di := range images {
			found, err := r.dockerFound(ctx, f, di)
			if err != nil {
				return nil, err
			}
			out = append(out, found)
		}
		return out, nil
	}
	var ix ocispec.Index
	if err := ocijson.Unmarshal(index, &ix); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if root, _, err := choose(ix.Manifests, imageref.Ref{}); err == nil && root == nil {
		found, err := r.indexFound(ctx, f, index)
		return []*Found{found}, err
	}
	seen := map[digest.Digest]bool{}
	for _, e := range ix.Manifests {
		if seen[e.Digest] {
			continue
		}
		seen[e.Digest] = true
		found, err := r.layoutFound(ctx, f, e, ix.Manifests)
		if err != nil {
			return nil, err
		}
		out = append(out, found)
	}
	return out, nil
}

// layoutFound returns the image of an entry of an index.json. Its names are those of all entries
// with its digest.
func (r *Resolver) layoutFound(ctx context.Context, f files, root ocispec.Descriptor,
	entries []ocispec.Descriptor) (*Found, error) {
	if err := root.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("index.json: digest %q: %w", root.Digest, err)
	}
	found := &Found{Origin: FromLayout, Root: root, open: verifiedFrom(blobsOf{f})}
	for _, e := range entries {
		if name := nameOfEntry(e); name != "" && e.Digest == root.Digest {
			found.Names = append(found.Names, name)
		}
	}
	return found, found.typed(ctx)
}

// indexFound returns the image whose index is the index.json of a layout.
func (r *Resolver) indexFound(ctx context.Context, f files, index []byte) (*Found, error) {
	d, err := r.store.Write(ctx, ocispec.MediaTypeImageIndex, index)
	if err != nil {
		return nil, err
	}
	blobs := verifiedFrom(blobsOf{f})
	return &Found{Origin: FromLayout, Root: d,
		open: func(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
			if want.Digest == d.Digest {
				return r.store.Fetch(ctx, d)
			}
			return blobs(ctx, want)
		}}, nil
}

// dockerFound returns an image of an archive of docker save. Its manifest and its configuration are
// in the store.
func (r *Resolver) dockerFound(ctx context.Context, f files, di dockerImage) (*Found, error) {
	made, err := r.convert(ctx, f, di)
	if err != nil {
		return nil, err
	}
	layers := verifiedFrom(made.source)
	found := &Found{Origin: FromLayout, Root: made.desc,
		open: func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			if _, ok := made.source.names[d.Digest]; ok {
				return layers(ctx, d)
			}
			return r.store.Fetch(ctx, d)
		}}
	for _, tag := range di.RepoTags {
		if full, err := store.Name(tag); err == nil {
			found.Names = append(found.Names, full)
		}
	}
	return found, nil
}

// typed sets the media type of the root, which an index.json may lack, from the document.
func (f *Found) typed(ctx context.Context) error {
	data, err := f.Read(ctx, f.Root)
	if err != nil {
		return err
	}
	if f.Root.MediaType, err = ocidoc.TypeOf(data, f.Root.MediaType); err != nil {
		return fmt.Errorf("manifest %s: %w", f.Root.Digest, err)
	}
	return nil
}

// nameOfEntry returns the full name of an entry of an index.json; "" if it has none, or only a tag.
func nameOfEntry(e ocispec.Descriptor) string {
	if full, err := store.Name(e.Annotations[ocidoc.AnnotationName]); err == nil {
		return full
	}
	// Some tools write the full name, others only a tag.
	ref := e.Annotations[ocispec.AnnotationRefName]
	if n, err := reference.Parse(ref); err != nil || n.Tag == "" && n.Digest == "" {
		return ""
	}
	full, err := store.Name(ref)
	if err != nil {
		return ""
	}
	return full
}

// verifiedFrom returns a function that opens blobs of a source. Its readers verify the content.
func verifiedFrom(src source) func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("blob %q: %w", d.Digest, err)
		}
		r, err := src.Open(ctx, d)
		if err != nil {
			return nil, err
		}
		return &verified{r: r, d: d, v: d.Digest.Verifier()}, nil
	}
}

// verified returns an error in place of io.EOF if the content is not that of the descriptor.
type verified struct {
	r io.ReadCloser
	d ocispec.Descriptor
	v digest.Verifier
	n int64
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.n += int64(n)
	v.v.Write(p[:n])
	if v.n > v.d.Size || err == io.EOF && (v.n != v.d.Size || !v.v.Verified()) {
		return n, fmt.Errorf("blob %s is damaged: %w", v.d.Digest,
			errors.New("its content has another digest"))
	}
	return n, err
}

func (v *verified) Close() error { return v.r.Close() }

// Store copies an image with everything to which it refers into the store. A manifest of an index
// that its place does not have is left out, as docker save leaves out the images for other
// platforms; at least one must be there.
func (r *Resolver) Store(ctx context.Context, f *Found, o UnpackOptions) error {
	img := &Image{Origin: FromLayout, source: opener(f.open)}
	if len(f.Names) > 0 {
		img.Name = f.Names[0]
	}
	c := &copying{r: r, f: f, u: r.newUnpacking(img, o)}
	if err := c.document(ctx, f.Root, 0); err != nil {
		return err
	}
	if c.manifests == 0 {
		return fmt.Errorf("image %s: none of its manifests is there", f.Root.Digest)
	}
	return nil
}

// opener is a source that is a function.
type opener func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)

func (o opener) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return o(ctx, d)
}

// copying is the state of Store.
type copying struct {
	r         *Resolver
	f         *Found
	u         *unpacking
	manifests int // that were stored
}

// document stores a manifest or an index after everything to which it refers, so that a document of
// the store is never without its blobs.
func (c *copying) document(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if depth > ocidoc.MaxNesting {
		return ocidoc.ErrNesting
	}
	data, err := c.f.Read(ctx, d)
	if err != nil {
		return err
	}
	doc, err := ocidoc.Parse(data)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	for _, m := range doc.Manifests {
		if err := c.document(ctx, m, depth+1); err != nil && !IsMissing(err) {
			return err
		}
	}
	var blobs []ocispec.Descriptor
	for _, b := range doc.Content() {
		if err := b.Digest.Validate(); err != nil {
			return fmt.Errorf("manifest %s: blob %q: %w", d.Digest, b.Digest, err)
		}
		if !ocidoc.IsForeign(b.MediaType) {
			blobs = append(blobs, b)
		}
	}
	if err := c.u.fetch(ctx, blobs); err != nil {
		return err
	}
	if doc.Manifests == nil {
		c.manifests++
	}
	return c.r.store.IngestAs(ctx, d, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// IsMissing reports whether an error is about an image, a document or a blob that its place does
// not have.
func IsMissing(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, registry.ErrNotFound)
}

// Assembled returns an image that is made of others: an index that is not anywhere yet. open opens
// its documents and blobs.
func Assembled(root ocispec.Descriptor,
	open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) *Found {
	return &Found{Origin: FromLayout, Root: root, open: open}
}
