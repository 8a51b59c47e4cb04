package export

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/goldentest"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blobs holds blobs in memory.
type blobs map[digest.Digest][]byte

func (b blobs) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := b[d.Digest]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: d.Digest.String(), Err: fs.ErrNotExist}
	}
	// hide the WriterTo of bytes.Reader, as for a file
	return io.NopCloser(struct{ io.Reader }{bytes.NewReader(data)}), nil
}

func (b blobs) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data),
		Size: int64(len(data))}
	b[d.Digest] = data
	return d
}

func (b blobs) addJSON(t testing.TB, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b.add(mediaType, data)
}

// layerTar makes a layer with an entry for each string: "NAME/" is a directory, "NAME -> TARGET" a
// symbolic link, "NAME => TARGET" a hard link, and "NAME TEXT" a file with that content.
func layerTar(t testing.TB, files ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Mode: 0o644, ModTime: time.Unix(1700000000, 0)}
		name, text, _ := strings.Cut(f, " ")
		h.Name = name
		switch {
		case strings.HasSuffix(name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case strings.HasPrefix(text, "-> "):
			h.Typeflag, h.Linkname = tar.TypeSymlink, text[3:]
		case strings.HasPrefix(text, "=> "):
			h.Typeflag, h.Linkname = tar.TypeLink, text[3:]
		default:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(text))
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			io.WriteString(tw, text)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// testImage returns an image of two layers for one platform. Its layers are not compressed: golden
// digests do not depend on a compressor.
func testImage(t testing.TB, arch string, names ...string) *Image {
	t.Helper()
	b := blobs{}
	return &Image{Root: b.image(t, arch), Names: names, Content: b,
		Trees: []Tree{testTree(t, arch)}}
}

func (b blobs) image(t testing.TB, arch string) ocispec.Descriptor {
	t.Helper()
	layers := [][]byte{layerTar(t, "etc/", "etc/arch "+arch), layerTar(t, "etc/", "etc/motd hello")}
	created := time.Unix(1700000000, 0).UTC()
	config := ocispec.Image{Created: &created,
		Platform: ocispec.Platform{OS: "linux", Architecture: arch},
		Config:   ocispec.ImageConfig{Cmd: []string{"/bin/sh"}}}
	config.RootFS.Type = "layers"
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		d := b.add(ocispec.MediaTypeImageLayer, l)
		m.Layers = append(m.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
		config.History = append(config.History,
			ocispec.History{Created: &created, CreatedBy: "test"})
	}
	m.Config = b.addJSON(t, ocispec.MediaTypeImageConfig, config)
	root := b.addJSON(t, ocispec.MediaTypeImageManifest, m)
	root.Platform = &config.Platform
	return root
}

func testTree(t testing.TB, arch string) Tree {
	data := layerTar(t, "etc/", "etc/arch "+arch, "etc/motd hello",
		"etc/same => etc/motd", "link -> etc")
	return Tree{Platform: ocispec.Platform{OS: "linux", Architecture: arch},
		Tar: func(_ context.Context, w io.Writer) error {
			_, err := w.Write(data)
			return err
		}}
}

// testIndex returns an image for two platforms.
func testIndex(t testing.TB, names ...string) *Image {
	t.Helper()
	b := blobs{}
	ix := index([]ocispec.Descriptor{b.image(t, "amd64"), b.image(t, "arm64")})
	return &Image{Root: b.addJSON(t, ocispec.MediaTypeImageIndex, ix), Names: names, Content: b,
		Trees: []Tree{testTree(t, "amd64"), testTree(t, "arm64")}}
}

// run exports img as described by spec.
func run(t testing.TB, env Env, spec string, img *Image) error {
	t.Helper()
	s, err := Parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	exporters, err := New(env, s)
	if err != nil {
		return err
	}
	var w watcher
	err = exporters[0].Export(t.Context(), img, w.sink)
	w.check(t, err)
	return err
}

// watcher checks the events of an exporter.
type watcher struct {
	mu     sync.Mutex
	events []event.Event
}

func (w *watcher) sink(e event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l, ok := e.(event.Log); ok {
		l.Data = bytes.Clone(l.Data)
		e = l
	}
	w.events = append(w.events, e)
}

func (w *watcher) check(t testing.TB, err error) {
	t.Helper()
	open := map[event.ID]bool{}
	var last error
	for _, e := range w.events {
		switch e := e.(type) {
		case event.Start:
			if open[e.ID] {
				t.Errorf("%s was begun twice", e.ID)
			}
			open[e.ID] = true
		case event.Done:
			if !open[e.ID] {
				t.Errorf("%s ended and was not begun", e.ID)
			}
			open[e.ID], last = false, e.Err
		case event.Progress:
			if !open[e.ID] || e.Total > 0 && e.Current > e.Total {
				t.Errorf("progress %+v", e)
			}
		}
	}
	for id, is := range open {
		if is {
			t.Errorf("%s has not ended", id)
		}
	}
	if len(open) > 0 && !errors.Is(err, last) {
		t.Errorf("Export = %v, the last event says %v", err, last)
	}
}

func list(t testing.TB, r io.Reader) string {
	t.Helper()
	var b strings.Builder
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%c %04o %d:%d %d %s", h.Typeflag, h.Mode, h.Uid, h.Gid,
			h.ModTime.Unix(), h.Name)
		if h.Linkname != "" {
			b.WriteString(" -> " + h.Linkname)
		}
		if strings.HasSuffix(h.Name, ".json") || h.Name == "oci-layout" {
			b.WriteString("\n    " + string(data))
		}
		b.WriteByte('\n')
	}
}

// The bytes of an archive depend only on the image. They are golden: changing them is a decision.
func TestArchiveGolden(t *testing.T) {
	var report strings.Builder
	for _, tt := range []struct {
		name, spec string
		img        *Image
	}{
		{"oci", "type=oci,name=b:1", testImage(t, "amd64", "a", "quay.io/x/y:2")},
		{"oci-unnamed", "type=oci", testImage(t, "amd64")},
		{"oci-index", "type=oci", testIndex(t, "a")},
		{"docker", "type=docker,dest=-,name=b:1", testImage(t, "amd64", "a", "quay.io/x/y:2")},
		{"docker-unnamed", "type=docker,dest=-", testImage(t, "amd64")},
	} {
		var first []byte
		for range 2 {
			var out bytes.Buffer
			if err := run(t, Env{Stdout: &out}, tt.spec, tt.img); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if first != nil && !bytes.Equal(first, out.Bytes()) {
				t.Errorf("%s: the same image twice gives different archives", tt.name)
			}
			first = out.Bytes()
		}
		fmt.Fprintf(&report, "== %s %s\n%s", tt.name, digest.FromBytes(first),
			list(t, bytes.NewReader(first)))
	}
	goldentest.Compare(t, "archives.txt", report.String())
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	dest := filepath.Join(dir, "out.tar")
	if err := run(t, Env{}, "type=oci,dest="+dest, testImage(t, "amd64")); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(dest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dest, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.tar")
	if err := os.Symlink("out.tar", link); err != nil {
		t.Fatal(err)
	}
	if err := run(t, Env{}, "type=oci,name=a,dest="+link, testImage(t, "arm64")); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(dest)
	if err != nil || bytes.Equal(before, after) {
		t.Errorf("what the link leads to was not replaced (%v)", err)
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link is now %v (%v)", fi, err)
	}
	if fi, err := os.Stat(dest); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v (%v), want that of the file that was replaced", fi.Mode(), err)
	}
	if err := run(t, Env{}, "type=oci,dest=/dev/null", testImage(t, "amd64")); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat("/dev/null"); err != nil || fi.Mode()&fs.ModeDevice == 0 {
		t.Errorf("/dev/null is %v (%v)", fi.Mode(), err)
	}
}

// A failed export leaves the destination unchanged.
func TestFileFailure(t *testing.T) {
	for name, spoil := range map[string]func(img *Image, layer ocispec.Descriptor){
		"missing": func(img *Image, layer ocispec.Descriptor) {
			delete(img.Content.(blobs), layer.Digest)
		},
		"short": func(img *Image, layer ocispec.Descriptor) {
			img.Content.(blobs)[layer.Digest] = img.Content.(blobs)[layer.Digest][:100]
		},
		"long": func(img *Image, layer ocispec.Descriptor) {
			img.Content.(blobs)[layer.Digest] = append(img.Content.(blobs)[layer.Digest], 0)
		},
		"no manifest": func(img *Image, _ ocispec.Descriptor) {
			delete(img.Content.(blobs), img.Root.Digest)
		},
		"bad manifest": func(img *Image, _ ocispec.Descriptor) {
			img.Content.(blobs)[img.Root.Digest] = make([]byte, img.Root.Size)
		},
		"bad digest": func(img *Image, _ ocispec.Descriptor) {
			img.Root.Digest = "../../etc/passwd"
		},
		"huge": func(img *Image, _ ocispec.Descriptor) { img.Root.Size = 1 << 40 },
		"tar":  func(img *Image, _ ocispec.Descriptor) {},
	} {
		for _, spec := range []string{"type=oci", "type=docker", "type=tar", "type=oci,tar=false"} {
			if (name == "tar") != (spec == "type=tar") {
				continue
			}
			t.Run(name+" "+spec, func(t *testing.T) {
				dir := t.TempDir()
				t.Chdir(dir) // the file's name contains commas
				dest := "out"
				if !strings.Contains(spec, "tar=false") {
					if err := os.WriteFile(dest, []byte("old"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				img := testImage(t, "amd64", "a")
				var m ocispec.Manifest
				if err := json.Unmarshal(img.Content.(blobs)[img.Root.Digest], &m); err != nil {
					t.Fatal(err)
				}
				spoil(img, m.Layers[1])
				img.Trees[0].Tar = func(context.Context,
					io.Writer) error {
					return errors.New("no tree today")
				}
				if err := run(t, Env{}, spec+",dest="+dest, img); err == nil {
					t.Error("the export succeeded")
				}
				if strings.Contains(spec, "tar=false") {
					if _, err := os.Stat(filepath.Join(dest, "index.json")); err == nil {
						t.Error("the layout has an index")
					}
					return
				}
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				if len(entries) != 1 {
					t.Errorf("there is more than the destination: %v", entries)
				}
				if data, err := os.ReadFile(dest); err != nil || string(data) != "old" {
					t.Errorf("the destination holds %q (%v)", data, err)
				}
			})
		}
	}
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range []string{"type=oci", "type=tar", "type=local"} {
		spec, err := Parse(s + ",dest=" + filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		exporters, err := New(Env{}, spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := exporters[0].Export(ctx, testImage(t, "amd64"),
			event.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want %v", s, err, context.Canceled)
		}
	}
}

func TestDockerRefusesIndex(t *testing.T) {
	err := run(t, Env{Stdout: io.Discard}, "type=docker,dest=-", testIndex(t, "a"))
	if err == nil || !strings.Contains(err.Error(), "use type=oci") {
		t.Errorf("Export = %v, want the advice to use type=oci", err)
	}
}

// An index with one image and its attestation is an image for one platform.
func TestDockerAttestation(t *testing.T) {
	b := blobs{}
	attestation := b.image(t, "arm64")
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	img := &Image{Root: b.addJSON(t, ocispec.MediaTypeImageIndex,
		index([]ocispec.Descriptor{b.image(t, "amd64"), attestation})), Content: b}
	if err := run(t, Env{Stdout: io.Discard}, "type=docker,dest=-", img); err != nil {
		t.Error(err)
	}
}

func TestForeignLayer(t *testing.T) {
	b := blobs{}
	var m ocispec.Manifest
	if err := json.Unmarshal(b[b.image(t, "amd64").Digest], &m); err != nil {
		t.Fatal(err)
	}
	m.Layers[1].URLs = []string{"https://example.com/layer"}
	delete(b, m.Layers[1].Digest)
	img := &Image{Root: b.addJSON(t, ocispec.MediaTypeImageManifest, m), Content: b}
	var out bytes.Buffer
	if err := run(t, Env{Stdout: &out}, "type=oci", img); err != nil {
		t.Fatal(err)
	}
	if got := list(t, &out); strings.Contains(got, "0 "+blobPath(m.Layers[1])) ||
		!strings.Contains(got, "0 "+blobPath(m.Layers[0])) {
		t.Errorf("the archive has\n%swant the first layer only", got)
	}
}

func TestLayout(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "deep/layout")
	export := func(spec string, img *Image) {
		t.Helper()
		if err := run(t, Env{}, spec+",tar=false,dest="+dest, img); err != nil {
			t.Fatal(err)
		}
	}
	index := func() string {
		t.Helper()
		ix, err := readIndex(dest)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, m := range ix.Manifests {
			lines = append(lines, fmt.Sprintf("%s %s %s", m.Annotations[ocidoc.AnnotationName],
				m.Annotations[ocispec.AnnotationRefName], m.Digest.Encoded()[:6]))
		}
		return strings.Join(lines, "\n")
	}
	amd, arm := testImage(t, "amd64"), testImage(t, "arm64")
	a, b := amd.Root.Digest.Encoded()[:6], arm.Root.Digest.Encoded()[:6]
	export("type=oci", amd)
	if want := "  " + a; index() != want {
		t.Errorf("after one without a name the index is\n%s\nwant\n%s", index(), want)
	}
	export("type=oci", amd)
	export("type=oci,name=x:1,name=x:2", amd)
	want := "docker.io/library/x:1 1 " + a + "\ndocker.io/library/x:2 2 " + a
	if index() != want {
		t.Errorf("after names were given the index is\n%s\nwant\n%s", index(), want)
	}
	if export("type=oci", amd); index() != want {
		t.Errorf("after another one without a name the index is\n%s\nwant\n%s", index(), want)
	}
	export("type=oci,name=y:2", arm)
	if got := index(); strings.Contains(got, "x:2") ||
		!strings.HasSuffix(got, "docker.io/library/y:2 2 "+b) ||
		!strings.Contains(got, "x:1 1 "+a) {
		t.Errorf("after the tag 2 was taken over the index is\n%s", got)
	}
	g, err := readGraph(t.Context(), arm.Content, arm.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range g.blobs {
		data, err := os.ReadFile(filepath.Join(dest, blobPath(d)))
		if err != nil || digest.FromBytes(data) != d.Digest {
			t.Errorf("blob %s: %v, digest %s", d.Digest, err, digest.FromBytes(data))
		}
	}
	if data, err := os.ReadFile(filepath.Join(dest, "oci-layout")); err != nil ||
		string(data) != ocidoc.LayoutFile {
		t.Errorf("oci-layout: %q (%v)", data, err)
	}
	export("type=docker,name=z:1", amd)
	if data, err := os.ReadFile(filepath.Join(dest, "manifest.json")); err != nil ||
		!strings.Contains(string(data), `"RepoTags":["z:1"]`) {
		t.Errorf("manifest.json: %q (%v)", data, err)
	}
	if err := os.WriteFile(filepath.Join(dest, "index.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(t, Env{}, "type=oci,tar=false,dest="+dest, amd); err == nil ||
		!strings.Contains(err.Error(), "index.json") {
		t.Errorf("into a directory with a foreign index.json: %v, want an error that names it", err)
	}
}

// TestLayoutAtOnce adds images to one layout at the same time, both to an existing and to a new
// one. Each image keeps its name.
func TestLayoutAtOnce(t *testing.T) {
	for n := range 20 {
		dest := filepath.Join(t.TempDir(), []string{"layout", "deep/layout", "a/b/c"}[n%3])
		if n%2 == 1 {
			if err := os.MkdirAll(dest, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for i := range 4 {
			img := testImage(t, fmt.Sprint("arch", i))
			wg.Go(func() {
				spec := fmt.Sprintf("type=oci,name=x:%d,tar=false,dest=%s", i, dest)
				if err := run(t, Env{}, spec, img); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		ix, err := readIndex(dest)
		if err != nil {
			t.Fatal(err)
		}
		var tags []string
		for _, m := range ix.Manifests {
			tags = append(tags, m.Annotations[ocispec.AnnotationRefName])
		}
		if slices.Sort(tags); strings.Join(tags, " ") != "0 1 2 3" {
			t.Fatalf("the layout %s has the tags %q", dest, tags)
		}
		if list, _ := filepath.Glob(filepath.Join(filepath.Dir(dest), ".*")); len(list) > 0 {
			t.Errorf("left behind: %q", list)
		}
	}
}

func TestFlat(t *testing.T) {
	one := "5 0755 0:0 1700000000 etc/\n0 0644 0:0 1700000000 etc/arch\n0 0644 0:0 1700000000 etc/motd\n1 0644 0:0 1700000000 etc/same -> etc/motd\n2 0644 0:0 1700000000 link -> etc\n"
	below := func(dir string) string {
		s := strings.ReplaceAll(one, "1700000000 ", "1700000000 "+dir+"/")
		return "5 0755 0:0 0 " + dir + "/\n" +
			strings.ReplaceAll(s, "-> etc/motd", "-> "+dir+"/etc/motd")
	}
	for _, tt := range []struct {
		name, spec string
		img        *Image
		want       string
	}{
		{"one", "type=tar", testImage(t, "amd64"), one},
		{"one, split", "type=tar,platform-split=true", testImage(t, "amd64"), below("linux_amd64")},
		{"two", "-", testIndex(t), below("linux_amd64") + below("linux_arm64")},
		{"two, not split", "type=tar,platform-split=false", disjointIndex(),
			"5 0755 0:0 0 bin/\n0 0644 0:0 0 bin/app-amd64\n0 0644 0:0 0 bin/app-arm64\n"},
		{"two versions", "type=tar", &Image{Trees: []Tree{
			{Platform: ocispec.Platform{OS: "windows", OSVersion: "10.0.1", Architecture: "amd64"},
				Tar: tarWith("a")},
			{Platform: ocispec.Platform{OS: "windows", OSVersion: "10.0.2", Architecture: "amd64"},
				Tar: tarWith("a")},
		}}, "5 0755 0:0 0 windows(10.0.1)_amd64/\n0 0644 0:0 0 windows(10.0.1)_amd64/a\n5 0755 0:0 0 windows(10.0.2)_amd64/\n0 0644 0:0 0 windows(10.0.2)_amd64/a\n"},
	} {
		var out bytes.Buffer
		if err := run(t, Env{Stdout: &out}, tt.spec, tt.img); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, list(t, &out)); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", tt.name, diff)
		}
	}
	if err := run(t, Env{Stdout: io.Discard}, "-", &Image{}); !errors.Is(err, errNoTrees) {
		t.Errorf("without trees: %v", err)
	}
	if err := run(t, Env{Stdout: io.Discard}, "type=tar,platform-split=false",
		testIndex(t)); err == nil || !strings.Contains(err.Error(),
		"/etc/arch is in the files for linux_amd64 and in those for linux_arm64") {
		t.Errorf("two that have the same file, not split: %v", err)
	}
	same := &Image{Trees: []Tree{{Platform: ocispec.Platform{OS: "a_b", Architecture: "c"},
		Tar: tarWith("x")}, {Platform: ocispec.Platform{OS: "a", Architecture: "b_c"},
		Tar: tarWith("x")}}}
	for _, spec := range []string{"-", "type=local,dest=" + filepath.Join(t.TempDir(), "out")} {
		if err := run(t, Env{Stdout: io.Discard}, spec, same); err == nil ||
			!strings.Contains(err.Error(), "two platforms have the same directory, a_b_c") {
			t.Errorf("%s: two platforms in one directory: %v", spec, err)
		}
	}
	for _, variant := range []string{"v7", "7", ""} {
		if got := platformDir(ocispec.Platform{OS: "linux", Architecture: "arm",
			Variant: variant}); got != "linux_arm_v7" {
			t.Errorf("platformDir of the variant %q = %q", variant, got)
		}
	}
}

func TestLocal(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "out")
	export := func(spec string, img *Image) {
		t.Helper()
		if err := run(t, Env{KeepOwners: os.Geteuid() == 0}, spec, img); err != nil {
			t.Fatal(err)
		}
	}
	export(dest, testImage(t, "amd64"))
	if err := os.WriteFile(filepath.Join(dest, "mine"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	export("type=local,dest="+dest, testImage(t, "arm64"))
	for name, want := range map[string]string{"etc/arch": "arm64", "etc/motd": "hello",
		"etc/same": "hello", "link/motd": "hello", "mine": ""} {
		if data, err := os.ReadFile(filepath.Join(dest, name)); err != nil || string(data) != want {
			t.Errorf("%s holds %q (%v), want %q", name, data, err, want)
		}
	}
	export(dest, testIndex(t))
	for name, want := range map[string]string{"linux_amd64/etc/arch": "amd64",
		"linux_arm64/etc/arch": "arm64"} {
		if data, err := os.ReadFile(filepath.Join(dest, name)); err != nil || string(data) != want {
			t.Errorf("%s holds %q (%v), want %q", name, data, err, want)
		}
	}
	flat := filepath.Join(t.TempDir(), "flat")
	export("type=local,platform-split=false,dest="+flat, disjointIndex())
	for _, name := range []string{"bin/app-amd64", "bin/app-arm64"} {
		if _, err := os.Stat(filepath.Join(flat, name)); err != nil {
			t.Error(err)
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	if err := run(t, Env{}, "type=local,platform-split=false,dest="+none,
		testIndex(t)); err == nil || !strings.Contains(err.Error(),
		"/etc/arch is in the files for") {
		t.Errorf("two that have the same file, not split: %v", err)
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a part of them is there all the same")
	}
}

// tarWith returns a function that writes the tar of empty files. A name with a slash at its end is
// a directory.
func tarWith(names ...string) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, name := range names {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644,
				ModTime: time.Unix(0, 0)}
			if strings.HasSuffix(name, "/") {
				h.Typeflag, h.Mode = tar.TypeDir, 0o755
			}
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
		}
		return tw.Close()
	}
}

// disjointIndex returns an image for two platforms with no file in common.
func disjointIndex() *Image {
	return &Image{Trees: []Tree{
		{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
			Tar: tarWith("bin/", "bin/app-amd64")},
		{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"},
			Tar: tarWith("bin/", "bin/app-arm64")},
	}}
}

// The image's owners are used only with KeepOwners; an owner that cannot be set is a warning.
func TestLocalOwners(t *testing.T) {
	tree := Tree{Tar: func(_ context.Context, w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, h := range []*tar.Header{
			{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644, Uid: 1234, Gid: 2345},
			{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		} {
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
		}
		return tw.Close()
	}}
	for _, keep := range []bool{false, true} {
		dest := t.TempDir()
		exporters, err := New(Env{KeepOwners: keep}, Spec{Type: TypeLocal, Dest: dest, Dir: true})
		if err != nil {
			t.Fatal(err)
		}
		var w watcher
		if err := exporters[0].Export(t.Context(), &Image{Trees: []Tree{tree}},
			w.sink); err != nil {
			t.Fatal(err)
		}
		w.check(t, nil)
		warned := slices.ContainsFunc(w.events,
			func(e event.Event) bool { _, ok := e.(event.Warning); return ok })
		fi, err := os.Stat(filepath.Join(dest, "a"))
		if err != nil {
			t.Fatal(err)
		}
		uid, gid := owner(fi)
		if root := os.Geteuid() == 0; root && keep {
			if uid != 1234 || gid != 2345 {
				t.Errorf("as root the owner is %d:%d, want 1234:2345", uid, gid)
			}
		} else {
			if uid != os.Geteuid() || gid != os.Getegid() {
				t.Errorf("the owner is %d:%d, want who runs this", uid, gid)
			}
			if !root && !warned {
				t.Error("nothing warns of what was left out")
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		specs []string
		env   Env
		want  string
	}{
		{[]string{"type=oci,dest=" + dir}, Env{},
			"dest is a directory; a file is expected (tar=false"},
		{[]string{"type=tar,dest=" + dir}, Env{}, "dest is a directory; a file is expected"},
		{[]string{"type=oci,tar=false,dest=" + file}, Env{}, "dest is a file"},
		{[]string{file}, Env{}, "dest is a file"},
		{[]string{"type=oci,dest=" + dir + "/none/out"}, Env{}, "there is no directory"},
		{[]string{"type=oci,dest=" + file + "/out"}, Env{}, "not a directory"},
		{[]string{"-"}, Env{}, "standard output is not available"},
		{[]string{"-", "type=oci"}, Env{Stdout: io.Discard}, "same place"},
		{[]string{"type=oci,dest=" + dir + "/x", "type=docker,dest=" + dir + "/./x"},
			Env{}, "same place"},
		{[]string{"type=registry"}, Env{}, "registry is not available"},
	} {
		var specs []Spec
		for _, s := range tt.specs {
			spec, err := Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			specs = append(specs, spec)
		}
		if _, err := New(tt.env, specs...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%q) = %v, want an error with %q", tt.specs, err, tt.want)
		}
	}
	if tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err == nil {
		defer tty.Close()
		if _, err := New(Env{Stdout: tty}, Spec{Type: TypeTar, Dest: "-"}); err == nil ||
			!strings.Contains(err.Error(), "terminal") {
			t.Errorf("New with a terminal = %v, want a refusal", err)
		}
	}
}

// registry records the images that are pushed and the names that are set.
type registry struct {
	calls []string
	err   error
}

func (r *registry) Push(_ context.Context, name string, root ocispec.Descriptor, _ Fetcher,
	o PushOptions) error {
	r.calls = append(r.calls, fmt.Sprintf("push %s %s digest=%t insecure=%t", name,
		root.Digest.Encoded()[:6], o.ByDigest, o.Insecure))
	o.Sink(event.Progress{ID: o.ID, Part: "upload", Current: 1, Total: 1, Done: true})
	return r.err
}

func (r *registry) Tag(_ context.Context, name string, d ocispec.Descriptor) error {
	r.calls = append(r.calls, "tag "+name+" "+d.Digest.Encoded()[:6])
	return nil
}

func TestImage(t *testing.T) {
	img := testImage(t, "amd64", "a", "localhost:5000/b:1")
	at := img.Root.Digest.Encoded()[:6]
	for _, tt := range []struct {
		spec string
		img  *Image
		want []string
	}{
		{"type=image", img, []string{"tag docker.io/library/a:latest " + at,
			"tag localhost:5000/b:1 " + at}},
		{"type=image,name=c", &Image{Root: img.Root},
			[]string{"tag docker.io/library/c:latest " + at}},
		{"type=registry,registry.insecure=true", img, []string{
			"tag docker.io/library/a:latest " + at, "tag localhost:5000/b:1 " + at,
			"push docker.io/library/a:latest " + at + " digest=false insecure=true",
			"push localhost:5000/b:1 " + at + " digest=false insecure=true"}},
		{"type=image,push=true,push-by-digest=true,name=a:1,name=a:2",
			&Image{Root: img.Root}, []string{
				"push docker.io/library/a " + at + " digest=true insecure=false"}},
	} {
		r := &registry{}
		if err := run(t, Env{Pusher: r, Tagger: r}, tt.spec, tt.img); err != nil {
			t.Errorf("%s: %v", tt.spec, err)
		}
		if diff := cmp.Diff(tt.want, r.calls); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", tt.spec, diff)
		}
	}
	if err := run(t, Env{Pusher: &registry{}}, "type=registry",
		testImage(t, "amd64")); err == nil || !strings.Contains(err.Error(), "-t NAME") {
		t.Errorf("a push without a name = %v, want the advice to give one", err)
	}
	no := errors.New("no")
	if err := run(t, Env{Pusher: &registry{err: no}}, "type=registry,name=a",
		img); !errors.Is(err, no) {
		t.Errorf("a push that fails = %v", err)
	}
}

func TestLoad(t *testing.T) {
	var got string
	env := Env{Load: func(_ context.Context, r io.Reader) error {
		got = list(t, r)
		return nil
	}}
	img := testImage(t, "amd64", "a")
	if err := run(t, env, "type=docker", img); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, `"RepoTags":["a:latest"]`) {
		t.Errorf("the engine was given\n%s", got)
	}
	no := errors.New("no")
	env.Load = func(context.Context, io.Reader) error { return no }
	if err := run(t, env, "type=docker", img); !errors.Is(err, no) {
		t.Errorf("an engine that fails = %v", err)
	}
	// An engine to which there is no connection: the client closes the archive.
	env.Load = func(_ context.Context, r io.Reader) error {
		if c, ok := r.(io.Closer); ok {
			c.Close()
		}
		return no
	}
	if err := run(t, env, "type=docker", img); !errors.Is(err, no) {
		t.Errorf("an engine without a connection = %v", err)
	}
	// An engine that succeeds before it has read everything.
	env.Load = func(context.Context, io.Reader) error { return nil }
	if err := run(t, env, "type=docker", img); err != nil {
		t.Errorf("an engine that reads nothing and is content = %v", err)
	}
	// An image that cannot be read completely must not be loaded.
	delete(img.Content.(blobs), slices.MaxFunc(slices.Collect(keys(img.Content.(blobs))),
		func(a, b digest.Digest) int {
			return strings.Compare(string(a), string(b))
		}))
	env.Load = func(_ context.Context, r io.Reader) error {
		if _, err := io.Copy(io.Discard, r); err == nil {
			t.Error("the engine was not told that the archive is broken")
		}
		return nil
	}
	if err := run(t, env, "type=docker", img); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image with a blob missing = %v", err)
	}
}

func keys(b blobs) func(func(digest.Digest) bool) {
	return func(yield func(digest.Digest) bool) {
		for d := range b {
			if !yield(d) {
				return
			}
		}
	}
}

func TestMetadata(t *testing.T) {
	one := testImage(t, "amd64", "a", "b:1")
	m, err := Describe(t.Context(), one, Spec{Names: []string{"c"}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := m.JSON()
	if err != nil {
		t.Fatal(err)
	}
	goldentest.Compare(t, "metadata.json", string(data)+"\n")
	if m.ID() != m.Config || m.Config == "" || m.Config == one.Root.Digest {
		t.Errorf("the ID of an image for one platform is %s, want its config's digest", m.ID())
	}
	many := testIndex(t)
	if m, err = Describe(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	if m.ID() != many.Root.Digest || m.Config != "" {
		t.Errorf("the ID of an image for several platforms is %s, want its index's digest", m.ID())
	}
	if _, err := Describe(t.Context(), &Image{Root: one.Root, Content: blobs{}}); !errors.Is(err,
		fs.ErrNotExist) {
		t.Errorf("Describe of an image that is not there = %v", err)
	}
}

// readGraph ends for indexes with missing manifests or with cycles (digests exclude cycles, but
// sizes may be wrong).
func TestGraphLimits(t *testing.T) {
	b := blobs{}
	d := b.image(t, "amd64")
	for range ocidoc.MaxNesting + 2 {
		d = b.addJSON(t, ocispec.MediaTypeImageIndex, index([]ocispec.Descriptor{d}))
	}
	if _, err := readGraph(t.Context(), b, d); !errors.Is(err, ocidoc.ErrNesting) {
		t.Errorf("a deep index = %v", err)
	}
	twice := b.add("x", []byte(`{"manifests":[],"manifests":[]}`))
	if _, err := readGraph(t.Context(), b, twice); err == nil ||
		!strings.Contains(err.Error(), "twice") {
		t.Errorf("a document that readers take differently = %v", err)
	}
	if _, err := readGraph(t.Context(), b, b.add("x", []byte("{}"))); err == nil ||
		!strings.Contains(err.Error(), "neither") {
		t.Errorf("an empty document = %v", err)
	}
	lie := b.image(t, "amd64")
	lie.Size++
	if _, err := readGraph(t.Context(), b,
		b.addJSON(t, ocispec.MediaTypeImageIndex,
			index([]ocispec.Descriptor{b.image(t, "amd64"), lie}))); err == nil ||
		!strings.Contains(err.Error(), "has two different sizes") {
		t.Errorf("two sizes for one blob = %v", err)
	}
}

func BenchmarkArchive(b *testing.B) {
	content := blobs{}
	layer := content.add(ocispec.MediaTypeImageLayer, make([]byte, 64<<20))
	config := content.add(ocispec.MediaTypeImageConfig, []byte("{}"))
	root := content.addJSON(b, ocispec.MediaTypeImageManifest,
		ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Config: config,
			Layers: []ocispec.Descriptor{layer}})
	exporters, err := New(Env{Stdout: struct{ io.Writer }{io.Discard}},
		Spec{Type: TypeOCI, Dest: "-"})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(layer.Size)
	b.ReportAllocs()
	for b.Loop() {
		if err := exporters[0].Export(b.Context(), &Image{Root: root, Content: content},
			event.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
