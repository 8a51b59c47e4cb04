package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// indexCreation describes an index that 'index create' makes.
type indexCreation struct {
	sources     []indexSource
	names       []indexName
	annotations []export.Annotation
	platforms   []string // as FormatPlatform prints them; nil: all
}

// indexSource is an image of an index.
type indexSource struct {
	word string
	ref  imageref.Ref
	// descriptor has what a descriptor of the command line says about the image; nil: nothing.
	descriptor *ocispec.Descriptor
}

// indexName is a destination of an index.
type indexName struct {
	word string
	ref  imageref.Ref
}

// parse parses the names and the sources of the command line.
func (c *indexCreation) parse(f *indexFlags, args []string) error {
	tags := f.tags
	switch {
	case len(tags) > 0:
	case f.registry && !f.dryRun:
		return errors.New("create: give the name of the index with --tag, or --dry-run")
	case !f.registry && len(args) > 0:
		tags, args = args[:1], args[1:]
	}
	if len(args)+len(f.files) == 0 {
		if f.registry || len(f.tags) > 0 {
			return errors.New("create: at least one image is expected")
		}
		return errors.New("create: a name and at least one image are expected")
	}
	if f.append && len(tags) == 0 {
		return errors.New("create: --append needs the name of an index; give it with --tag")
	}
	for _, word := range tags {
		ref, err := f.place(word, f.registry || f.push)
		if err == nil {
			err = checkCopyDest(ref)
		}
		switch {
		case err != nil && len(f.tags) > 0:
			return badValue("tag", word, err)
		case err != nil:
			return fmt.Errorf("name %q: %w", word, err)
		}
		c.names = append(c.names, indexName{word, ref})
	}
	for _, file := range f.files {
		data, err := os.ReadFile(file)
		if err != nil {
			return badValue("file", file, plainError(err))
		}
		if err := c.source(f, strings.TrimSpace(string(data))); err != nil {
			return badValue("file", file, err)
		}
	}
	for _, word := range args {
		if err := c.source(f, word); err != nil {
			return err
		}
	}
	return c.locate(f.registry)
}

// source adds an image, which is a reference, a digest or a descriptor.
func (c *indexCreation) source(f *indexFlags, word string) error {
	s := indexSource{word: word}
	if strings.HasPrefix(word, "{") {
		s.descriptor = new(ocispec.Descriptor)
		if err := ocijson.Unmarshal([]byte(word), s.descriptor); err != nil {
			return fmt.Errorf("descriptor: %w", err)
		}
		word = s.descriptor.Digest.String()
		if err := s.descriptor.Digest.Validate(); err != nil {
			return fmt.Errorf("descriptor: digest %q: %w", word, err)
		}
	}
	if word == "" {
		return errors.New("an image name, a digest or a descriptor is expected")
	}
	var err error
	if digest.Digest(word).Validate() == nil {
		s.ref.Name, s.word = word, word // locate adds the repository
	} else if s.ref, err = f.place(word, f.registry); err != nil {
		return err
	} else if s.ref.Scheme == imageref.Plain {
		if err := checkImage(word); err != nil {
			return err
		}
	}
	c.sources = append(c.sources, s)
	return nil
}

// locate adds the repository to images that only have a digest: the only one that is named. Without
// registry, the store has them if no repository is named.
func (c *indexCreation) locate(registry bool) error {
	repositories := map[string]bool{}
	add := func(ref imageref.Ref) {
		if n, err := reference.Full(ref.Name); err == nil && ref.Scheme == imageref.Docker {
			repositories[n.Repository()] = true
		}
	}
	for _, n := range c.names {
		add(n.ref)
	}
	for _, s := range c.sources {
		add(s.ref)
	}
	for i, s := range c.sources {
		if s.ref.Scheme != imageref.Plain || digest.Digest(s.ref.Name).Validate() != nil ||
			!registry {
			continue
		}
		if len(repositories) != 1 {
			return fmt.Errorf("image %s: its repository is not known, because %d are named; "+
				"NAME@%[1]s is expected", s.word, len(repositories))
		}
		for name := range repositories {
			c.sources[i].ref = imageref.Ref{Scheme: imageref.Docker, Name: name + "@" + s.word}
		}
	}
	return nil
}

// indexAnnotations parses the annotations of an index and of its entries.
func indexAnnotations(values []string) ([]export.Annotation, error) {
	var list []export.Annotation
	for _, value := range values {
		word := value
		if key, _, _ := strings.Cut(value, "="); !strings.Contains(key, ":") {
			word = string(export.Index) + ":" + value
		}
		parsed, err := parseAnnotation(word)
		if err != nil {
			return nil, badValue("annotation", value,
				errors.New("[manifest-descriptor:]KEY=VALUE is expected"))
		}
		for _, a := range parsed {
			switch {
			case a.Target != export.Index && a.Target != export.ManifestDescriptor:
				return nil, badValue("annotation", value, fmt.Errorf(
					"the images of an index are not changed; a target is index or %s",
					export.ManifestDescriptor))
			case a.Platform != "":
				p, err := parsePlatform(a.Platform)
				if err != nil {
					return nil, badValue("annotation", value, err)
				}
				a.Platform = platformName(&p)
			}
			list = append(list, a)
		}
	}
	return list, nil
}

// platformNames returns the names of platforms of the command line.
func platformNames(values []string) ([]string, error) {
	var list []string
	for _, value := range values {
		p, err := parsePlatform(value)
		if err != nil {
			return nil, badValue("platform", value, err)
		}
		list = append(list, platformName(&p))
	}
	return list, nil
}

// platformName returns the name of a platform, with which platforms are compared.
func platformName(p *ocispec.Platform) string {
	if p == nil {
		return ""
	}
	return parser.FormatPlatform(parser.NormalizePlatform(*p))
}

func (f *indexFlags) create(ctx context.Context, e *env, c *indexCreation) error {
	for _, n := range c.names {
		if !f.dryRun {
			noteStoreOnly(e, n.ref, n.word)
		}
	}
	return f.copy.state.withProgress(ctx, e, f.copy.progress.mode,
		func(state *state.State, im *images, sink event.Sink) error {
			made, origin, err := f.assemble(ctx, im, c)
			if err != nil {
				return err
			}
			if f.dryRun {
				return printDocument(ctx, e.stdout, made)
			}
			to := &copier{e: e, f: &f.copy, state: state, im: im, sink: sink, origin: origin}
			for _, n := range c.names {
				if err := to.to(ctx, made, n.ref); err != nil {
					return err
				}
			}
			if err := f.writeMetadata(made, c.names); err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.stdout, made.Root.Digest)
			return err
		})
}

// printDocument prints the root of an image, with indents.
func printDocument(ctx context.Context, w io.Writer, made *image.Found) error {
	data, err := made.Read(ctx, made.Root)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// writeMetadata writes the file of --metadata-file.
func (f *indexFlags) writeMetadata(made *image.Found, names []indexName) error {
	if f.metadataFile == "" {
		return nil
	}
	m := export.Metadata{Descriptor: &made.Root, Digest: made.Root.Digest}
	var list []string
	for _, n := range names {
		name := n.word
		if full, err := reference.Full(n.ref.Name); err == nil && n.ref.Path == "" {
			name = full.String()
		}
		list = append(list, name)
	}
	m.Name = strings.Join(list, ",")
	data, err := m.JSON()
	if err == nil {
		err = atomicfile.WriteFile(f.metadataFile, append(data, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("--metadata-file: %w", err)
	}
	return nil
}

// assemble finds the images and makes the index. origin returns the repository that has a blob.
func (f *indexFlags) assemble(ctx context.Context, im *images,
	c *indexCreation) (made *image.Found, origin func(digest.Digest) string, err error) {
	a := &assembly{from: map[digest.Digest]*image.Found{}}
	sources := c.sources
	if f.append {
		old := indexSource{word: c.names[0].word, ref: c.names[0].ref}
		sources = slices.Concat([]indexSource{old}, sources)
	}
	var found []*image.Found
	for i, s := range sources {
		one, err := im.foundAt(ctx, s.ref, s.word)
		if err != nil {
			return nil, nil, err
		}
		if f.append && i == 0 {
			a.old, err = annotationsOf(ctx, one)
		}
		if err == nil {
			err = a.add(ctx, one, s.descriptor, f.append && i > 0)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("image %s: %w", s.word, err)
		}
		found = append(found, one)
	}
	as := f.alone(c, found)
	if as == nil {
		if err := a.choose(c.platforms); err != nil {
			return nil, nil, err
		}
		if as, err = f.index(a, c); err != nil {
			return nil, nil, err
		}
	}
	return as, a.repositoryOf, nil
}

// alone returns the only image of a command line that is copied as it is, as buildx does: an index,
// or an image if no index is preferred. It returns nil if an index is made.
func (f *indexFlags) alone(c *indexCreation, found []*image.Found) *image.Found {
	if len(found) != 1 || len(c.annotations) > 0 || c.platforms != nil ||
		c.sources[0].descriptor != nil {
		return nil
	}
	if f.preferIndex && !ocidoc.IsIndex(found[0].Root.MediaType) {
		return nil
	}
	one := *found[0]
	one.Root.Annotations = withoutNames(one.Root.Annotations)
	return &one
}

// assembly is an index that is being made.
type assembly struct {
	entries []ocispec.Descriptor
	from    map[digest.Digest]*image.Found // the image that has each document and blob
	old     map[string]string              // the annotations of the index to which others are added
}

// annotationsOf returns the annotations of an index; nil for an image that is none.
func annotationsOf(ctx context.Context, f *image.Found) (map[string]string, error) {
	if !ocidoc.IsIndex(f.Root.MediaType) {
		return nil, nil
	}
	data, err := f.Read(ctx, f.Root)
	if err != nil {
		return nil, err
	}
	var ix struct {
		Annotations map[string]string `json:"annotations"`
	}
	err = ocijson.Unmarshal(data, &ix)
	return ix.Annotations, err
}

// repositoryOf returns the repository of a registry that has a document or a blob, or "".
func (a *assembly) repositoryOf(d digest.Digest) string {
	if f := a.from[d]; f != nil {
		return f.Repository
	}
	return ""
}

// add adds the entries of an index, or a single image, about which a descriptor may say more. An
// entry for a platform that is there replaces it if replace is set, and is an error otherwise.
func (a *assembly) add(ctx context.Context, f *image.Found, given *ocispec.Descriptor,
	replace bool) error {
	list := []ocispec.Descriptor{f.Root}
	if ocidoc.IsIndex(f.Root.MediaType) {
		data, err := f.Read(ctx, f.Root)
		if err != nil {
			return err
		}
		doc, err := ocidoc.Parse(data)
		if err != nil {
			return err
		}
		list = doc.Manifests
	} else {
		config, err := configOf(ctx, f)
		if err != nil {
			return err
		}
		list[0].Platform = &config.Platform
		if list[0], err = described(list[0], given); err != nil {
			return err
		}
	}
	a.from[f.Root.Digest] = f
	for _, d := range list {
		if err := a.walk(ctx, f, d, 0); err != nil {
			return err
		}
		d.Annotations = withoutNames(d.Annotations)
		if err := a.entry(d, replace); err != nil {
			return err
		}
	}
	return nil
}

// described returns a descriptor with what another one of the same image says.
func described(d ocispec.Descriptor, given *ocispec.Descriptor) (ocispec.Descriptor, error) {
	switch {
	case given == nil:
		return d, nil
	case given.Size != 0 && given.Size != d.Size:
		return d, fmt.Errorf("it has %d bytes, and %d in its descriptor", d.Size, given.Size)
	case given.MediaType != "" && given.MediaType != d.MediaType:
		return d, fmt.Errorf("it is of the type %s, and %s in its descriptor", d.MediaType,
			given.MediaType)
	}
	if given.Platform != nil {
		d.Platform = given.Platform
	}
	if given.Annotations != nil {
		d.Annotations = given.Annotations
	}
	return d, nil
}

// choose removes the entries for other platforms than the given ones, and their attestations.
func (a *assembly) choose(platforms []string) error {
	if platforms == nil {
		return nil
	}
	kept, there := map[string]bool{}, map[string]bool{}
	for _, d := range a.entries {
		if name := platformName(d.Platform); ocidoc.IsImage(d) && slices.Contains(platforms, name) {
			kept[d.Digest.String()], there[name] = true, true
		}
	}
	for _, name := range platforms {
		if !there[name] {
			return fmt.Errorf("none of the images is for %s", name)
		}
	}
	a.entries = slices.DeleteFunc(a.entries, func(d ocispec.Descriptor) bool {
		return !kept[d.Digest.String()] && !kept[ocidoc.Attested(d)]
	})
	return nil
}

// entry adds an entry.
func (a *assembly) entry(d ocispec.Descriptor, replace bool) error {
	same := func(e ocispec.Descriptor) bool {
		return e.Digest == d.Digest || ocidoc.IsImage(e) && ocidoc.IsImage(d) &&
			e.Platform != nil && d.Platform != nil &&
			parser.FormatPlatform(*e.Platform) == parser.FormatPlatform(*d.Platform)
	}
	i := slices.IndexFunc(a.entries, same)
	switch {
	case i < 0:
		a.entries = append(a.entries, d)
	case a.entries[i].Digest == d.Digest:
		// As in buildx, the later annotations win.
		a.entries[i].Annotations = merged(a.entries[i].Annotations, d.Annotations)
	case !replace:
		return fmt.Errorf("%s is for %s, as another image of the index is", d.Digest,
			parser.FormatPlatform(*d.Platform))
	default:
		old := a.entries[i].Digest
		a.entries[i] = d
		// Attestations of the image that is no longer there are removed too.
		a.entries = slices.DeleteFunc(a.entries, func(e ocispec.Descriptor) bool {
			return digest.Digest(ocidoc.Attested(e)) == old
		})
	}
	return nil
}

// merged returns the annotations of both maps; those of over win. It is nil if there are none.
func merged(base, over map[string]string) map[string]string {
	if len(base)+len(over) == 0 {
		return nil
	}
	all := maps.Clone(base)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, over)
	return all
}

// withoutNames returns annotations without those that name an image in a layout.
func withoutNames(all map[string]string) map[string]string {
	var kept map[string]string
	for k, v := range all {
		if k != ocidoc.AnnotationName && k != ocispec.AnnotationRefName {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[k] = v
		}
	}
	return kept
}

// walk records the image that has a document and everything to which the document refers.
func (a *assembly) walk(ctx context.Context, f *image.Found, d ocispec.Descriptor,
	depth int) error {
	if depth > ocidoc.MaxNesting {
		return ocidoc.ErrNesting
	}
	a.from[d.Digest] = f
	data, err := f.Read(ctx, d)
	if err != nil {
		return err
	}
	doc, err := ocidoc.Parse(data)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	for _, b := range doc.Content() {
		a.from[b.Digest] = f
	}
	for _, m := range doc.Manifests {
		if err := a.walk(ctx, f, m, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// annotate adds annotations to the entries, and returns those of the index.
func (a *assembly) annotate(annotations []export.Annotation) (map[string]string, error) {
	own := merged(a.old, nil)
	for _, n := range annotations {
		if n.Target == export.Index {
			own = merged(own, map[string]string{n.Key: n.Value})
			continue
		}
		found := false
		for i, d := range a.entries {
			if !ocidoc.IsImage(d) || n.Platform != "" && n.Platform != platformName(d.Platform) {
				continue
			}
			found = true
			a.entries[i].Annotations = merged(d.Annotations, map[string]string{n.Key: n.Value})
		}
		if !found {
			return nil, fmt.Errorf("--annotation %s: none of the images is for %s", n, n.Platform)
		}
	}
	return own, nil
}

// index returns the finished image. As in buildx it is a list in docker's format if all images are
// in that format, unless it has annotations, which that format does not have.
func (f *indexFlags) index(a *assembly, c *indexCreation) (*image.Found, error) {
	annotations, err := a.annotate(c.annotations)
	if err != nil {
		return nil, err
	}
	if len(a.entries) == 1 && len(c.sources) == 1 && !f.preferIndex && len(c.annotations) == 0 {
		return image.Assembled(a.entries[0], a.fetch), nil
	}
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: a.entries, Annotations: annotations}
	other := func(d ocispec.Descriptor) bool {
		return d.MediaType != ocidoc.DockerManifest || len(d.Annotations) > 0
	}
	if annotations == nil && !slices.ContainsFunc(a.entries, other) {
		ix.MediaType = ocidoc.DockerManifestList
	}
	data, err := json.Marshal(ix)
	if err != nil {
		return nil, err
	}
	root := ocispec.Descriptor{MediaType: ix.MediaType, Digest: digest.FromBytes(data),
		Size: int64(len(data))}
	return image.Assembled(root,
		func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			if d.Digest == root.Digest {
				return io.NopCloser(bytes.NewReader(data)), nil
			}
			return a.fetch(ctx, d)
		}), nil
}

// fetch opens a document or a blob of one of the images.
func (a *assembly) fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	f := a.from[d.Digest]
	if f == nil {
		return nil, fmt.Errorf("blob %s: none of the images has it", d.Digest)
	}
	return f.Fetch(ctx, d)
}
