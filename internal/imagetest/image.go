package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image, read and checked.
type Image struct {
	Descriptor ocispec.Descriptor
	Manifest   ocispec.Manifest
	Config     dockerspec.DockerOCIImage

	blobs func(digest.Digest) ([]byte, error)
	index *ocispec.Index // the index in which it was found; nil: none
	root  digest.Digest  // of index
}

// Open reads the image called name from an OCI layout: a directory, or an archive of one. An empty
// name selects the only image. Every digest and size from the index to the config is checked.
func Open(path, name string) (*Image, error) {
	read, index, err := openLayout(path)
	if err != nil {
		return nil, err
	}
	desc, err := choose(index.Manifests, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	blobs := func(d digest.Digest) ([]byte, error) {
		b, err := read("blobs/" + d.Algorithm().String() + "/" + d.Encoded())
		if err != nil {
			return nil, err
		}
		if got := d.Algorithm().FromBytes(b); got != d {
			return nil, fmt.Errorf("blob %s has digest %s", d, got)
		}
		return b, nil
	}
	return load(desc, blobs)
}

// openLayout returns a reader of the files of an OCI layout or an archive of one, and its index.
func openLayout(path string) (read func(string) ([]byte, error), index ocispec.Index, err error) {
	if read, err = reader(path); err != nil {
		return nil, index, err
	}
	raw, err := read("index.json")
	if err != nil {
		return nil, index, err
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, index, fmt.Errorf("%s: index.json: %w", path, err)
	}
	return read, index, nil
}

// Names lists the names that an OCI layout or archive gives to its images.
func Names(path string) ([]string, error) {
	_, index, err := openLayout(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range index.Manifests {
		names = append(names, nameOf(d))
	}
	return names, nil
}

func load(desc ocispec.Descriptor, blobs func(digest.Digest) ([]byte, error)) (*Image, error) {
	img := &Image{Descriptor: desc, blobs: blobs}
	raw, err := blobs(desc.Digest)
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) != desc.Size {
		return nil, fmt.Errorf("manifest %s has %d bytes, its descriptor has size %d",
			desc.Digest, len(raw), desc.Size)
	}
	if err := json.Unmarshal(raw, &img.Manifest); err != nil {
		return nil, err
	}
	if img.Manifest.Config.Digest == "" {
		return loadIndex(desc.Digest, raw, blobs)
	}
	raw, err = blobs(img.Manifest.Config.Digest)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &img.Config); err != nil {
		return nil, err
	}
	return img, img.check()
}

func loadIndex(root digest.Digest, raw []byte,
	blobs func(digest.Digest) ([]byte, error)) (*Image, error) {
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) == 0 {
		return nil, errors.New("neither a manifest nor an index with manifests")
	}
	img, err := load(index.Manifests[0], blobs)
	if err == nil && img.index == nil {
		img.index, img.root = &index, root
	}
	return img, err
}

// check compares the parts of the image with each other, as the OCI image spec requires.
func (img *Image) check() error {
	layers, diffs := img.Manifest.Layers, img.Config.RootFS.DiffIDs
	if len(layers) != len(diffs) {
		return fmt.Errorf("%d layers, %d diff_ids", len(layers), len(diffs))
	}
	filled := 0
	for _, h := range img.Config.History {
		if !h.EmptyLayer {
			filled++
		}
	}
	if filled != len(layers) {
		return fmt.Errorf("%d layers, %d history entries that have one", len(layers), filled)
	}
	return nil
}

// Tar returns the uncompressed tar of layer n. Layers are numbered from 0. Negative numbers count
// from the end: the last layer is -1.
func (img *Image) Tar(n int) ([]byte, error) {
	if n < 0 {
		n += len(img.Manifest.Layers)
	}
	if n < 0 || n >= len(img.Manifest.Layers) {
		return nil, fmt.Errorf("no layer %d: the image has %d", n, len(img.Manifest.Layers))
	}
	desc := img.Manifest.Layers[n]
	raw, err := img.blobs(desc.Digest)
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) != desc.Size {
		return nil, fmt.Errorf("layer %s has %d bytes, its descriptor has size %d",
			desc.Digest, len(raw), desc.Size)
	}
	plain, err := inflate(raw, desc.MediaType)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	if got, want := digest.FromBytes(plain), img.Config.RootFS.DiffIDs[n]; got != want {
		return nil, fmt.Errorf("layer %s unpacks to %s, want %s of diff_ids", desc.Digest, got,
			want)
	}
	return plain, nil
}

// Layer returns the entries of layer n, in the order of its tar.
func (img *Image) Layer(n int) ([]Entry, error) {
	plain, err := img.Tar(n)
	if err != nil {
		return nil, err
	}
	return ReadTar(bytes.NewReader(plain))
}

// Tree returns the image's file system with all layers applied, sorted by path.
func (img *Image) Tree() ([]Entry, error) {
	tree := map[string]Entry{}
	for n := range img.Manifest.Layers {
		entries, err := img.Layer(n)
		if err != nil {
			return nil, err
		}
		apply(tree, entries)
	}
	var all []Entry
	for _, e := range tree {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// apply applies a layer to tree. Whiteouts hide only entries of lower layers, so they are applied
// first: https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
func apply(tree map[string]Entry, entries []Entry) {
	for _, e := range entries {
		switch e.Kind() {
		case "whiteout":
			drop(tree, e.Name(), true)
		case "opaque":
			drop(tree, e.Name(), false)
		}
	}
	for _, e := range entries {
		if k := e.Kind(); k == "whiteout" || k == "opaque" {
			continue
		}
		// A directory may exist without an entry of its own.
		if old, ok := tree[e.Path]; e.Kind() != "dir" || ok && old.Kind() != "dir" {
			drop(tree, e.Path, true)
		}
		if e.Kind() == "hardlink" {
			if to, ok := tree[clean(e.Header.Linkname)]; ok {
				e.Data = to.Data
			}
		}
		tree[e.Path] = e
	}
}

func drop(tree map[string]Entry, path string, self bool) {
	if self {
		delete(tree, path)
	}
	for p := range tree {
		if path == "." && p != "." || strings.HasPrefix(p, path+"/") {
			delete(tree, p)
		}
	}
}

func inflate(raw []byte, mediaType string) ([]byte, error) {
	switch {
	case strings.HasSuffix(mediaType, "zstd"):
		r, err := zstd.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	case strings.HasSuffix(mediaType, "gzip"):
		r, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	}
	return raw, nil
}

// reader returns a function that reads a file of the layout at path by its name in the layout.
func reader(path string) (func(string) ([]byte, error), error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(path, name)) },
			nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, h.Name, err)
		}
		files[clean(h.Name)] = b
	}
	return func(name string) ([]byte, error) {
		if b, ok := files[name]; ok {
			return b, nil
		}
		return nil, fmt.Errorf("%s: %s: %w", path, name, fs.ErrNotExist)
	}, nil
}

func choose(all []ocispec.Descriptor, name string) (ocispec.Descriptor, error) {
	var names []string
	for _, d := range all {
		if name == "" && len(all) == 1 || name != "" && same(nameOf(d), name) {
			return d, nil
		}
		names = append(names, nameOf(d))
	}
	return ocispec.Descriptor{}, fmt.Errorf("no image %q among %q", name, names)
}

// nameOf returns the full name if the descriptor has one, and otherwise the name in the annotation
// of the OCI spec.
func nameOf(d ocispec.Descriptor) string {
	if n := d.Annotations["io.containerd.image.name"]; n != "" {
		return n
	}
	return d.Annotations[ocispec.AnnotationRefName]
}

func same(a, b string) bool { return full(a) == full(b) }

func full(name string) string {
	if i := strings.LastIndexByte(name, ':'); i <= strings.LastIndexByte(name, '/') &&
		!strings.Contains(name, "@") {
		name += ":latest"
	}
	first, _, more := strings.Cut(name, "/")
	switch {
	case !more:
		return "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		return "docker.io/" + name
	}
	return name
}
