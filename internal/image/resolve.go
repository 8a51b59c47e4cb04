package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/engine"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Resolver finds images and unpacks them. It is safe for concurrent use. The caller closes it.
type Resolver struct {
	store     *store.Store
	cache     *cache.Cache
	snapshots *snapshot.Store
	registry  *registry.Client
	engine    func() (*engine.Engine, error)

	// one element for each layer that is being downloaded or unpacked
	slots   chan struct{}
	chains  memo.Map[digest.Digest, snapshot.ID] // snapshots that are being made, by chain ID
	blobs   memo.Map[digest.Digest, struct{}]    // blobs being downloaded
	daemon  memo.Map[string, files]              // images of the daemon, by name
	mu      sync.Mutex
	closers []io.Closer
}

// jobs is the number of layers that are downloaded and unpacked at the same time. A higher
// number does not make a typical connection faster, and each layer costs the memory of a
// decompressor.
const jobs = 4

// Options are the places where images are stored and found. All fields but Engine are required.
type Options struct {
	Store     *store.Store
	Cache     *cache.Cache
	Snapshots *snapshot.Store
	Registry  *registry.Client
	// Engine returns the docker daemon; nil: images of a daemon are not available.
	Engine func() (*engine.Engine, error)
}

// New returns a Resolver.
func New(o Options) *Resolver {
	return &Resolver{store: o.Store, cache: o.Cache, snapshots: o.Snapshots, registry: o.Registry,
		engine: o.Engine,
		slots:  make(chan struct{}, jobs)}
}

// ResolveOptions select an image.
type ResolveOptions struct {
	// Platform is the platform on which the image must run; the zero value is this machine's
	// platform.
	Platform ocispec.Platform
	// Any selects the first image of an index, whatever its platform.
	Any bool
	// Pull requests the image from the registry even if the store has an image of that name.
	Pull bool
	// Local sends no requests to registries, except for a damaged blob of the store.
	Local bool
}

// Resolve finds an image by its name (the package comment lists the forms of names). When it
// returns, the manifest and the configuration are in the store. If a request to a registry fails,
// the error is that of registry.Client.Resolve.
func (r *Resolver) Resolve(ctx context.Context, ref string, o ResolveOptions) (*Image, error) {
	o.Platform = platform.Complete(o.Platform)
	if o.Any {
		o.Platform = registry.Any()
	}
	loc, err := parseLocation(ref)
	if err != nil {
		return nil, err
	}
	o.Pull = o.Pull || loc.Scheme == imageref.Docker
	if loc.Path != "" || loc.Scheme == imageref.Daemon {
		img, err := r.fromLayout(ctx, loc, o.Platform)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", ref, err)
		}
		return img, nil
	}
	name, err := store.Name(loc.Name)
	if digest.Digest(loc.Name).Validate() == nil {
		name, err = loc.Name, nil // an image in the store, by its digest
	}
	if err != nil {
		return nil, err
	}
	known, knownErr := r.known(ctx, name, o)
	if known != nil {
		return known, nil
	}
	if name == loc.Name && digest.Digest(name).Validate() == nil {
		if knownErr != nil {
			return nil, knownErr
		}
		return nil, fmt.Errorf("image %s: %w", name, store.ErrNotFound)
	}
	var bad *store.BlobError
	if o.Local && !errors.As(knownErr, &bad) {
		return nil, cmp.Or(knownErr, fmt.Errorf("image %s: %w", name, store.ErrNotFound))
	}
	img, err := r.fromRegistry(ctx, name, loc.Name, o)
	switch {
	case errors.As(knownErr, &bad) && err != nil:
		return nil, fmt.Errorf("image %s: %w", name,
			&store.BlobError{Digest: bad.Digest,
				Err:    fmt.Errorf("%w, and the image cannot be fetched again (%v)", bad.Err, err),
				Remedy: Remedy})
	case errors.As(knownErr, &bad) && known == nil && !r.replaces(ctx, name, img):
		return nil, fmt.Errorf("image %s: %w", name,
			&store.BlobError{Digest: bad.Digest,
				Err:    fmt.Errorf("%w, and the registry has another image of that name", bad.Err),
				Remedy: Remedy})
	case err != nil && knownErr != nil && err.Error() == knownErr.Error():
		// the store has the index of the registry
		return nil, err
	case err != nil:
		return nil, errors.Join(err, knownErr)
	}
	return img, nil
}

// Remedy is the advice for an image with a blob that cannot be obtained again.
const Remedy = "build or pull the image again"

// replaces reports whether an image of a registry may replace the damaged image of that name: it
// must be the same image, or the name must be known only from an earlier answer of the registry.
func (r *Resolver) replaces(ctx context.Context, name string, img *Image) bool {
	root, err := r.store.Resolve(ctx, name)
	return err != nil || root.Digest == img.Root.Digest || root.Digest == img.Descriptor.Digest
}

// known finds an image without a registry. It returns an error if the store has the name but the
// image cannot be used.
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
			if strings.HasPrefix(err.Error(), "image "+name+" ") {
				return nil, err // that of parse
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

// storeRoot finds an image in the store by its name or by its digest. Images that were fetched as
// bases have no name in the store.
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

// Identify resolves a name or a digest that the user gave. It returns the argument itself if the
// store has an image with that name or whole digest, and the whole digest if the argument is the
// prefix of one (see store.ResolveID). It returns store.ErrNotFound if there is no such image, and
// a *store.AmbiguousError if the argument is the prefix of several digests.
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

// digestOf returns the digest in a name, which is the digest itself or ends with one.
func digestOf(name string) digest.Digest {
	if d := digest.Digest(name); d.Validate() == nil {
		return d
	}
	if n, err := reference.Full(name); err == nil {
		return n.Digest
	}
	return ""
}

// fromStore reads an image whose manifest and configuration are in the store. Layers that the
// store does not have are downloaded from the registry in the image's name.
func (r *Resolver) fromStore(ctx context.Context, name string, origin Origin,
	root ocispec.Descriptor, want ocispec.Platform) (*Image, error) {
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

// walk returns the manifest for the platform, starting at a manifest or an index.
func walk(ctx context.Context, read func(context.Context, ocispec.Descriptor) ([]byte, error),
	d ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, []byte, error) {
	next := func(ctx context.Context, d ocispec.Descriptor) (registry.Document, error) {
		data, err := read(ctx, d)
		if err != nil {
			return registry.Document{}, err
		}
		if d.MediaType, err = ocidoc.TypeOf(data, d.MediaType); err != nil {
			return registry.Document{}, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		return registry.Document{Descriptor: d, Data: data}, nil
	}
	root, err := next(ctx, d)
	if err != nil {
		return d, nil, err
	}
	docs, err := registry.Descend(ctx, root, want, next, read)
	if err != nil {
		return d, nil, err
	}
	manifest := docs[len(docs)-1]
	return manifest.Descriptor, manifest.Data, nil
}

// address returns the key under which the cache holds a registry's answer.
func address(name string, p ocispec.Platform) string {
	return "image " + name + " " + registry.FormatPlatform(p)
}

// remembered returns the image of a registry's earlier answer for this name, or nil if there is
// none. It returns an error if the image's documents cannot be read.
func (r *Resolver) remembered(ctx context.Context, name string,
	p ocispec.Platform) (*Image, error) {
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

// fromRegistry requests an image from the registry. written is the name as the user wrote it, which
// matters for short names.
func (r *Resolver) fromRegistry(ctx context.Context, name, written string,
	o ResolveOptions) (*Image, error) {
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
	img, err := parse(found.Name, FromRegistry, found.Root().Descriptor,
		m.Descriptor, m.Data, config)
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
	if err := r.cache.PutRemote(ctx, address(name, o.Platform),
		cache.Finding{Name: found.Name, Root: &img.Root}); err != nil {
		return nil, fmt.Errorf("image %s: %w", found.Name, err)
	}
	img.source = found.Source
	return img, nil
}

// unchanged returns the remembered image if the registry confirms that the name still refers to
// it. The request is cheaper than a pull, and registries that count pulls do not count it.
func (r *Resolver) unchanged(ctx context.Context, name, written string, o ResolveOptions) *Image {
	if !o.Pull {
		return nil
	}
	img, err := r.remembered(ctx, name, o.Platform)
	if img == nil || err != nil {
		return nil
	}
	if d, err := r.registry.Head(ctx, written); err != nil || d.Digest != img.Root.Digest {
		return nil // the following request reports the error
	}
	return img
}

// document copies a small blob into the store and returns it.
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

// Roots returns the images in the cached answers of registries. They have no name in the store, so
// a garbage collection of the store must be told to keep them.
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

// Origins returns a function that lists the repositories from which a blob was pulled, for mounting
// it in another repository of the same registry.
func (r *Resolver) Origins(ctx context.Context) (func(digest.Digest) []string, error) {
	from := map[digest.Digest][]string{}
	for e, err := range r.cache.All(cache.Remote) {
		if err != nil {
			return nil, err
		}
		found := e.Finding()
		n, err := reference.Full(found.Name)
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

// Restore downloads a blob that is missing in the store, from a registry from which an image with
// that blob was pulled.
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

// Close closes the archives from which images were read.
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

// lazySource is a repository to which the first request is sent when a blob is needed.
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
		return nil, fmt.Errorf("it is no longer in the store, and cannot be fetched again (%w): "+
			"build or pull %s again", err, s.name)
	}
	return rc, nil
}
