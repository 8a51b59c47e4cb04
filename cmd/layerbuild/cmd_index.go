package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/gotemplate"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// indexFlags are the flags of the index verb.
type indexFlags struct {
	copy        copyFlags // of which index has those for the state, registries and progress
	annotations []string
	format      string
	append, raw bool
	template    *gotemplate.Template // of format, if it is one
}

func indexVerb() verb {
	return verb{
		name: "index", args: "create NAME REF… | inspect REF",
		words:   []string{"create", "inspect"},
		summary: "make an image for several platforms of others, or show one",
		notes: `create makes an index of images, each for another platform: REF is an image as for 'layerbuild copy'. If it is an index
itself, all its entries are taken. NAME is a destination as for 'layerbuild copy', such as app, docker://registry.example.com/app:v1 or
oci:DIR:TAG. The images keep their digests. With --append the images are added to those of NAME, and replace those for the same
platforms. The digest is printed.

inspect shows the entries of an index, or a single manifest. A template of --format has the fields .Name .MediaType .Digest .Size
.Annotations and .Manifests.`,
		examples: []example{
			{"layerbuild index create app app-amd64 app-arm64", "make an index in the store"},
			{"layerbuild index create --append docker://ghcr.io/me/app app-arm64",
				"add an image to an index of a registry"},
			{"layerbuild index inspect docker://debian:12", "show the platforms of an image"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f indexFlags
			f.define(fs)
			return f.prepare
		},
	}
}

func (f *indexFlags) define(fs *pflag.FlagSet) {
	f.copy.state.define(fs)
	group(fs, "Index", func(fs *pflag.FlagSet) {
		fs.Var((*givenList)(&f.annotations), "annotation",
			"`KEY=VALUE` create: annotation of the index")
		fs.BoolVar(&f.append, "append", false, "create: add to the images of NAME")
		f.format = "text"
		fs.Var((*given)(&f.format), "format", "`text|json|TEMPLATE` inspect: output format")
		fs.BoolVar(&f.raw, "raw", false, "inspect: print the document as it is")
		fs.Var(newProgress(&f.copy.progress.mode), "progress", progressUsage)
	})
	group(fs, "Registries", f.copy.access.define)
}

func (f *indexFlags) prepare(e *env, args []string) (runFunc, error) {
	if len(args) == 0 {
		return nil, errors.New("a command is expected: create or inspect")
	}
	var err error
	if f.template, _, err = parseFormat(f.format, "text", "json"); err != nil {
		return nil, err
	}
	for _, a := range f.annotations {
		key, _, ok := strings.Cut(strings.TrimPrefix(a, "index:"), "=")
		if !ok || key == "" {
			return nil, badValue("annotation", a, errors.New("KEY=VALUE is expected"))
		}
	}
	if err := errors.Join(f.copy.state.resolve(e), f.copy.progress.resolve(e),
		f.copy.state.access(&f.copy.access)); err != nil {
		return nil, err
	}
	options := imageref.Options{Exists: image.Exists, Explicit: true}
	switch command, rest := args[0], args[1:]; {
	case command == "inspect" && len(rest) == 1:
		ref, err := imageref.Parse(rest[0], options)
		if err == nil && ref.Scheme == imageref.Plain {
			err = checkImage(ref.Name)
		}
		return func(ctx context.Context) error { return f.inspect(ctx, e, ref, rest[0]) }, err
	case command == "inspect":
		return nil, errors.New("inspect: one image is expected")
	case command != "create":
		return nil, fmt.Errorf("unknown command %q; create or inspect is expected", command)
	case len(rest) < 2:
		return nil, errors.New("create: a name and at least one image are expected")
	default:
		refs := make([]imageref.Ref, len(rest))
		for i, word := range rest {
			if refs[i], err = imageref.Parse(word, options); err != nil {
				return nil, err
			}
		}
		if err := checkCopyDest(refs[0]); err != nil {
			return nil, fmt.Errorf("name %q: %w", rest[0], err)
		}
		return func(ctx context.Context) error { return f.create(ctx, e, refs, rest) }, nil
	}
}

func (f *indexFlags) create(ctx context.Context, e *env, refs []imageref.Ref,
	words []string) error {
	return f.copy.state.withProgress(ctx, e, f.copy.progress.mode,
		func(state *state.State, im *images, sink event.Sink) error {
			a := &assembly{from: map[digest.Digest]*image.Found{}}
			for i, ref := range refs {
				if i == 0 && !f.append {
					continue
				}
				found, err := im.foundAt(ctx, ref, words[i])
				if err != nil {
					return err
				}
				if err := a.add(ctx, found, f.append && i > 0); err != nil {
					return fmt.Errorf("image %s: %w", words[i], err)
				}
			}
			made, err := a.index(f.annotations)
			if err != nil {
				return err
			}
			c := &copier{e: e, f: &f.copy, state: state, im: im, sink: sink}
			if err := c.to(ctx, made, refs[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.stdout, made.Root.Digest)
			return err
		})
}

// assembly is an index that is being made.
type assembly struct {
	entries []ocispec.Descriptor
	from    map[digest.Digest]*image.Found // the image that has each document and blob
	// repository is that of the first image of a registry, whose blobs may be mounted.
	repository string
}

// add adds the entries of an index, or a single image. An entry for a platform that is there
// replaces it if replace is set, and is an error otherwise.
func (a *assembly) add(ctx context.Context, f *image.Found, replace bool) error {
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
	}
	for _, d := range list {
		if err := a.walk(ctx, f, d, 0); err != nil {
			return err
		}
		d.Annotations = withoutNames(d.Annotations)
		if err := a.entry(d, replace); err != nil {
			return err
		}
	}
	if a.repository == "" {
		a.repository = f.Repository
	}
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

// index returns the finished image.
func (a *assembly) index(annotations []string) (*image.Found, error) {
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: a.entries}
	for _, annotation := range annotations {
		if ix.Annotations == nil {
			ix.Annotations = map[string]string{}
		}
		key, value, _ := strings.Cut(strings.TrimPrefix(annotation, "index:"), "=")
		ix.Annotations[key] = value
	}
	data, err := json.Marshal(ix)
	if err != nil {
		return nil, err
	}
	root := ocispec.Descriptor{MediaType: ix.MediaType, Digest: digest.FromBytes(data),
		Size: int64(len(data))}
	made := image.Assembled(root,
		func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			if d.Digest == root.Digest {
				return io.NopCloser(bytes.NewReader(data)), nil
			}
			f := a.from[d.Digest]
			if f == nil {
				return nil, fmt.Errorf("blob %s: none of the images has it", d.Digest)
			}
			return f.Fetch(ctx, d)
		})
	made.Repository = a.repository
	return made, nil
}

// indexReport is the output of `layerbuild index inspect --format json`.
type indexReport struct {
	Name        string               `json:"name"`
	MediaType   string               `json:"mediaType"`
	Digest      string               `json:"digest"`
	Size        int64                `json:"size"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Manifests   []ocispec.Descriptor `json:"manifests"` // of a single manifest: itself
}

func (f *indexFlags) inspect(ctx context.Context, e *env, ref imageref.Ref, word string) error {
	return f.copy.state.with(ctx, func(_ *state.State, im *images) error {
		found, err := im.foundAt(ctx, ref, word)
		if err != nil {
			return err
		}
		data, err := found.Read(ctx, found.Root)
		if err != nil {
			return err
		}
		if f.raw {
			_, err := e.stdout.Write(data)
			return err
		}
		doc := new(struct {
			Manifests   []ocispec.Descriptor `json:"manifests"`
			Annotations map[string]string    `json:"annotations"`
		})
		if err := json.Unmarshal(data, doc); err != nil {
			return fmt.Errorf("image %s: %w", word, err)
		}
		r := indexReport{Name: word, MediaType: found.Root.MediaType,
			Digest: found.Root.Digest.String(), Size: found.Root.Size, Annotations: doc.Annotations,
			Manifests: doc.Manifests}
		if !ocidoc.IsIndex(found.Root.MediaType) {
			one := found.Root
			if config, err := configOf(ctx, found); err == nil {
				one.Platform = &config.Platform
			}
			r.Manifests = []ocispec.Descriptor{one}
		}
		switch {
		case f.template != nil:
			return printTemplate(e.stdout, f.template, false, []indexReport{r}, nil)
		case f.format == "json":
			return printJSON(e.stdout, r)
		}
		return r.print(e.stdout)
	})
}

// print prints the report as text.
func (r indexReport) print(w io.Writer) error {
	fmt.Fprintf(w, "Name:       %s\nMedia type: %s\nDigest:     %s\n", ui.Visible(r.Name),
		ui.Visible(r.MediaType), r.Digest)
	for _, key := range slices.Sorted(maps.Keys(r.Annotations)) {
		fmt.Fprintf(w, "Annotation: %s=%s\n", ui.Visible(key), ui.Visible(r.Annotations[key]))
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "PLATFORM\tDIGEST\tSIZE\tMEDIA TYPE")
	for _, m := range r.Manifests {
		platform := "-"
		if m.Platform != nil {
			platform = parser.FormatPlatform(*m.Platform)
		}
		if of := ocidoc.Attested(m); of != "" {
			platform = "attestation of " + shortDigest(of)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", ui.Visible(platform), ui.Visible(m.Digest.String()),
			sizeText(m.Size), ui.Visible(m.MediaType))
	}
	return tw.Flush()
}
