package build_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// real makes the next builds use real images and outputs. The executor stays the fake one.
func (b *bench) real() {
	b.resolver = image.New(image.Options{Store: b.state.Store, Cache: b.state.Cache,
		Snapshots: b.state.Snapshots})
}

// specs parses values of -o, in which DIR is a directory.
func specs(t *testing.T, dir string, list ...string) []export.Spec {
	t.Helper()
	var out []export.Spec
	for _, s := range list {
		spec, err := export.Parse(strings.ReplaceAll(s, "DIR", dir))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, spec)
	}
	return out
}

// TestOutputs builds once for several outputs, and checks each.
func TestOutputs(t *testing.T) {
	b := newBench(t, "copy")
	b.real()
	dir := t.TempDir()
	at := int64(1_000_000_000)
	o := imagebuild.Options{
		Outputs: specs(t, dir, "type=oci,tar=false,dest=DIR/gzip",
			"type=oci,tar=false,dest=DIR/zstd,compression=zstd,annotation.k=v",
			"type=oci,tar=false,dest=DIR/docker,oci-mediatypes=false",
			"type=oci,tar=false,dest=DIR/pruned,prune-dead=true",
			"type=oci,tar=false,dest=DIR/plain,compression=uncompressed,force-compression=true",
			"type=tar,dest=DIR/flat.tar", "type=local,dest=DIR/local"),
		Image: imagebuild.ImageOptions{Names: []string{"one", "two:1"}, Epoch: &at},
	}
	res, ran := b.must("FROM scratch\nRUN write dead text\nRUN write dead other\n"+
		"RUN write alive 1\n", o)
	b.want("build", ran, "write dead text", "write dead other", "write alive 1")
	if want := []string{"docker.io/library/one:latest",
		"docker.io/library/two:1"}; !slices.Equal(res.Names, want) {
		t.Errorf("names %q, want %q", res.Names, want)
	}
	types := map[string]string{
		"gzip": ocispec.MediaTypeImageLayerGzip, "zstd": ocispec.MediaTypeImageLayerZstd,
		"plain":  ocispec.MediaTypeImageLayer,
		"docker": "application/vnd.docker.image.rootfs.diff.tar.gzip",
		"pruned": ocispec.MediaTypeImageLayerGzip,
	}
	for name, want := range types {
		m := layoutManifest(t, filepath.Join(dir, name))
		for _, l := range m.Layers {
			if l.MediaType != want {
				t.Errorf("%s: a layer has the type %q, want %q", name, l.MediaType, want)
			}
		}
		if got := m.Annotations["k"] == "v"; got != (name == "zstd") {
			t.Errorf("%s: annotations %v", name, m.Annotations)
		}
	}
	if a, b := layoutManifest(t, filepath.Join(dir, "gzip")),
		layoutManifest(t, filepath.Join(dir, "pruned")); a.Layers[0].Digest == b.Layers[0].Digest ||
		a.Layers[2].Digest != b.Layers[2].Digest {
		t.Errorf("prune-dead changes the wrong layers: %v, %v", a.Layers, b.Layers)
	}
	for name, want := range map[string]string{"dead": "other", "alive": "1"} {
		if data, err := os.ReadFile(filepath.Join(dir, "local", name)); err != nil ||
			string(data) != want {
			t.Errorf("local: %s has %q, %v", name, data, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "flat.tar"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if names = append(names, h.Name); h.ModTime.Unix() > at {
			t.Errorf("tar: %s has the time %v, after the epoch", h.Name, h.ModTime)
		}
	}
	if !slices.Contains(names, "alive") || !slices.Contains(names, "dead") {
		t.Errorf("tar: entries %q", names)
	}
	_, ran = b.must("FROM scratch\nRUN write dead text\nRUN write dead other\nRUN write alive 1\n",
		o)
	b.want("second build", ran)
}

// layoutManifest returns the manifest of the only image of a layout.
func layoutManifest(t *testing.T, dir string) ocispec.Manifest {
	t.Helper()
	read := func(name string, v any) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var index ocispec.Index
	read("index.json", &index)
	var m ocispec.Manifest
	read("blobs/sha256/"+index.Manifests[0].Digest.Encoded(), &m)
	return m
}

// TestBaseOfAnImage builds on an earlier image, which is given by its name, as a layout and as a
// named context.
func TestBaseOfAnImage(t *testing.T) {
	b := newBench(t, "copy")
	b.real()
	dir := t.TempDir()
	b.must("FROM scratch\nRUN write base 1\n",
		imagebuild.Options{Image: imagebuild.ImageOptions{Names: []string{"base"}},
			Outputs: specs(t, dir, "type=image", "type=oci,tar=false,dest=DIR/layout")})
	layout := "oci-layout://" + filepath.Join(dir, "layout")
	b.file("named/f", "text")
	for _, tt := range []struct {
		name, dockerfile string
		contexts         map[string]string
		want             []string
		layers           int
	}{
		{"a name", "FROM base\nRUN write a 1\n", nil, []string{"write a 1"}, 2},
		{"the same name again", "FROM base\nRUN write a 1\n", nil, nil, 2},
		{"a layout", "FROM x\nRUN write a 2\n", map[string]string{"x": layout},
			[]string{"write a 2"}, 2},
		{"an image as a context", "FROM x\nRUN write a 3\n",
			map[string]string{"x": "docker-image://base"}, []string{"write a 3"}, 2},
		{"a copy from an image", "FROM scratch\nCOPY --from=base /base /b\n", nil,
			[]string{"copy /b"}, 1},
		{"a copy from a context", "FROM scratch\nCOPY --from=x f /f\n",
			map[string]string{"x": filepath.Join(b.dir, "named")}, []string{"copy /f"}, 1},
		{"a directory as the base", "FROM x\nRUN write a 4\n",
			map[string]string{"x": filepath.Join(b.dir, "named")},
			[]string{"copy /", "write a 4"}, 2},
		{"a mount of an image", "FROM scratch\nRUN --mount=from=base,target=/m write a 5\n", nil,
			[]string{"write a 5"}, 1},
		{"a writable mount of a context",
			"FROM scratch\nRUN --mount=from=x,target=/m,rw write a 6\n",
			map[string]string{"x": filepath.Join(b.dir, "named")},
			[]string{"copy /", "write a 6"}, 1},
		{"a cache that begins with an image",
			"FROM scratch\nRUN --mount=type=cache,from=base,target=/m write a 7\n", nil,
			[]string{"copy /", "write a 7"}, 1},
		{"tmpfs and a heredoc", "FROM scratch\nRUN --mount=type=tmpfs,target=/m <<E\nwrite a 8\nE\n", nil, []string{"write a 8\n"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.t = t
			res, ran := b.must(tt.dockerfile,
				imagebuild.Options{Source: imagebuild.SourceOptions{Contexts: tt.contexts}})
			b.want(tt.name, ran, tt.want...)
			if n := len(b.manifest(res).Layers); n != tt.layers {
				t.Errorf("%d layers, want %d", n, tt.layers)
			}
		})
	}
}

// TestRemoteCache exports results and imports them on another machine.
func TestRemoteCache(t *testing.T) {
	const dockerfile = "FROM scratch AS tools\nRUN write tool 1\n" +
		"FROM scratch AS other\nRUN write other 1\n" +
		"FROM scratch\nCOPY --from=tools /tool /\nRUN write a 1\nRUN nothing\nENV A=1\n" +
		"COPY --from=other /other /\n"
	from := func(dir string) []remotecache.Place {
		p, err := remotecache.ParseFrom("type=local,src=" + dir)
		if err != nil {
			t.Fatal(err)
		}
		return []remotecache.Place{p}
	}
	for _, tt := range []struct {
		name, to, second string
		o                imagebuild.Options
		damage           func(dir string)
		want             []string
		warns            string
	}{
		{name: "all stages", to: "type=local,mode=max,dest="},
		{name: "the image's stages", to: "type=local,dest="},
		{name: "inline", to: "inline"},
		{name: "another last step", to: "type=local,mode=max,dest=",
			second: strings.Replace(dockerfile, "/other /\n", "/other /o\n", 1),
			want:   []string{"copy /o"}},
		{name: "another last step without the other stage", to: "type=local,dest=",
			second: strings.Replace(dockerfile, "/other /\n", "/other /o\n", 1),
			want:   []string{"write other 1", "copy /o"}},
		{name: "another first step", to: "type=local,mode=max,dest=",
			second: strings.Replace(dockerfile, "tool 1", "tool 2", 1),
			want:   []string{"write tool 2", "copy /", "write a 1", "nothing", "copy /"}},
		{name: "--no-cache", to: "type=local,mode=max,dest=",
			o: imagebuild.Options{Cache: imagebuild.CacheOptions{No: true}},
			want: []string{"copy /", "copy /", "nothing", "write a 1",
				"write other 1", "write tool 1"}},
		{name: "no cache there", to: "type=local,mode=max,dest=",
			damage: func(dir string) { os.RemoveAll(dir) },
			warns:  "is not used: ",
			want: []string{"copy /", "copy /", "nothing", "write a 1",
				"write other 1", "write tool 1"}},
		{name: "a cache without layers", to: "type=local,mode=max,dest=", damage: removeLayers,
			warns: "cannot read the step's result",
			want: []string{"copy /", "copy /", "nothing", "write a 1",
				"write other 1", "write tool 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			at := int64(1_000_000_000)
			first := newBench(t, "copy")
			first.real()
			o := imagebuild.Options{Image: imagebuild.ImageOptions{Epoch: &at}}
			if tt.to == "inline" {
				o.Args = map[string]string{"BUILDKIT_INLINE_CACHE": "1"}
				o.Outputs, o.Image.Names = specs(t, dir, "type=oci,tar=false,dest=DIR"),
					[]string{"app"}
			} else {
				o.Cache.To = places(tt.to + dir)
			}
			made, _ := first.must(dockerfile, o)
			if tt.damage != nil {
				tt.damage(dir)
			}
			second := newBench(t, "copy")
			second.real()
			if tt.second == "" {
				tt.second = dockerfile
			}
			tt.o.Image.Epoch = &at
			tt.o.Cache.From = from(dir)
			res, ran := second.must(tt.second, tt.o)
			if slices.Contains(tt.want, "write tool 1") {
				slices.Sort(ran) // the stages run concurrently
			}
			second.want("the other machine", ran, tt.want...)
			if tt.second == dockerfile && tt.to != "inline" && res.Root.Digest != made.Root.Digest {
				t.Errorf("the other machine makes %s, the first %s",
					res.Root.Digest, made.Root.Digest)
			}
			if w := strings.Join(second.warnings(), "\n"); (tt.warns == "") != (w == "") ||
				!strings.Contains(w, tt.warns) {
				t.Errorf("warnings %q, want %q", w, tt.warns)
			}
			tt.o.Cache = imagebuild.CacheOptions{}
			_, ran = second.must(tt.second, tt.o)
			if slices.Contains(tt.want, "write tool 1") {
				second.want("the same there again", ran)
			}
		})
	}
}

// TestSecondRemoteCache imports from two places with the same records. The layers of the first are
// missing, and those of the second are used.
func TestSecondRemoteCache(t *testing.T) {
	const dockerfile = "FROM scratch\nRUN write a 1\nRUN write b 2\n"
	first := newBench(t, "copy")
	first.real()
	one, other := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "other")
	first.must(dockerfile, imagebuild.Options{Cache: imagebuild.CacheOptions{
		To: places("type=local,dest="+one, "type=local,dest="+other)}})
	removeLayers(one)
	second := newBench(t, "copy")
	second.real()
	var from []remotecache.Place
	for _, dir := range []string{one, other} {
		p, err := remotecache.ParseFrom("type=local,src=" + dir)
		if err != nil {
			t.Fatal(err)
		}
		from = append(from, p)
	}
	_, ran := second.must(dockerfile, imagebuild.Options{
		Cache: imagebuild.CacheOptions{From: from}})
	second.want("the other machine", ran)
	if w := second.warnings(); len(w) != 2 || !strings.Contains(w[0], "the step's result") {
		t.Errorf("warnings %q, want one for each step", w)
	}
}

// removeLayers removes the largest blobs of a layout: its layers.
func removeLayers(dir string) {
	blobs, _ := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	for _, b := range blobs {
		if data, err := os.ReadFile(b); err == nil && !json.Valid(data) {
			os.Remove(b)
		}
	}
}

// TestDeferredCopy checks that the layer of a COPY of a directory is written from the files of the
// context, and that its snapshot is made only if a step runs on it, in the same or a later build.
func TestDeferredCopy(t *testing.T) {
	for _, check := range []bool{false, true} {
		b := newBench(t, "overlay")
		b.real()
		b.state.NS.SingleID = false // the fake executor sets no owners
		for i := range build.EarlyFiles + 1 {
			b.file(fmt.Sprintf("many/%d", i), fmt.Sprint(i))
		}
		const last = "FROM scratch\nRUN write a 1\nCOPY many /m/\n"
		const more = last + "RUN write b 2\n"
		at := int64(1_000_000_000) // the fake executor does not keep times
		o := imagebuild.Options{CheckLayers: check, Image: imagebuild.ImageOptions{Epoch: &at}}
		copies := func(ran []string) int {
			n := 0
			for _, r := range ran {
				if r == "copy /m/" {
					n++
				}
			}
			return n
		}
		first, ran := b.must(last, o)
		if copies(ran) > 0 && !check || !slices.Contains(ran, "dest /m/") {
			t.Errorf("check %v: a COPY that ends the image ran %q, want no copy", check, ran)
		}
		_, ran = b.must(last, o)
		b.want("again", ran)
		second, ran := b.must(more, o)
		b.want("a step on it", ran, "write b 2")
		if l1, l2 := b.manifest(first).Layers,
			b.manifest(second).Layers; l1[1].Digest != l2[1].Digest {
			t.Errorf("check %v: the layer of the copy is %s, and then %s", check,
				l1[1].Digest, l2[1].Digest)
		}
		fresh := newBench(t, "overlay")
		fresh.real()
		fresh.state.NS.SingleID = false
		fresh.dir = b.dir
		third, ran := fresh.must(more, o)
		if copies(ran) != 1 || !slices.Contains(ran, "dest /m/") {
			t.Errorf("check %v: a COPY that a step runs on ran %q, want one copy", check, ran)
		}
		if l2, l3 := b.manifest(second).Layers,
			fresh.manifest(third).Layers; l2[1].Digest != l3[1].Digest {
			t.Errorf("check %v: the layer of the copy is %s in one way and %s in the other", check,
				l2[1].Digest, l3[1].Digest)
		}
	}
}

// TestNoOpOnOverlay checks that a step that changes nothing makes no snapshot, and that the next
// step uses the snapshot that was prepared for it.
func TestNoOpOnOverlay(t *testing.T) {
	b := newBench(t, "overlay")
	const dockerfile = "FROM scratch\nRUN write a 1\nRUN nothing\nRUN nothing; nothing\n" +
		"RUN write b 2\n"
	res, ran := b.must(dockerfile, imagebuild.Options{CheckLayers: true})
	b.want("build", ran, "write a 1", "nothing", "nothing; nothing", "write b 2")
	if l := b.manifest(res).Layers; len(l) != 4 || l[1].Digest != l[2].Digest {
		t.Errorf("layers %v, want four, two of them equal", l)
	}
	b.must(dockerfile+"RUN nothing\n", imagebuild.Options{})
	if left, err := filepath.Glob(filepath.Join(b.state.Root, "snapshots", "tmp",
		"*")); err != nil || len(left) > 0 {
		t.Errorf("the snapshot that was prepared for a next step is left: %q, %v", left, err)
	}
	_, ran = b.must(dockerfile, imagebuild.Options{})
	b.want("again", ran)
}

// TestRemoteSource checks that ADD fetches files from a server again only if they have changed
// there.
func TestRemoteSource(t *testing.T) {
	content, gets := "1", 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", strconv.Quote(content))
		if r.Header.Get("If-None-Match") == strconv.Quote(content) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		gets++
		io.WriteString(w, content)
	}))
	defer server.Close()
	b := newBench(t, "copy")
	dockerfile := "FROM scratch\nADD " + server.URL + "/f /f\nADD a /\n"
	_, ran := b.must(dockerfile, imagebuild.Options{})
	b.want("build", ran, "copy /f", "copy /")
	_, ran = b.must(dockerfile, imagebuild.Options{})
	b.want("nothing changed", ran)
	content = "2"
	_, ran = b.must(dockerfile, imagebuild.Options{})
	b.want("another content", ran, "copy /f", "copy /")
	if gets < 2 || gets > 4 {
		t.Errorf("the server sent the content %d times", gets)
	}
	server.Close()
	if _, _, err := b.build(t.Context(), dockerfile, imagebuild.Options{}); err == nil ||
		lineOf(err) != 2 {
		t.Errorf("without the server: error %v, want one of line 2", err)
	}
}
