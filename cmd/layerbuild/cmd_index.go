package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/layerbuild/layerbuild/internal/gotemplate"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
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
	others      otherValues

	tags, files, platforms []string
	metadataFile           string
	dryRun, preferIndex    bool
	push, registry         bool
}

func indexVerb() verb {
	return verb{
		name: "index", args: "create NAME REF… | inspect REF",
		words:   []string{"create", "inspect"},
		summary: "make an image for several platforms of others, or show one",
		notes: `create makes an index of images, each for another platform: REF is an image as for 'layerbuild copy', or a descriptor as JSON. If
it is an index itself, all its entries are taken; if it is the only REF, it is copied as it is. The images keep their digests. The digest
of the index is printed.

NAME is a destination as for 'layerbuild copy'. Without a scheme, such as app, it is a name in the store. In a registry it is
docker://registry.example.com/app:v1, or registry.example.com/app:v1 with --push; in a layout it is oci:DIR:TAG. With --tag, which may be
given several times, all arguments are REFs. With --append the images are added to those of the first NAME, and replace those for the same
platforms; its annotations stay, unless --annotation gives others. Blobs of another repository of the same registry are mounted, and not transferred.

'layerbuild buildx imagetools create' and 'inspect' are 'layerbuild index create --registry' and 'layerbuild index inspect --registry': all
names are names in registries, and create takes the new names from --tag only. A digest alone is an image of the only repository that is
named.

inspect shows the entries of an index, or a single manifest. A template of --format has the fields .Name .MediaType .Digest .Size
.Annotations and .Manifests.`,
		examples: []example{
			{"layerbuild index create app app-amd64 app-arm64", "make an index in the store"},
			{"layerbuild index create --push ghcr.io/me/app:v1 app-amd64 app-arm64",
				"make an index of images of the store in a registry"},
			{"layerbuild index create --append docker://ghcr.io/me/app app-arm64",
				"add an image to an index of a registry"},
			{"layerbuild index create --registry -t ghcr.io/me/app:v2 ghcr.io/me/app:v1",
				"give an image of a registry another name"},
			{"layerbuild index inspect docker://debian:12", "show the platforms of an image"},
		},
		common: []string{"tag", "push", "append", "platform", "annotation", "dry-run", "format",
			"registry"},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f indexFlags
			f.define(fs)
			return f.prepare
		},
		withOthers: func(fs *pflag.FlagSet) prepareFunc {
			var f indexFlags
			f.define(fs)
			f.others.define(fs, cacheOthers[:])
			return f.prepare
		},
	}
}

func (f *indexFlags) define(fs *pflag.FlagSet) {
	f.copy.state.define(fs)
	group(fs, "create", func(fs *pflag.FlagSet) {
		fs.VarP((*givenList)(&f.tags), "tag", "t", "`NAME` name; all arguments are REFs")
		fs.BoolVar(&f.push, "push", false, "NAME without a scheme is one in a registry")
		fs.BoolVar(&f.append, "append", false, "add to the images of NAME")
		fs.VarP((*givenList)(&f.files), "file", "f",
			"`FILE` read a REF from a file\n"+
				"The file has a name, a digest, or a descriptor as JSON.")
		fs.Var((*commaList)(&f.platforms), "platform",
			"`OS/ARCH` leave out other platforms")
		fs.Var((*givenList)(&f.annotations), "annotation", "`KEY=VALUE` annotation of the index\n"+
			"KEY may begin with manifest-descriptor: or manifest-descriptor[OS/ARCH]: to annotate "+
			"entries of the index.")
		fs.BoolVar(&f.preferIndex, "prefer-index", true, "make an index of a single image\n"+
			"With --prefer-index=false a single image is copied as it is.")
		fs.BoolVar(&f.dryRun, "dry-run", false, "print the index and write nothing")
		fs.StringVar(&f.metadataFile, "metadata-file", "",
			"`FILE` write digest and names to a file, as JSON")
	})
	group(fs, "inspect", func(fs *pflag.FlagSet) {
		f.format = "text"
		fs.Var((*given)(&f.format), "format", "`text|json|TEMPLATE` output format")
		fs.BoolVar(&f.raw, "raw", false, "print the document as it is")
	})
	group(fs, "create and inspect", func(fs *pflag.FlagSet) {
		fs.BoolVar(&f.registry, "registry", false, "all names are names in registries")
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
	var c indexCreation
	if c.annotations, err = indexAnnotations(f.annotations); err != nil {
		return nil, err
	}
	if c.platforms, err = platformNames(f.platforms); err != nil {
		return nil, err
	}
	if err := errors.Join(checkFile("metadata-file", f.metadataFile), f.copy.state.resolve(e),
		f.copy.progress.resolve(e), f.copy.state.access(&f.copy.access)); err != nil {
		return nil, err
	}
	switch command, rest := args[0], args[1:]; command {
	case "inspect":
		return f.prepareInspect(e, rest)
	case "create":
		if f.raw || f.format != "text" {
			return nil, errors.New("create: --raw and --format are flags of inspect")
		}
		if err := c.parse(f, rest); err != nil {
			return nil, err
		}
		return func(ctx context.Context) error { return f.create(ctx, e, &c) }, nil
	default:
		return nil, fmt.Errorf("unknown command %q; create or inspect is expected", command)
	}
}

func (f *indexFlags) prepareInspect(e *env, args []string) (runFunc, error) {
	if len(args) != 1 {
		return nil, errors.New("inspect: one image is expected")
	}
	for _, flag := range []struct {
		name  string
		given bool
	}{{"tag", len(f.tags) > 0}, {"push", f.push}, {"append", f.append},
		{"file", len(f.files) > 0}, {"platform", len(f.platforms) > 0},
		{"annotation", len(f.annotations) > 0}, {"prefer-index", !f.preferIndex},
		{"dry-run", f.dryRun}, {"metadata-file", f.metadataFile != ""}} {
		if flag.given {
			return nil, fmt.Errorf("inspect: --%s is a flag of create", flag.name)
		}
	}
	ref, err := f.place(args[0], f.registry)
	if err == nil && ref.Scheme == imageref.Plain {
		err = checkImage(ref.Name)
	}
	return func(ctx context.Context) error { return f.inspect(ctx, e, ref, args[0]) }, err
}

// place parses a word that names an image. With registry, a word without a scheme is a name in a
// registry.
func (f *indexFlags) place(word string, registry bool) (imageref.Ref, error) {
	options := imageref.Options{Exists: image.Exists, Explicit: true}
	ref, err := imageref.Parse(word, options)
	if err == nil && registry && ref.Scheme == imageref.Plain {
		return imageref.Parse(string(imageref.Docker)+word, options)
	}
	return ref, err
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
			return printTemplate(e.text(e.stdout), f.template, false, []indexReport{r}, nil)
		case f.format == "json":
			return printJSON(e.json(e.stdout), r)
		}
		return r.print(e.text(e.stdout))
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
