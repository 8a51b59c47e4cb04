package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Artifact is an image, or another artifact that is stored like one.
type Artifact struct {
	Name       string
	Descriptor ocispec.Descriptor
	Manifest   ocispec.Manifest
	Config     []byte // the document that the manifest has as its configuration

	source source
}

// Artifact finds the artifact that a name refers to (the package comment lists the forms of names).
// Answers of registries are not recorded in the cache. With o.Pull the local store is not searched.
func (r *Resolver) Artifact(ctx context.Context, ref string, o ResolveOptions) (*Artifact, error) {
	o.Platform = platform.Complete(o.Platform)
	loc, err := parseLocation(ref)
	if err != nil {
		return nil, err
	}
	if loc.Path != "" || loc.Scheme == imageref.Daemon {
		return r.layoutArtifact(ctx, loc, o.Platform)
	}
	name, err := store.Name(loc.Name)
	if err != nil {
		return nil, err
	}
	if !o.Pull && loc.Scheme != imageref.Docker {
		root, err := r.store.Resolve(ctx, name)
		if err == nil {
			return r.artifact(ctx, name, r.store.Read, root,
				lazySource{r.registry, name}, o.Platform)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	found, err := r.registry.Resolve(ctx, loc.Name, o.Platform)
	if err != nil {
		return nil, err
	}
	m := found.Manifest()
	return r.parseArtifact(ctx, found.Name, m.Descriptor, m.Data, found.Source)
}

func (r *Resolver) layoutArtifact(ctx context.Context, loc imageref.Ref,
	want ocispec.Platform) (*Artifact, error) {
	f, err := r.filesOf(ctx, loc)
	if err != nil {
		return nil, err
	}
	data, err := readFile(f, ocispec.ImageIndexFile)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := ocijson.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	root, name, err := choose(index.Manifests, loc)
	if err != nil {
		return nil, err
	}
	if root == nil {
		return nil, fmt.Errorf("%s holds several entries without a name", loc.Path)
	}
	src := blobsOf{f}
	read := func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		return r.document(ctx, src, d)
	}
	return r.artifact(ctx, name, read, *root, src, want)
}

func (r *Resolver) artifact(ctx context.Context, name string,
	read func(context.Context, ocispec.Descriptor) ([]byte, error), root ocispec.Descriptor,
	src source, want ocispec.Platform) (*Artifact, error) {
	d, manifest, err := walk(ctx, read, root, want)
	if err != nil {
		return nil, err
	}
	return r.parseArtifact(ctx, name, d, manifest, src)
}

func (r *Resolver) parseArtifact(ctx context.Context, name string, d ocispec.Descriptor,
	manifest []byte, src source) (*Artifact, error) {
	a := &Artifact{Name: name, Descriptor: d, source: src}
	if err := ocijson.Unmarshal(manifest, &a.Manifest); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	c := a.Manifest.Config
	if err := c.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("manifest %s: configuration %q: %w", d.Digest, c.Digest, err)
	}
	if c.Size < 0 || c.Size > ocidoc.MaxConfig {
		return nil, fmt.Errorf("manifest %s: a configuration of %d bytes", d.Digest, c.Size)
	}
	if c.Digest == ocispec.DescriptorEmptyJSON.Digest {
		a.Config = ocispec.DescriptorEmptyJSON.Data
		return a, nil
	}
	var err error
	if a.Config, err = r.document(ctx, src, c); err != nil {
		return nil, fmt.Errorf("%s: configuration: %w", name, err)
	}
	return a, nil
}

// ArtifactOf returns an artifact whose blobs open opens, such as a cache that is not in a registry.
// It has no manifest. A blob that does not match its descriptor is found when it is read.
func ArtifactOf(name string,
	open func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)) *Artifact {
	return &Artifact{Name: name, source: opener(open)}
}

// Open opens a blob of the artifact. The reader returns an error at its end if the content does not
// match the descriptor.
func (a *Artifact) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return verifiedFrom(a.source)(ctx, d)
}

// Layer returns an image of one layer of the artifact, for EnsureLayer and UnpackOn.
func (a *Artifact) Layer(d ocispec.Descriptor, diffID digest.Digest) (*Image, error) {
	if err := errors.Join(d.Digest.Validate(), diffID.Validate()); err != nil {
		return nil, fmt.Errorf("layer %q of %s: %w", d.Digest, a.Name, err)
	}
	if d.Size < 0 || !ocidoc.IsLayer(d.MediaType) {
		return nil, fmt.Errorf("layer %s of %s: %d bytes of media type %q", d.Digest,
			a.Name, d.Size, d.MediaType)
	}
	img := &Image{Name: a.Name, Origin: FromRegistry, Descriptor: a.Descriptor, source: a.source}
	img.Manifest.Layers = []ocispec.Descriptor{d}
	img.Config = dockerspec.DockerOCIImage{}
	img.Config.RootFS.DiffIDs = []digest.Digest{diffID}
	return img, nil
}

// Read calls use with the bytes of a blob of the artifact, which is not copied into the store. It
// returns an error if the blob does not have the size and the digest of d. use may have read other
// bytes then.
func (a *Artifact) Read(ctx context.Context, d ocispec.Descriptor, o UnpackOptions,
	use func(io.Reader) error) error {
	err := a.read(ctx, d, o, use)
	if err != nil {
		err = fmt.Errorf("blob %s of %s: %w", d.Digest, a.Name, err)
	}
	return err
}

func (a *Artifact) read(ctx context.Context, d ocispec.Descriptor, o UnpackOptions,
	use func(io.Reader) error) error {
	if err := d.Digest.Validate(); err != nil {
		return err
	}
	if a.source == nil || d.Size < 0 {
		return fmt.Errorf("it cannot be read: %d bytes", d.Size)
	}
	body, err := a.source.Open(ctx, d)
	if err != nil {
		return err
	}
	defer body.Close()
	watched, done := (&unpacking{o: o}).watch(body, "download", d)
	defer done()
	verifier := d.Digest.Verifier()
	r := &io.LimitedReader{R: watched, N: d.Size + 1}
	whole := io.TeeReader(r, verifier)
	if err := use(whole); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, whole); err != nil {
		return err
	}
	if r.N != 1 {
		return fmt.Errorf("it does not have %d bytes", d.Size)
	}
	if !verifier.Verified() {
		return errors.New("it has another digest")
	}
	return nil
}

// EnsureLayer copies the layer of an image that Artifact.Layer has returned into the store. It
// returns an error if the layer is not a tar or does not have the diffID: the descriptor and the
// diffID may be wrong, since they do not come from an image. Each layer is read once for this; the
// cache records that it was read.
func (r *Resolver) EnsureLayer(ctx context.Context, img *Image, o UnpackOptions) error {
	if err := r.newUnpacking(img, o).check(ctx, 0); err != nil {
		return fmt.Errorf("fetch %s: %w", img.Name, err)
	}
	return nil
}

// Stored returns an image of one layer in the store, for UnpackOn.
func Stored(d ocispec.Descriptor, diffID digest.Digest) *Image {
	img := &Image{Name: d.Digest.String(), Origin: FromStore, Descriptor: d}
	img.Manifest.Layers = []ocispec.Descriptor{d}
	img.Config.RootFS.DiffIDs = []digest.Digest{diffID}
	return img
}

// UnpackOn unpacks an image that Artifact.Layer or Stored has returned on top of a snapshot, and
// commits the result as id. It does not record the result under a chain ID.
func (r *Resolver) UnpackOn(ctx context.Context, img *Image, parent, id snapshot.ID,
	o UnpackOptions) error {
	u := r.newUnpacking(img, o)
	defer u.warn()
	if n := len(img.Manifest.Layers); n != 1 {
		return fmt.Errorf("unpack %s: %d layers where one is expected", img.Name, n)
	}
	work, err := u.unpack(ctx, 0, parent, true)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", img.Name, err)
	}
	if err := work.active.Commit(ctx, id); err != nil {
		return errors.Join(err, work.active.Discard())
	}
	return nil
}
