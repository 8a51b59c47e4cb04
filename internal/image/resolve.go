package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Resolver finds images and unpacks them. It is safe for concurrent use. Close it at the end.
type Resolver struct {
	store     *store.Store
	cache     *cache.Cache
	snapshots *snapshot.Store
	registry  *registry.Client

	slots   chan struct{} // layers that are downloaded or unpacked at this time
	chains  flights       // snapshots being made, by chain ID
	blobs   flights       // blobs being downloaded, by digest
	mu      sync.Mutex
	closers []io.Closer
}

// jobs is how many layers are downloaded and unpacked at once. More do not make a common line any faster, and each
// costs a decompressor's memory.
const jobs = 4

// Options are where images are kept and where they come from. All are needed.
type Options struct {
	Store     *store.Store
	Cache     *cache.Cache
	Snapshots *snapshot.Store
	Registry  *registry.Client
}

// New makes a resolver.
func New(o Options) *Resolver {
	return &Resolver{store: o.Store, cache: o.Cache, snapshots: o.Snapshots, registry: o.Registry, slots: make(chan struct{}, jobs)}
}

// ResolveOptions say which image is meant.
type ResolveOptions struct {
	// Platform is what it must run on; the zero value is this machine.
	Platform ocispec.Platform
	// Any takes the first image of an index, for any platform.
	Any bool
	// Pull asks the registry even if the name is known here.
	Pull bool
	// Local asks no registry, except for a blob of the store that is damaged.
	Local bool
}

// Resolve finds an image by its name (see the package's comment for what a name can be). Its manifest and configuration
// are in the store then. Errors are those of registry.Client.Resolve where a registry was asked.
func (r *Resolver) Resolve(ctx context.Context, ref string, o ResolveOptions) (*Image, error) {
	if o.Platform.OS == "" && o.Platform.Architecture == "" {
		o.Platform = platform.Host()
	}
	if o.Any {
		o.Platform = registry.Any()
	}
	loc, err := parseLocation(ref)
	if err != nil {
		return nil, err
	}
	if loc.path != "" {
		img, err := r.fromLayout(ctx, loc, o.Platform)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", ref, err)
		}
		return img, nil
	}
	name, err := store.Name(loc.name)
	if digest.Digest(loc.name).Validate() == nil {
		name, err = loc.name, nil // an image of the store, by its digest
	}
	if err != nil {
		return nil, err
	}
	known, knownErr := r.known(ctx, name, o)
	if known != nil {
		return known, nil
	}
	if name == loc.name && digest.Digest(name).Validate() == nil {
		if knownErr != nil {
			return nil, knownErr
		}
		return nil, fmt.Errorf("image %s: %w", name, store.ErrNotFound)
	}
	var bad *store.BlobError
	if o.Local && !errors.As(knownErr, &bad) {
		return nil, cmp.Or(knownErr, fmt.Errorf("image %s: %w", name, store.ErrNotFound))
	}
	img, err := r.fromRegistry(ctx, name, loc.name, o)
	switch {
	case errors.As(knownErr, &bad) && err != nil:
		return nil, fmt.Errorf("image %s: %w", name, &store.BlobError{Digest: bad.Digest, Err: fmt.Errorf("%w, and the image cannot be fetched again (%v)", bad.Err, err), Remedy: remedy})
	case errors.As(knownErr, &bad) && known == nil && !r.replaces(ctx, name, img):
		return nil, fmt.Errorf("image %s: %w", name, &store.BlobError{Digest: bad.Digest, Err: fmt.Errorf("%w, and the registry has another image of that name", bad.Err), Remedy: remedy})
	case err != nil && knownErr != nil && err.Error() == knownErr.Error(): // the store has the registry's index
		return nil, err
	case err != nil:
		return nil, errors.Join(err, knownErr)
	}
	return img, nil
}

// remedy is for an image with a blob that can no longer be obtained.
const remedy = "build or pull the image again"

// replaces reports whether an image of a registry may replace the damaged image of that name: it is the same image, or
// the store only remembers the registry's earlier answer.
func (r *Resolver) replaces(ctx context.Context, name string, img *Image) bool {
	root, err := r.store.Resolve(ctx, name)
	return err != nil || root.Digest == img.Root.Digest || root.Digest == img.Descriptor.Digest
}

// known looks among what needs no registry. The error says why a name that is in the store does not serve.
func (r *Resolver) known(ctx context.Context, name string, o ResolveOptions) (*Image, error) {
	pinned := digestOf(name) != ""
	if !o.Pull || pinned {
		root, err := r.storeRoot(ctx, name)
		if err == nil {
			img, err := r.fromStore(ctx, name, FromStore, root, o.Platform)
			if err == nil {
				return img, nil
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		img, err := r.remembered(ctx, name, o.Platform)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		return img, nil
	}
	return nil, nil
}

// storeRoot finds an image in the store by its name or by its digest. Images that were fetched as a base have no name
// there.
func (r *Resolver) storeRoot(ctx context.Context, name string) (ocispec.Descriptor, error) {
	if digest.Digest(name).Validate() != nil {
		return r.store.Resolve(ctx, name)
	}
	roots, err := r.Roots()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return r.store.ResolveID(ctx, name, roots)
}

// Identify resolves a user's word for an image: it returns the word itself if the store has an image of that name or
// whole digest, and the whole digest if the word is the beginning of one (see store.ResolveID). It returns
// store.ErrNotFound if it is neither, and a *store.AmbiguousError if it is the beginning of several.
func (r *Resolver) Identify(ctx context.Context, word string) (string, ocispec.Descriptor, error) {
	d, err := r.store.Resolve(ctx, word)
	if err == nil || !store.IsShortID(word) {
		return word, d, err
	}
	roots, err := r.Roots()
	if err != nil {
		return word, d, err
	}
	if d, err = r.store.ResolveID(ctx, word, roots); err != nil {
		return word, d, err
	}
	return d.Digest.String(), d, nil
}

// digestOf is the digest that a name ends in, or is.
func digestOf(name string) digest.Digest {
	if d := digest.Digest(name); d.Validate() == nil {
		return d
	}
	if n, err := registry.Parse(name); err == nil {
		return n.Digest
	}
	return ""
}

// fromStore reads an image of which the store has at least manifest and configuration. Layers that it should turn out not
// to have come from the registry that the name says.
func (r *Resolver) fromStore(ctx context.Context, name string, origin Origin, root ocispec.Descriptor, want ocispec.Platform) (*Image, error) {
	d, manifest, err := walk(ctx, r.store.Read, root, want)
	if err != nil {
		return nil, err
	}
	c, err := configOf(name, d, manifest)
	if err != nil {
		return nil, err
	}
	config, err := r.store.Read(ctx, c)
	if err != nil {
		return nil, err
	}
	img, err := parse(name, origin, root, d, manifest, config)
	if err != nil {
		return nil, err
	}
	if digest.Digest(name).Validate() != nil {
		img.source = lazySource{r.registry, name}
	}
	return img, nil
}

// walk goes from an index to the manifest for the platform.
func walk(ctx context.Context, read func(context.Context, ocispec.Descriptor) ([]byte, error), d ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, []byte, error) {
	for range 4 {
		data, err := read(ctx, d)
		if err != nil {
			return d, nil, err
		}
		if d.MediaType, err = registry.DocumentType(data, d.MediaType); err != nil {
			return d, nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		if !registry.IsIndex(d.MediaType) {
			return d, data, nil
		}
		var doc ocispec.Index
		if err := ocijson.Unmarshal(data, &doc); err != nil {
			return d, nil, fmt.Errorf("index %s: %w", d.Digest, err)
		}
		if d, err = registry.Pick(registry.WithPlatforms(ctx, doc.Manifests, read), want); err != nil {
			return d, nil, err
		}
	}
	return d, nil, errors.New("indexes are nested more than 4 deep")
}

// address is the key under which the cache remembers what a registry said.
func address(name string, p ocispec.Platform) string {
	return "image " + name + " " + registry.FormatPlatform(p)
}

// remembered returns the image that a registry gave for this name before; nil if there is none. It returns an error if
// its documents cannot be read.
func (r *Resolver) remembered(ctx context.Context, name string, p ocispec.Platform) (*Image, error) {
	rec, ok := r.cache.Remote(address(name, p))
	if !ok {
		return nil, nil
	}
	if rec.Root == nil {
		return nil, nil
	}
	img, err := r.fromStore(ctx, rec.Name, FromRegistry, *rec.Root, p)
	if err != nil {
		return nil, err
	}
	r.cache.TouchRemote(address(name, p))
	return img, nil
}

// fromRegistry asks. written is the name as the user wrote it, which matters for short names.
func (r *Resolver) fromRegistry(ctx context.Context, name, written string, o ResolveOptions) (*Image, error) {
	if img := r.unchanged(ctx, name, written, o); img != nil {
		return img, nil
	}
	found, err := r.registry.Resolve(ctx, written, o.Platform)
	if err != nil {
		return nil, err
	}
	m := found.Manifest()
	c, err := configOf(found.Name, m.Descriptor, m.Data)
	if err != nil {
		return nil, err
	}
	config, err := r.document(ctx, found.Source, c)
	if err != nil {
		return nil, fmt.Errorf("image %s: configuration: %w", found.Name, err)
	}
	img, err := parse(found.Name, FromRegistry, found.Root().Descriptor, m.Descriptor, m.Data, config)
	if err != nil {
		return nil, err
	}
	for _, doc := range found.Documents {
		if err := r.store.IngestAs(ctx, doc.Descriptor, func(w io.Writer) error {
			_, err := w.Write(doc.Data)
			return err
		}); err != nil {
			return nil, fmt.Errorf("image %s: %w", found.Name, err)
		}
	}
	if err := r.cache.PutRemote(address(name, o.Platform), cache.Finding{Name: found.Name, Root: &img.Root}); err != nil {
		return nil, fmt.Errorf("image %s: %w", found.Name, err)
	}
	img.source = found.Source
	return img, nil
}

// unchanged is what is remembered, if the registry says that the name still means it. A question costs less than a pull,
// and registries that count pulls do not count it.
func (r *Resolver) unchanged(ctx context.Context, name, written string, o ResolveOptions) *Image {
	if !o.Pull {
		return nil
	}
	img, err := r.remembered(ctx, name, o.Platform)
	if img == nil || err != nil {
		return nil
	}
	if d, err := r.registry.Head(ctx, written); err != nil || d.Digest != img.Root.Digest {
		return nil // an error comes again, and is reported, when the image is asked for
	}
	return img
}

// document brings a small blob into the store and returns it.
func (r *Resolver) document(ctx context.Context, src source, d ocispec.Descriptor) ([]byte, error) {
	if ok, err := r.store.Exists(ctx, d); ok && err == nil {
		if data, err := r.store.Read(ctx, d); err == nil {
			return data, nil
		}
	}
	err := r.store.IngestAs(ctx, d, func(w io.Writer) error {
		body, err := src.Open(ctx, d)
		if err != nil {
			return err
		}
		defer body.Close()
		_, err = io.Copy(w, body)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r.store.Read(ctx, d)
}

// Roots are the images that the cache remembers of registries. They have no name in the store, so whoever collects
// garbage there keeps them by this.
func (r *Resolver) Roots() ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for e, err := range r.cache.All(cache.Remote) {
		if err != nil {
			return nil, err
		}
		if root := e.Finding().Root; root != nil {
			out = append(out, *root)
		}
	}
	return out, nil
}

// Origins tells which repositories a blob was pulled from, for mounting it across repositories of one registry.
func (r *Resolver) Origins(ctx context.Context) (func(digest.Digest) []string, error) {
	from := map[digest.Digest][]string{}
	for e, err := range r.cache.All(cache.Remote) {
		if err != nil {
			return nil, err
		}
		found := e.Finding()
		n, err := registry.Parse(found.Name)
		if err != nil || found.Root == nil || found.Name == "" {
			continue
		}
		u, err := r.store.Usage(ctx, *found.Root)
		if err != nil {
			return nil, err
		}
		for _, b := range u.Blobs {
			from[b] = append(from[b], n.Repository())
		}
	}
	return func(d digest.Digest) []string { return from[d] }, nil
}

// Restore downloads a blob that the store has lost from a registry from which an image with that blob was pulled.
func (r *Resolver) Restore(ctx context.Context, d ocispec.Descriptor) error {
	errs := []error{}
	for e, err := range r.cache.All(cache.Remote) {
		if err != nil {
			return err
		}
		found := e.Finding()
		if found.Root == nil || found.Name == "" || !r.store.LeadsTo(ctx, *found.Root, d.Digest) {
			continue
		}
		err = r.store.IngestAs(ctx, d, func(w io.Writer) error {
			body, err := lazySource{r.registry, found.Name}.Open(ctx, d)
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(w, body)
			return err
		})
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return store.ErrNotFound
	}
	return errors.Join(errs...)
}

// Close lets go of archives that images were read from.
func (r *Resolver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	r.closers = nil
	return errors.Join(errs...)
}

// lazySource is a repository that is only looked at when a blob is needed.
type lazySource struct {
	client *registry.Client
	name   string
}

func (s lazySource) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	src, err := s.client.Source(s.name)
	if err != nil {
		return nil, err
	}
	rc, err := src.Open(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("it is no longer in the store, and cannot be fetched again (%w): build or pull %s again", err, s.name)
	}
	return rc, nil
}
