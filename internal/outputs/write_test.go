package outputs

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"slices"

	"sync"

	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	at    = time.Unix(1_000_000_000, 0).UTC()
)

// bench is a state and what a Writer needs.
type bench struct {
	*testing.T
	state  *state.State
	images *image.Resolver

	mu     sync.Mutex
	events []event.Event
}

func newBench(t *testing.T) *bench {
	t.Helper()
	st, err := state.Open(t.Context(), state.Options{Root: t.TempDir(), Driver: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, state: st, images: image.New(image.Options{Store: st.Store, Cache: st.Cache,
		Snapshots: st.Snapshots})}
	t.Cleanup(func() {
		if err := errors.Join(b.images.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) sink(e event.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

// specs parses values of -o.
func (b *bench) specs(list ...string) []export.Spec {
	b.Helper()
	var specs []export.Spec
	for _, s := range list {
		spec, err := export.Parse(s)
		if err != nil {
			b.Fatal(err)
		}
		specs = append(specs, spec)
	}
	return specs
}

// exporter keeps the image that it exports. Before, it calls a function, if there is one.
type exporter struct {
	before func() error
	got    *export.Image
}

func (e *exporter) Export(_ context.Context, img *export.Image, _ event.Sink) error {
	e.got = img
	if e.before != nil {
		return e.before()
	}
	return nil
}

// writer returns a Writer with an exporter for each output.
func (b *bench) writer(o Options) (*Writer, []*exporter) {
	w := &Writer{State: b.state, Images: b.images, Options: o, Recipe: o.StoreRecipe(),
		Sink: b.sink}
	var list []*exporter
	for range o.Specs {
		e := &exporter{}
		list, w.Exporters = append(list, e), append(w.Exporters, e)
	}
	return w, list
}

// layers makes a snapshot of each tree, in the notation of fstree, on the one before, and seals
// their layers for a recipe.
func (b *bench) layers(r Recipe, epoch *int64, trees ...string) []*layers.Layer {
	b.Helper()
	tmp := state.NewTempDir(b.state.Root)
	defer tmp.Close()
	s := layers.NewSealer(b.Context(), layers.SealerOptions{State: b.state, TempDir: tmp,
		Lazy: &layers.Lazy{}, Format: r.Format(epoch), Sealed: func(ocispec.Descriptor) {},
		Warn: func(_ *layers.Layer, path, problem string) { b.Errorf("%s: %s", path, problem) }})
	defer s.Wait()
	var list []*layers.Layer
	var parent snapshot.ID
	for i, tree := range trees {
		active, err := b.state.Snapshots.Prepare(b.Context(), parent)
		if err != nil {
			b.Fatal(err)
		}
		if err := fstree.Make(active.Upper(), tree); err != nil {
			b.Fatal(err)
		}
		parent = snapshot.ID(fmt.Sprint("s", i))
		if err := active.Commit(b.Context(), parent); err != nil {
			b.Fatal(err)
		}
		l := &layers.Layer{Snapshot: parent, Text: fmt.Sprint("RUN ", i)}
		s.Seal(l)
		if err := l.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
		list = append(list, l)
	}
	return list
}

// built returns the result of a build for a platform.
func built(p ocispec.Platform, list ...*layers.Layer) Built {
	b := Built{Platform: p, Layers: list,
		Files: func(context.Context, io.Writer) error { return nil }}
	b.Config.Platform, b.Config.Created = p, &at
	b.Config.Config.Cmd = []string{"sh"}
	return b
}

// write writes images, and fails the test if it cannot.
func (b *bench) write(w *Writer, list ...Built) Result {
	b.Helper()
	res, err := w.Write(b.Context(), list)
	if err != nil {
		b.Fatal(err)
	}
	return res
}

// read decodes a document of the store.
func read[T any](b *bench, d ocispec.Descriptor) (v T) {
	b.Helper()
	data, err := b.state.Store.Read(b.Context(), d)
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// names lists the names of the store with the digests.
func (b *bench) names() map[string]digest.Digest {
	b.Helper()
	entries, err := b.state.Store.Names(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	names := map[string]digest.Digest{}
	for _, e := range entries {
		names[e.Name] = e.Descriptor.Digest
	}
	return names
}

// TestWriteRecipes writes the images of several outputs from the same layers.
func TestWriteRecipes(t *testing.T) {
	b := newBench(t)
	epoch := at.Unix()
	o := Options{Names: []string{"app"}, Epoch: &epoch,
		Annotations: []export.Annotation{{Target: "manifest", Key: "all", Value: "1"},
			{Target: "manifest", Key: "both", Value: "build"}},
		Specs: b.specs("type=oci,dest=a", "type=oci,dest=b,compression=zstd",
			"type=docker,dest=c,compression=zstd",
			"type=oci,dest=d,compression=zstd,compression-level=1",
			"type=oci,dest=e,annotation.both=output", "type=oci,dest=f,compression=uncompressed",
			"type=oci,dest=g,compression=gzip", "type=tar,dest=h",
			"type=oci,dest=i,prune-dead=true")}
	list := b.layers(o.StoreRecipe(), &epoch, "file dead 0644 1\nfile kept 0644 1\n",
		"file dead 0644 2\n")
	w, exporters := b.writer(o)
	img := built(amd64, list...)
	img.Record.Dockerfile = "FROM scratch"
	res := b.write(w, img)
	roots := map[digest.Digest][]string{}
	var configs []digest.Digest
	for i, e := range exporters {
		spec := o.Specs[i]
		roots[e.got.Root.Digest] = append(roots[e.got.Root.Digest], spec.Dest)
		if e.got.Content != b.state.Store ||
			!slices.Equal(e.got.Names, []string{"docker.io/library/app:latest"}) ||
			len(e.got.Trees) != 1 || e.got.Trees[0].Platform.Architecture != "amd64" {
			t.Errorf("%s: the exported image is %+v", spec, e.got)
		}
		m := read[ocispec.Manifest](b, e.got.Root)
		want := map[string]string{"all": "1", "both": "build"}
		if spec.Dest == "e" {
			want["both"] = "output"
		}
		if diff := cmp.Diff(want, m.Annotations); diff != "" {
			t.Errorf("%s: annotations: %s", spec, diff)
		}
		mediaType := ocispec.MediaTypeImageLayerGzip
		switch spec.Layers.Compression {
		case "zstd":
			mediaType = ocispec.MediaTypeImageLayerZstd
		case "uncompressed":
			mediaType = ocispec.MediaTypeImageLayer
		}
		for _, l := range m.Layers {
			if l.MediaType != mediaType {
				t.Errorf("%s: a layer has the type %s, want %s", spec, l.MediaType, mediaType)
			}
		}
		config := read[dockerspec.DockerOCIImage](b, m.Config)
		if spec.Dest == "i" {
			if m.Layers[0].Digest == list[0].Descriptor.Digest || len(m.Layers) != 2 {
				t.Errorf("the pruned image has the layers %v", m.Layers)
			}
			continue
		}
		configs = append(configs, m.Config.Digest)
		if kept, err := b.state.ReadKept("builds", m.Config.Digest); err != nil ||
			!strings.Contains(string(kept), "FROM scratch") {
			t.Errorf("%s: the record of the build is %q, %v", spec, kept, err)
		}
		diffIDs := []digest.Digest{list[0].DiffID, list[1].DiffID}
		if config.RootFS.Type != "layers" || !slices.Equal(config.RootFS.DiffIDs, diffIDs) {
			t.Errorf("%s: the root file system is %v, want %v", spec, config.RootFS, diffIDs)
		}
	}
	for _, same := range [][]string{{"a", "g", "h"}, {"b", "c"}, {"d"}, {"e"}, {"f"}, {"i"}} {
		if i := slices.IndexFunc(exporters, func(e *exporter) bool {
			return slices.Equal(roots[e.got.Root.Digest], same)
		}); i < 0 {
			t.Errorf("no image is that of the outputs %q alone: %v", same, roots)
		}
	}
	if len(slices.Compact(configs)) != 1 {
		t.Errorf("the images have different configurations: %v", configs)
	}
	if exporters[0].got.Root.Digest != res.Root.Digest {
		t.Error("the image of an output without options is not that of the store")
	}
	var done []string
	for _, e := range b.events {
		if d, ok := e.(event.Done); ok {
			done = append(done, string(d.ID))
		}
	}
	want := []string{"image", "image 1", "image 2", "image 3", "image 4", "image 5"}
	if !slices.Equal(done, want) {
		t.Errorf("images that were made: %q, want %q", done, want)
	}
}

// TestWriteFiles exports files and an image in another format than that of an output of files: only
// one image is made.
func TestWriteFiles(t *testing.T) {
	b := newBench(t)
	w, exporters := b.writer(Options{Specs: b.specs("type=oci,dest=a,compression=zstd",
		"type=local,dest=b")})
	res := b.write(w, built(amd64, b.layers(w.Recipe, nil, "file a 0644 1\n")...))
	for _, e := range exporters {
		if e.got.Root.Digest != res.Root.Digest {
			t.Errorf("exported %v, want %v", e.got.Root, res.Root)
		}
	}
	if len(b.events) != 2 {
		t.Errorf("events %v, want those of one image", b.events)
	}
}

// TestWriteNames checks the names in the store, in the result and in the metadata.
func TestWriteNames(t *testing.T) {
	const a, x = "docker.io/library/a:1", "docker.io/library/x:latest"
	for _, tt := range []struct {
		name    string
		names   []string
		outputs []string
		store   []string // names in the store; "" is an image without a name
		result  []string
		meta    string // the name in the metadata
	}{
		{"no name", nil, nil, []string{""}, nil, ""},
		{"-t", []string{"a:1", "x"}, nil, []string{a, x}, []string{a, x}, a + "," + x},
		{"an output of files", []string{"a:1"}, []string{"type=local,dest=d"}, []string{a},
			[]string{a}, a},
		{"only files", nil, []string{"type=local,dest=d", "type=tar,dest=t"}, nil, nil, ""},
		{"an archive with a name", nil, []string{"type=oci,dest=f,name=x"}, []string{""}, nil, x},
		// the exporter gives the name to the image
		{"a name of an output", nil, []string{"type=image,name=x"}, nil, []string{x}, x},
		{"a push by digest", nil, []string{"type=image,name=x,push=true,push-by-digest=true"},
			[]string{""}, nil, x},
		{"another image with a name alone", nil,
			[]string{"type=image", "type=image,name=x,compression=zstd"}, []string{""}, nil, x},
		{"another image with a name", []string{"a:1"},
			[]string{"type=image", "type=image,name=x,compression=zstd"}, []string{a},
			[]string{a}, a + "," + x},
		{"a name of both", []string{"x"}, []string{`type=image,"name=a:1,x"`}, []string{x},
			[]string{x, a}, x + "," + a},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			w, exporters := b.writer(Options{Names: tt.names, Specs: b.specs(tt.outputs...)})
			res := b.write(w, built(amd64, b.layers(w.Recipe, nil, "file a 0644 1\n")...))
			named := b.names()
			for name, d := range named {
				if d != res.Root.Digest || !slices.Contains(tt.store, name) {
					t.Errorf("the store has the image %s under %q, want %s under %q", d, name,
						res.Root.Digest, tt.store)
				}
			}
			if len(named) != len(tt.store) || !slices.Equal(res.Names, tt.result) {
				t.Errorf("names in the store %v, in the result %q, want %q and %q", named,
					res.Names, tt.store, tt.result)
			}
			if res.Metadata.Name != tt.meta || res.Metadata.Digest != res.Root.Digest {
				t.Errorf("metadata %+v, want the name %q", res.Metadata, tt.meta)
			}
			for _, e := range exporters {
				var given []string // of -t alone: an exporter adds those of its output
				for _, n := range tt.names {
					full, err := store.Name(n)
					if err != nil {
						t.Fatal(err)
					}
					given = append(given, full)
				}
				if !slices.Equal(e.got.Names, given) {
					t.Errorf("an exporter gets the names %q, want %q", e.got.Names, given)
				}
			}
			if tt.store == nil && tt.result == nil {
				if blobs, err := b.state.Store.Blobs(); err != nil || len(blobs) != 1 ||
					res.Root.Digest != "" {
					t.Errorf("an image was stored: %v, %v, %+v", blobs, err, res)
				}
			}
		})
	}
}

// TestWriteIndex writes the images of two platforms, and an index of one platform.
func TestWriteIndex(t *testing.T) {
	target := func(kind export.Target, platform string) export.Annotation {
		return export.Annotation{Target: kind, Platform: platform, Key: string(kind) + platform,
			Value: "v"}
	}
	all := []export.Annotation{target("manifest", ""), target("manifest", "linux/arm64"),
		target("manifest-descriptor", "linux/amd64"), target("manifest-descriptor", "linux/s390x"),
		target("index", ""), target("index-descriptor", "")}
	for _, tt := range []struct {
		name      string
		o         Options
		platforms []ocispec.Platform
		output    string
		root      string
		manifest  string
	}{
		{"two platforms", Options{Annotations: all}, []ocispec.Platform{amd64, arm64},
			"type=oci,dest=d", ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest},
		{"an index of one platform", Options{Annotations: all, Index: true},
			[]ocispec.Platform{amd64}, "type=oci,dest=d", ocispec.MediaTypeImageIndex,
			ocispec.MediaTypeImageManifest},
		{"Docker's format", Options{}, []ocispec.Platform{amd64, arm64},
			"type=oci,dest=d,oci-mediatypes=false", ocidoc.DockerManifestList,
			ocidoc.DockerManifest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			tt.o.Platforms, tt.o.Specs = tt.platforms, b.specs(tt.output)
			w, _ := b.writer(tt.o)
			list := b.layers(w.Recipe, nil, "file a 0644 1\n")
			var images []Built
			for _, p := range tt.platforms {
				images = append(images, built(p, list...))
			}
			res := b.write(w, images...)
			docker := tt.root == ocidoc.DockerManifestList
			annotations := func(kind ...string) map[string]string {
				if docker {
					return nil
				}
				m := map[string]string{}
				for _, k := range kind {
					m[k] = "v"
				}
				return m
			}
			index := read[ocispec.Index](b, res.Root)
			if index.MediaType != tt.root || res.Root.MediaType != tt.root ||
				len(index.Manifests) != len(images) {
				t.Fatalf("the index %+v has the descriptor %+v, want the type %s", index, res.Root,
					tt.root)
			}
			for got, want := range map[*map[string]string]map[string]string{
				&index.Annotations:    annotations("index"),
				&res.Root.Annotations: annotations("index-descriptor")} {
				if diff := cmp.Diff(want, *got); diff != "" {
					t.Errorf("annotations: %s", diff)
				}
			}
			for i, p := range tt.platforms {
				d := index.Manifests[i]
				m := read[ocispec.Manifest](b, d)
				config := read[dockerspec.DockerOCIImage](b, m.Config)
				if d.MediaType != tt.manifest || m.MediaType != tt.manifest ||
					d.Platform == nil || d.Platform.Architecture != p.Architecture ||
					config.Architecture != p.Architecture {
					t.Errorf("%s: %+v, manifest %+v, configuration %+v", p.Architecture, d, m,
						config)
				}
				if i == 0 && res.Config.Digest != m.Config.Digest {
					t.Errorf("the result has the configuration %v, want %v", res.Config, m.Config)
				}
				for _, x := range append(m.Layers, m.Config) {
					if docker != strings.HasPrefix(x.MediaType, "application/vnd.docker.") {
						t.Errorf("the manifest refers to the type %s", x.MediaType)
					}
				}
				own, descriptor := annotations("manifest", "manifestlinux/arm64"), annotations()
				if p.Architecture == "amd64" {
					own, descriptor = annotations("manifest"),
						annotations("manifest-descriptorlinux/amd64")
				}
				if len(descriptor) == 0 {
					descriptor = nil
				}
				for got, want := range map[*map[string]string]map[string]string{
					&m.Annotations: own, &d.Annotations: descriptor} {
					if diff := cmp.Diff(want, *got); diff != "" {
						t.Errorf("%s: annotations: %s", p.Architecture, diff)
					}
				}
			}
			if res.Metadata.Config != "" {
				t.Errorf("the metadata of an index have the configuration %s", res.Metadata.Config)
			}
		})
	}
}

// TestWriteTime writes images of a configuration with and without a creation time. All images of a
// build have the same configuration.
func TestWriteTime(t *testing.T) {
	earlier := at.Add(-time.Hour)
	epoch := earlier.Unix()
	last := at.Add(time.Hour).In(time.FixedZone("", 3600))
	dated := []ocispec.History{{Created: &earlier}, {Created: &last}, {CreatedBy: "without a time"}}
	for _, tt := range []struct {
		name    string
		created *time.Time
		history []ocispec.History
		epoch   *int64
		want    time.Time // zero: the time of the build
	}{
		{"a time", &at, dated, nil, at},
		{"an epoch", &at, dated, &epoch, earlier},
		{"an epoch alone", nil, dated, &epoch, earlier},
		{"the base's time", nil, dated, nil, last},
		{"no time", nil, []ocispec.History{{CreatedBy: "x"}}, nil, time.Time{}},
		{"no history", nil, nil, nil, time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			w, exporters := b.writer(Options{Epoch: tt.epoch, Specs: b.specs("type=oci,dest=a",
				"type=oci,dest=b,compression=zstd")})
			image := built(amd64, b.layers(w.Recipe, w.Options.Epoch, "file a 0644 1\n")...)
			image.Config.Created, image.Config.History = tt.created, tt.history
			before := time.Now()
			b.write(w, image)
			first := read[ocispec.Manifest](b, exporters[0].got.Root).Config
			got := read[dockerspec.DockerOCIImage](b, first).Created
			if tt.want.IsZero() && (got.Before(before) || got.After(time.Now())) ||
				!tt.want.IsZero() && !got.Equal(tt.want) || got.Location() != time.UTC {
				t.Errorf("created %v, want %v", got, tt.want)
			}
			m := read[ocispec.Manifest](b, exporters[1].got.Root)
			if m.Config.Digest != first.Digest {
				t.Error("the second output has another configuration")
			}
			if image.Config.Created != tt.created {
				t.Error("Write has changed the argument")
			}
		})
	}
}

// TestWriteChains checks which snapshots are recorded for a build on top of the image.
func TestWriteChains(t *testing.T) {
	b := newBench(t)
	list := b.layers(Recipe{}, nil, "file a 0644 1\n", "file b 0644 1\n", "file c 0644 1\n")
	noOp := func(snapshot snapshot.ID) *layers.Layer {
		l := &layers.Layer{Snapshot: snapshot, NoOp: true}
		l.Begin()(list[0].Descriptor, digest.FromString("nothing"), nil)
		return l
	}
	lazy := &layers.Layer{Snapshot: "lazy"}
	lazy.Begin()(list[0].Descriptor, digest.FromString("lazy"), nil)
	all := []*layers.Layer{list[0], noOp("s0"), list[1], lazy, list[2], noOp("s2")}
	var diffIDs []digest.Digest
	for _, l := range all {
		if err := l.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		diffIDs = append(diffIDs, l.DiffID)
	}
	chains := func(want ...string) {
		t.Helper()
		for i := range all {
			got, _ := b.state.Cache.Chain(identity.ChainID(slices.Clone(diffIDs[:i+1])))
			if got != want[i] {
				t.Errorf("the chain of %d layers is the snapshot %q, want %q", i+1, got, want[i])
			}
		}
	}
	epoch := at.Unix()
	w, _ := b.writer(Options{Epoch: &epoch})
	b.write(w, built(amd64, all...))
	chains("", "", "", "", "", "")
	w, _ = b.writer(Options{})
	b.write(w, built(amd64, all...))
	chains("s0", "", "s1", "", "s2", "s2")
	b.write(w, built(amd64, list[0]))
	chains("s0", "", "s1", "", "s2", "s2")
}

// base makes an image of one layer in a layout, and finds it there.
func (b *bench) base(layout string) *image.Image {
	b.Helper()
	made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{},
		[]imagetest.Entry{imagetest.TarFile(tar.Header{Name: "base", Mode: 0o644}, "1")})
	if err == nil {
		err = made.WriteLayout(layout, "base")
	}
	if err != nil {
		b.Fatal(err)
	}
	img, err := b.images.Resolve(b.Context(), "oci-layout://"+layout,
		image.ResolveOptions{Any: true})
	if err != nil {
		b.Fatal(err)
	}
	return img
}

// TestWriteBase writes images on a base image, whose layers are fetched when they are written.
func TestWriteBase(t *testing.T) {
	b := newBench(t)
	layout := filepath.Join(t.TempDir(), "layout")
	base := b.base(layout)
	d, diffID := base.Manifest.Layers[0], base.Config.RootFS.DiffIDs[0]
	if ok, err := b.state.Store.Exists(t.Context(), d); ok || err != nil {
		t.Fatalf("the base's layer is in the store before the test: %v, %v", ok, err)
	}
	own := b.layers(Recipe{}, nil, "file own 0644 1\n")[0]
	// a layer from --cache-from is in an image of its own
	cached := &layers.Layer{Base: base, Descriptor: d, DiffID: diffID, Text: "RUN cached"}
	of := &layers.Layer{Base: base, Descriptor: ocidoc.DockerDescriptor(d), DiffID: diffID}
	w, exporters := b.writer(Options{Specs: b.specs(
		"type=oci,dest=a",
		"type=oci,dest=b,compression=zstd",
		"type=oci,dest=c,compression=zstd,force-compression=true",
		"type=oci,dest=d,compression=gzip,force-compression=true",
		"type=oci,dest=e,compression=uncompressed,force-compression=true")})
	b.write(w, built(amd64, of, own, cached))
	const gzip, zstd = ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd
	for i, want := range [][]string{{gzip, gzip, gzip}, {gzip, zstd, zstd}, {zstd, zstd, zstd},
		{gzip, gzip, gzip}, slices.Repeat([]string{ocispec.MediaTypeImageLayer}, 3)} {
		m := read[ocispec.Manifest](b, exporters[i].got.Root)
		var types []string
		for _, l := range m.Layers {
			types = append(types, l.MediaType)
		}
		if !slices.Equal(types, want) {
			t.Errorf("%s: layers %q, want %q", w.Options.Specs[i], types, want)
		}
		if err := b.state.Store.Verify(t.Context(), exporters[i].got.Root); err != nil {
			t.Error(err)
		}
		if (want[0] == gzip) != (m.Layers[0].Digest == d.Digest) {
			t.Errorf("%s: the base's layer is %v, in the base %v", w.Options.Specs[i],
				m.Layers[0], d)
		}
		ids := read[dockerspec.DockerOCIImage](b, m.Config).RootFS.DiffIDs
		if !slices.Equal(ids, []digest.Digest{diffID, own.DiffID, diffID}) {
			t.Errorf("%s: diffIDs %v", w.Options.Specs[i], ids)
		}
	}
	if ok, err := b.state.Store.Exists(t.Context(), d); !ok || err != nil {
		t.Errorf("the base's layer is in the store: %v, %v", ok, err)
	}
}

// TestWriteBaseMissing writes an image on a base image whose layer cannot be fetched any more.
func TestWriteBaseMissing(t *testing.T) {
	b := newBench(t)
	layout := filepath.Join(t.TempDir(), "layout")
	base := b.base(layout)
	if err := os.RemoveAll(filepath.Join(layout, "blobs")); err != nil {
		t.Fatal(err)
	}
	w, exporters := b.writer(Options{Specs: b.specs("type=oci,dest=a")})
	_, err := w.Write(t.Context(), []Built{built(amd64, &layers.Layer{Base: base,
		Descriptor: base.Manifest.Layers[0], DiffID: base.Config.RootFS.DiffIDs[0]})})
	if !errors.Is(err, fs.ErrNotExist) || exporters[0].got != nil || len(b.names()) > 0 {
		t.Errorf("error %v, exported %v, names %v", err, exporters[0].got, b.names())
	}
}

// TestWriteInlineRecords writes images with cache records, of which one has a layer that is not in
// the image.
func TestWriteInlineRecords(t *testing.T) {
	b := newBench(t)
	w, exporters := b.writer(Options{InlineCache: true, Specs: b.specs("type=oci,dest=a",
		"type=oci,dest=b,compression=zstd", "type=oci,dest=c,prune-dead=true",
		"type=oci,dest=d,oci-mediatypes=false")})
	list := b.layers(w.Recipe, nil, "file a 0644 1\n", "file b 0644 1\n", "file c 0644 1\n")
	img := built(amd64, list[:2]...)
	stored := w.Recipe.Format(nil).String()
	img.Records = func(ctx context.Context) (doc remotecache.Document, err error) {
		for i, l := range list {
			if err := l.Wait(ctx); err != nil {
				return doc, err
			}
			r := remotecache.Record{Key: cache.Key(fmt.Sprint("key", i)), Created: at,
				Layer: &remotecache.Layer{Descriptor: l.Descriptor, DiffID: l.DiffID,
					Sealed: stored}}
			other := r
			other.Key += " in another format"
			other.Layer = &remotecache.Layer{Descriptor: l.Descriptor, DiffID: l.DiffID,
				Sealed: "another format"}
			doc.Records = append(doc.Records, r, other)
		}
		doc.Records = append(doc.Records, remotecache.Record{Key: "config", Created: at})
		return doc, nil
	}
	b.write(w, img)
	for i, e := range exporters {
		spec := w.Options.Specs[i]
		m := read[ocispec.Manifest](b, e.got.Root)
		config := read[map[string]json.RawMessage](b, m.Config)
		data, ok := config[remotecache.Field]
		if ok == spec.Layers.PruneDead || len(config["rootfs"]) == 0 || len(config["config"]) == 0 {
			t.Errorf("%s: the configuration has %v", spec, slices.Sorted(maps.Keys(config)))
		}
		if !ok {
			continue
		}
		var doc remotecache.Document
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		var want []remotecache.Record
		for k, l := range list {
			d := l.Descriptor
			if k < len(m.Layers) {
				d = ocidoc.OCIDescriptor(m.Layers[k])
			} else if format := RecipeOf(spec).Format(nil).String(); format != stored {
				have, ok := b.state.SealedLayer(t.Context(), d.Digest.String(), format)
				if d = have.Descriptor; !ok {
					t.Errorf("%s: the layer outside of the image is not recompressed", spec)
				}
			}
			want = append(want, remotecache.Record{Key: cache.Key(fmt.Sprint("key", k)),
				Created: at, Layer: &remotecache.Layer{Descriptor: d, DiffID: l.DiffID,
					Sealed: RecipeOf(spec).Format(nil).String()}},
				remotecache.Record{Key: cache.Key(fmt.Sprintf("key%d in another format", k)),
					Created: at, Layer: &remotecache.Layer{Descriptor: l.Descriptor,
						DiffID: l.DiffID, Sealed: "another format"}})
		}
		want = append(want, remotecache.Record{Key: "config", Created: at})
		if diff := cmp.Diff(want, doc.Records); diff != "" {
			t.Errorf("%s: records: %s", spec, diff)
		}
	}
	// The layers of the image are recompressed once, from the snapshots.
	var sources []string
	for e, err := range b.state.Cache.All(cache.Seals) {
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, e.Snapshot)
	}
	slices.Sort(sources)
	if want := []string{"s0", "s0", "s1", "s1", "s2",
		list[2].Descriptor.Digest.String()}; !slices.Equal(sources, want) {
		t.Errorf("sources of layers %q, want %q", sources, want)
	}
}

// TestWriteFails checks the errors of images that cannot be written, and what is done nevertheless.
func TestWriteFails(t *testing.T) {
	broken := errors.New("broken")
	const all = "type=oci,dest=a"
	type failure struct {
		*bench
		w    *Writer
		img  *Built
		list []*exporter
	}
	damage := func(f *failure) {
		path := f.state.Store.Path(f.img.Layers[0].Descriptor.Digest)
		data, err := os.ReadFile(path)
		if err == nil {
			data[len(data)-1] ^= 1
			err = os.WriteFile(path, data, 0o644)
		}
		if err != nil {
			f.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name     string
		outputs  []string
		set      func(f *failure)
		want     error
		text     string // the error; "": any text
		making   bool   // the error is that of making an image, and not of exporting it
		named    bool   // the image of the store has its name nevertheless
		exported int    // outputs whose exporters ran
	}{
		{"a layer", []string{all}, func(f *failure) {
			l := &layers.Layer{}
			l.Begin()(ocispec.Descriptor{}, "", broken)
			f.img.Layers = append(f.img.Layers, l)
		}, broken, "broken", true, false, 0},
		{"the records", []string{all}, func(f *failure) {
			f.img.Records = func(context.Context) (remotecache.Document, error) {
				return remotecache.Document{}, broken
			}
		}, broken, "broken", true, false, 0},
		{"the second exporter", []string{all, "type=oci,dest=b", "type=oci,dest=c"},
			func(f *failure) { f.list[1].before = func() error { return broken } }, broken,
			"broken", false, true, 2},
		{"a name", []string{all}, func(f *failure) {
			f.w.Options.Names = append(f.w.Options.Names, "Not a name")
		}, nil, "", true, true, 0},
		{"a layer that was lost", []string{all, "type=oci,dest=b,compression=zstd"},
			func(f *failure) {
				if err := os.Remove(f.state.Store.Path(
					f.img.Layers[0].Descriptor.Digest)); err != nil {
					f.Fatal(err)
				}
			}, store.ErrNotFound, "compress layer sha256:", true, true, 1},
		{"a layer of other content", []string{"type=image", "type=oci,dest=b,compression=zstd"},
			func(f *failure) {
				l := &layers.Layer{Snapshot: "other"}
				l.Begin()(f.img.Layers[0].Descriptor, digest.FromString("other"), nil)
				f.img.Layers[0] = l
			}, nil, "it is damaged: its content is not " + digest.FromString("other").String(),
			true, true, 1},
		{"a damaged blob, to standard output", []string{"type=oci,dest=-"}, damage,
			store.ErrDamaged, "", false, true, 0},
		{"a damaged blob, to a file", []string{all}, damage, nil, "none", false, true, 1},
		{"a damaged layer of a pruned image", []string{all, "type=oci,dest=b,prune-dead=true"},
			damage, store.ErrDamaged, "", true, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			w, list := b.writer(Options{Names: []string{"app"}, Specs: b.specs(tt.outputs...)})
			img := built(amd64, b.layers(w.Recipe, nil, "file a 0644 1\n", "file a 0644 2\n")...)
			for _, l := range img.Layers {
				if err := l.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			tt.set(&failure{b, w, &img, list})
			_, err := w.Write(t.Context(), []Built{img})
			if tt.text == "none" {
				if err != nil {
					t.Errorf("error %v", err)
				}
			} else if err == nil || tt.want != nil && !errors.Is(err, tt.want) ||
				!strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want %q and %v", err, tt.text, tt.want)
			}
			if names := b.names(); (names["docker.io/library/app:latest"] != "") != tt.named {
				t.Errorf("the store has the names %v", names)
			}
			exported := 0
			for _, e := range list {
				if e.got != nil {
					exported++
				}
			}
			if exported != tt.exported {
				t.Errorf("%d outputs were exported, want %d", exported, tt.exported)
			}
			begun, making := map[event.ID]bool{}, false
			for _, e := range b.events {
				switch e := e.(type) {
				case event.Start:
					begun[e.ID] = true
				case event.Done:
					delete(begun, e.ID)
					making = making || e.Err != nil && e.Err == err
				}
			}
			if len(begun) > 0 || making != tt.making {
				t.Errorf("work that did not end: %v, events with the error: %v", begun, making)
			}
		})
	}
}

// TestWriteFullDestination checks that the error of an exporter whose disk is full does not get the
// remedy for a full state directory.
func TestWriteFullDestination(t *testing.T) {
	b := newBench(t)
	w, list := b.writer(Options{Specs: b.specs("type=oci,dest=a")})
	img := built(amd64, b.layers(w.Recipe, nil, "file a 0644 1\n")...)
	inState := &fs.PathError{Op: "write", Path: b.state.Root + "/f", Err: syscall.ENOSPC}
	for _, err := range []error{syscall.ENOSPC, inState} {
		list[0].before = func() error { return err }
		_, got := w.Write(t.Context(), []Built{img})
		if !errors.Is(got, syscall.ENOSPC) {
			t.Fatalf("error %v, want %v", got, err)
		}
		remedy := state.Full(b.state.Root, got).Error() != got.Error()
		if remedy != (err == inState) {
			t.Errorf("%v gets a remedy: %v", err, remedy)
		}
	}
}

// TestWriteCanceled ends the context while a layer is being sealed.
func TestWriteCanceled(t *testing.T) {
	b := newBench(t)
	w, list := b.writer(Options{Names: []string{"app"}, Specs: b.specs("type=oci,dest=a")})
	l := &layers.Layer{}
	l.Begin()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	waits := make(chan struct{})
	w.Sink = func(e event.Event) {
		if _, ok := e.(event.Start); ok {
			close(waits)
		}
	}
	done := make(chan error)
	go func() {
		_, err := w.Write(ctx, []Built{built(amd64, l)})
		done <- err
	}()
	<-waits
	cancel(stop)
	if err := <-done; err != stop {
		t.Errorf("error %v, want the cause", err)
	}
	if list[0].got != nil || len(b.names()) > 0 {
		t.Errorf("exported %v, names %v", list[0].got, b.names())
	}
}
