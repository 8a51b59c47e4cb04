package image

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// files provides the files of a layout, in a directory or in an archive.
type files interface {
	open(name string) (io.ReadCloser, int64, error)
}

// fromLayout reads an image from a layout, an archive or a daemon. It stores the manifest and the
// configuration; the layers are stored when they are needed.
func (r *Resolver) fromLayout(ctx context.Context, loc imageref.Ref,
	want ocispec.Platform) (*Image, error) {
	f, err := r.filesOf(ctx, loc)
	if err != nil {
		return nil, err
	}
	if loc.Scheme == imageref.Daemon {
		loc = inDaemon(loc)
	}
	index, list, err := readLists(f, loc)
	if err != nil {
		return nil, err
	}
	if index != nil {
		return r.fromIndex(ctx, f, loc, index, want)
	}
	return r.fromDockerArchive(ctx, f, loc, list)
}

// readLists returns the index.json of a layout or, if there is none or loc asks for an archive of
// docker save, its manifest.json.
func readLists(f files, loc imageref.Ref) (index, list []byte, err error) {
	if loc.Scheme != imageref.DockerArchive {
		if index, err := readFile(f, ocispec.ImageIndexFile); err == nil {
			return index, nil, nil
		}
	}
	list, err = readFile(f, "manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errors.New("neither an OCI image layout nor an archive of docker save: " +
			"there is no index.json and no manifest.json")
	}
	return nil, list, err
}

// filesOf opens the place of a reference that is a layout, an archive or a daemon.
func (r *Resolver) filesOf(ctx context.Context, loc imageref.Ref) (files, error) {
	if loc.Scheme == imageref.Daemon {
		return r.daemonFiles(ctx, loc.Name)
	}
	return r.openFiles(ctx, loc.Path)
}

// openFiles opens a directory or an archive. An archive stays open until Resolver.Close.
func (r *Resolver) openFiles(ctx context.Context, name string) (files, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return directory(name), nil
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("neither a directory nor a file")
	}
	file, err := hostfile.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	a, err := r.openArchive(ctx, file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return a, nil
}

func (r *Resolver) openArchive(ctx context.Context, file *os.File) (files, error) {
	plain, err := r.decompressed(ctx, file)
	if err != nil {
		return nil, err
	}
	a, err := indexArchive(ctx, plain)
	if err != nil {
		if plain != file {
			plain.Close()
		}
		return nil, err
	}
	if plain != file {
		file.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closers = append(r.closers, plain)
	return a, nil
}

// decompressed returns the file itself, or an unnamed file with its decompressed content, which
// can be read at any offset.
func (r *Resolver) decompressed(ctx context.Context, file *os.File) (*os.File, error) {
	head, err := bufio.NewReader(file).Peek(8)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if unpack.Detect(head) == unpack.None {
		return file, nil
	}
	body, _, err := unpack.Decompress(&contextReader{ctx, file})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	tmp, err := r.store.Temp()
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(tmp, body)
	if err == nil {
		_, err = tmp.Seek(0, io.SeekStart)
	}
	if err != nil {
		tmp.Close()
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return tmp, nil
}

// contextReader ends a long read when ctx ends.
type contextReader struct {
	ctx context.Context // of the call that reads: an io.Reader gets none
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// directory is a layout on disk. Names are made of digests or are constants, so they cannot
// point outside of it.
type directory string

func (d directory) open(name string) (io.ReadCloser, int64, error) {
	f, err := hostfile.OpenRegular(filepath.Join(string(d), filepath.FromSlash(name)))
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// archive is a tar file whose members can be read in any order.
type archive struct {
	file    *os.File
	members map[string]member
}

type member struct {
	off, size int64
	link      string // for a link: the name of the other member
}

// maxMembers limits the memory for the index of an archive.
const maxMembers = 1 << 20

func indexArchive(ctx context.Context, f *os.File) (*archive, error) {
	a := &archive{file: f, members: map[string]member{}}
	tr := tar.NewReader(f)
	for len(a.members) < maxMembers {
		h, err := tr.Next()
		if err == io.EOF {
			return a, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("not an archive that can be read: %w", err)
		}
		name := path.Clean("/" + h.Name)[1:]
		if err := a.ambiguous(h, name); err != nil {
			return nil, err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			// tar.Reader reads whole header blocks and does not read ahead, so the file's offset is
			// the offset of the member's data.
			off, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.members[name] = member{off: off, size: h.Size}
		case tar.TypeLink:
			a.members[name] = member{link: path.Clean("/" + h.Linkname)[1:]}
		case tar.TypeSymlink:
			// docker save makes a link for a layer that another image of the archive has
			a.members[name] = member{link: path.Join("/", path.Dir(name), h.Linkname)[1:]}
		}
	}
	return nil, fmt.Errorf("the archive has more than %d members", maxMembers)
}

// ambiguous returns an error for a member that different readers of archives interpret
// differently.
func (a *archive) ambiguous(h *tar.Header, name string) error {
	if h.Typeflag == tar.TypeReg && strings.HasSuffix(h.Name, "/") {
		return fmt.Errorf("the archive has a regular file whose name %q ends in a slash", h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // the data are not the file's content
			return fmt.Errorf("the archive has a sparse file %q", h.Name)
		}
	}
	// No digest determines which of the two is the right one.
	if _, twice := a.members[name]; twice &&
		(name == "manifest.json" || name == "index.json" || name == "oci-layout") {
		return fmt.Errorf("the archive has %q twice", name)
	}
	return nil
}

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	name = path.Clean("/" + name)[1:]
	for range 8 {
		m, ok := a.members[name]
		if !ok {
			break
		}
		if m.link == "" {
			return io.NopCloser(io.NewSectionReader(a.file, m.off, m.size)), m.size, nil
		}
		name = m.link
	}
	return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// readFile reads a small file as a whole.
func readFile(f files, name string) ([]byte, error) {
	r, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > ocidoc.MaxConfig {
		return nil, fmt.Errorf("%s: %d bytes are too many", name, size)
	}
	data, err := io.ReadAll(io.LimitReader(r, ocidoc.MaxConfig))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

// blobsOf reads the blobs of a layout.
type blobsOf struct{ files }

func (b blobsOf) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", d.Digest, err)
	}
	r, size, err := b.open("blobs/" + d.Digest.Algorithm().String() + "/" + d.Digest.Encoded())
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if size != d.Size {
		r.Close()
		return nil, fmt.Errorf("blob %s is damaged: it has %d bytes, not %d",
			d.Digest, size, d.Size)
	}
	return r, nil
}

// sized returns the descriptor of a document from its digest.
func (b blobsOf) sized(d digest.Digest) (ocispec.Descriptor, error) {
	r, size, err := b.open("blobs/" + d.Algorithm().String() + "/" + d.Encoded())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{Digest: d, Size: size}, r.Close()
}

// fromIndex reads an image from an OCI layout.
func (r *Resolver) fromIndex(ctx context.Context, f files, loc imageref.Ref, data []byte,
	want ocispec.Platform) (*Image, error) {
	var index ocispec.Index
	if err := ocijson.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	src := blobsOf{f}
	root, name, err := choose(index.Manifests, loc)
	if err != nil && loc.Digest != "" {
		// The digest may be in a nested index.
		if d, err1 := src.sized(loc.Digest); err1 == nil {
			root, name, err = &d, loc.Path, nil
		}
	}
	if err != nil {
		return nil, err
	}
	read := func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		return r.document(ctx, src, d)
	}
	var d ocispec.Descriptor
	var manifest []byte
	if root == nil {
		// Several entries without names are one image for several platforms, and index.json is
		// its index.
		ix, err := r.store.Write(ctx, ocispec.MediaTypeImageIndex, data)
		if err != nil {
			return nil, err
		}
		root = &ix
	}
	if d, manifest, err = walk(ctx, read, *root, want); err != nil {
		return nil, err
	}
	c, err := configOf(name, d, manifest)
	if err != nil {
		return nil, err
	}
	config, err := read(ctx, c)
	if err != nil {
		return nil, err
	}
	img, err := parse(name, FromLayout, *root, d, manifest, config)
	if err != nil {
		return nil, err
	}
	img.source = src
	return img, nil
}

// choose returns the entry of an index.json that loc selects. It returns nil for all entries
// together.
func choose(entries []ocispec.Descriptor, loc imageref.Ref) (*ocispec.Descriptor, string, error) {
	var names []string
	var untagged int
	for i, e := range entries {
		full := e.Annotations[ocidoc.AnnotationName]
		ref := e.Annotations[ocispec.AnnotationRefName]
		if full == "" && ref == "" {
			untagged++
		} else if full != "" {
			names = append(names, full)
		} else {
			names = append(names, ref)
		}
		hit := loc.Digest != "" && e.Digest == loc.Digest
		if loc.Digest == "" && loc.Tag != "" {
			hit = sameName(full, loc.Tag) || sameName(ref, loc.Tag)
		}
		if hit {
			return &entries[i], cmp.Or(full, ref, loc.Path), nil
		}
	}
	switch {
	case loc.Digest != "":
		return nil, "", fmt.Errorf("no image %s: there is %s", loc.Digest,
			listOf(digestsOf(entries)))
	case loc.Tag != "":
		return nil, "", fmt.Errorf("no image %q: there is %s", loc.Tag, listOf(names))
	case len(entries) == 0:
		return nil, "", errors.New("the layout holds no image")
	case len(entries) == 1:
		e := entries[0]
		return &e, cmp.Or(e.Annotations[ocidoc.AnnotationName],
			e.Annotations[ocispec.AnnotationRefName], loc.Path), nil
	case untagged == len(entries):
		return nil, loc.Path, nil
	}
	loc.Tag = "latest"
	if d, name, err := choose(entries, loc); err == nil {
		return d, name, nil
	}
	return nil, "", fmt.Errorf("it holds several images, name one of them: %s", listOf(names))
}

func digestsOf(entries []ocispec.Descriptor) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Digest.String())
	}
	return out
}

func listOf(names []string) string {
	if len(names) == 0 {
		return "none with a name"
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// sameName reports whether the name want, which the user gave, refers to a name in a layout: it is
// the whole name, or only the tag.
func sameName(have, want string) bool {
	if have == "" {
		return false
	}
	if have == want {
		return true
	}
	if i := strings.LastIndexByte(have, ':'); i >= 0 &&
		!strings.Contains(have[i:], "/") && have[i+1:] == want {
		return true
	}
	a, err1 := store.Name(have)
	b, err2 := store.Name(want)
	return err1 == nil && err2 == nil && a == b
}

// fromDockerArchive reads an image from an archive of docker save. Such an archive has no manifest:
// fromDockerArchive makes one.
func (r *Resolver) fromDockerArchive(ctx context.Context, f files, loc imageref.Ref,
	data []byte) (*Image, error) {
	list, err := parseDockerList(data)
	if err != nil {
		return nil, err
	}
	di, name, err := chooseDocker(list, loc)
	if err != nil {
		return nil, err
	}
	made, err := r.convert(ctx, f, di)
	if err != nil {
		return nil, err
	}
	img, err := parse(name, FromLayout, made.desc, made.desc, made.manifest, made.config)
	if err != nil {
		return nil, err
	}
	img.source = made.source
	return img, nil
}

// converted is an image of an archive of docker save, with the manifest that was made for it.
type converted struct {
	desc             ocispec.Descriptor // of the manifest
	manifest, config []byte
	source           members
}

// convert makes a manifest for an image of an archive of docker save, and stores it with the
// image's configuration.
func (r *Resolver) convert(ctx context.Context, f files, di dockerImage) (*converted, error) {
	config, err := readFile(f, di.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c, err := r.store.Write(ctx, ocispec.MediaTypeImageConfig, config)
	if err != nil {
		return nil, err
	}
	var rootfs struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := ocijson.Unmarshal(config, &rootfs); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if n, m := len(di.Layers), len(rootfs.RootFS.DiffIDs); n != m {
		return nil, fmt.Errorf("manifest.json names %d layers, and the configuration %d", n, m)
	}
	src := members{files: f, names: map[digest.Digest]string{}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: c, Layers: []ocispec.Descriptor{}}
	for i, l := range di.Layers {
		d, err := layerMember(ctx, f, l, rootfs.RootFS.DiffIDs[i])
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l, err)
		}
		src.names[d.Digest] = l
		m.Layers = append(m.Layers, d)
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	d, err := r.store.Write(ctx, m.MediaType, manifest)
	if err != nil {
		return nil, err
	}
	return &converted{d, manifest, config, src}, nil
}

// dockerImage is an entry of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// parseDockerList parses a manifest.json.
func parseDockerList(data []byte) ([]dockerImage, error) {
	var list []dockerImage
	if err := ocijson.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	return list, nil
}

func chooseDocker(list []dockerImage, loc imageref.Ref) (dockerImage, string, error) {
	var names []string
	for _, e := range list {
		names = append(names, e.RepoTags...)
		for _, t := range e.RepoTags {
			if loc.Tag != "" && sameName(t, loc.Tag) {
				return e, t, nil
			}
		}
	}
	switch {
	case loc.Digest != "":
		return dockerImage{}, "",
			errors.New("an archive of docker save has no manifest digests to choose by")
	case loc.Tag != "":
		return dockerImage{}, "", fmt.Errorf("no image %q: there is %s", loc.Tag, listOf(names))
	case len(list) == 0:
		return dockerImage{}, "", errors.New("the archive holds no image")
	case len(list) > 1:
		return dockerImage{}, "", fmt.Errorf("it holds several images, name one of them: %s",
			listOf(names))
	}
	return list[0], cmp.Or(append(slices.Clone(list[0].RepoTags), loc.Path)...), nil
}

// layerMember returns the descriptor of a layer of a docker archive. Nearly all are plain tar
// files: their digest is the diff ID, and is verified when the layer is unpacked. The digest of
// a compressed layer is computed here.
func layerMember(ctx context.Context, f files, name string,
	diffID digest.Digest) (ocispec.Descriptor, error) {
	body, size, err := f.open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer body.Close()
	br := bufio.NewReaderSize(&contextReader{ctx, body}, 256<<10)
	head, _ := br.Peek(8)
	compression := unpack.Detect(head)
	if compression == unpack.None {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer,
			Digest: diffID, Size: size}, nil
	}
	d, err := digest.FromReader(br)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	t := ocispec.MediaTypeImageLayerGzip
	if compression == unpack.Zstd {
		t = ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.Descriptor{MediaType: t, Digest: d, Size: size}, nil
}

// members are the layers of a docker archive, with the names of their files.
type members struct {
	files
	names map[digest.Digest]string
}

func (m members) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	name, ok := m.names[d.Digest]
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, fs.ErrNotExist)
	}
	r, _, err := m.open(name)
	return r, err
}
