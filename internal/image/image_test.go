package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/ns"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/state/ledger"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "image-test-")
	if err != nil {
		panic(err)
	}
	for k, v := range map[string]string{"HOME": dir, "DOCKER_CONFIG": dir, "XDG_RUNTIME_DIR": dir,
		"CONTAINERS_REGISTRIES_CONF": "/dev/null"} {
		os.Setenv(k, v)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// state is a state directory with a resolver.
type state struct {
	*Resolver
	dir string
}

// drivers returns the snapshot drivers that work on this machine.
func drivers(t testing.TB) []string {
	var out []string
	for _, p := range snapshot.Probe(filepath.Join(t.TempDir(), "probe"),
		snapshot.Options{UserNS: rootless(t)}) {
		if p.OK && (p.Name == "overlay" || p.Name == "copy") {
			out = append(out, p.Name)
		}
	}
	if len(out) == 0 {
		t.Fatal("no snapshot driver works")
	}
	return out
}

func rootless(t testing.TB) bool {
	info, err := ns.Current()
	if err != nil {
		t.Fatal(err)
	}
	return info.Rootless
}

func openState(t testing.TB, dir, driver string) *state {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(dir, "oci"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	syncs, err := ledger.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cache.Open(filepath.Join(dir, "cache"), syncs, cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	snaps, err := snapshot.Open(t.Context(), filepath.Join(dir, "snapshots"),
		snapshot.Options{Driver: driver, UserNS: rootless(t)})
	if err != nil {
		t.Fatal(err)
	}
	client := registry.New(registry.Options{Backoff: time.Millisecond})
	r := New(Options{Store: s, Cache: c, Snapshots: snaps, Registry: client})
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), client.Close()); err != nil {
			t.Error(err)
		}
	})
	return &state{r, dir}
}

// newState opens a state with the first driver that works.
func newState(t testing.TB) *state { return openState(t, t.TempDir(), drivers(t)[0]) }

// tree returns the listing of a snapshot.
func (s *state) tree(t testing.TB, id snapshot.ID) string {
	t.Helper()
	mounts, err := s.snapshots.View(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	dir := mounts[0].Source
	if len(mounts) > 1 || mounts[0].Type != mount.Bind {
		f, err := mount.Open(mounts)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		dir = fmt.Sprintf("/proc/self/fd/%d/", f.Fd())
	}
	out, err := fstree.Print(dir, fstree.Show{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// left lists temporary files, and snapshots that have no name and were not made by a test.
func (s *state) left(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"oci/tmp/*", "snapshots/tmp/*",
		"snapshots/full/tmp/*", "cache/tmp/*"} {
		names, err := filepath.Glob(filepath.Join(s.dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, names...)
	}
	return out
}

func (s *state) snapshotIDs(t testing.TB) []string {
	t.Helper()
	var out []string
	for info, err := range s.snapshots.All() {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(info.ID))
	}
	return out
}

// made is an image in memory.
type made struct {
	desc  ocispec.Descriptor
	man   ocispec.Manifest
	cfg   ocispec.Image
	blobs map[digest.Digest][]byte
}

func (m *made) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data),
		Size: int64(len(data))}
	m.blobs[d.Digest] = data
	return d
}

// tarOf writes a tree in fstree's notation as a layer. All files belong to the user that runs the
// test.
func tarOf(t testing.TB, text string) []byte {
	t.Helper()
	entries, err := fstree.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.Path, Mode: int64(e.Mode), Uid: os.Getuid(), Gid: os.Getgid(),
			ModTime: time.Unix(1700000000, 0), Linkname: e.Target, Size: int64(len(e.Content))}
		switch e.Type {
		case fstree.Dir:
			h.Typeflag = tar.TypeDir
		case fstree.File:
			h.Typeflag = tar.TypeReg
		case fstree.Link:
			h.Typeflag = tar.TypeSymlink
		case fstree.Hardlink:
			h.Typeflag = tar.TypeLink
		default:
			t.Fatalf("no %s in a layer", e.Type)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.Content)
	}
	w.Close()
	return buf.Bytes()
}

func compress(data []byte, how string) ([]byte, string) {
	var buf bytes.Buffer
	switch how {
	case "gzip":
		w := gzip.NewWriter(&buf)
		w.Write(data)
		w.Close()
		return buf.Bytes(), ocispec.MediaTypeImageLayerGzip
	case "zstd":
		w, _ := zstd.NewWriter(&buf)
		w.Write(data)
		w.Close()
		return buf.Bytes(), ocispec.MediaTypeImageLayerZstd
	}
	return data, ocispec.MediaTypeImageLayer
}

// imageOf makes an image of layers in fstree's notation; they are compressed in turn with gzip,
// zstd and not at all.
func imageOf(t testing.TB, layers ...string) *made {
	t.Helper()
	m := &made{blobs: map[digest.Digest][]byte{}}
	m.cfg = ocispec.Image{Platform: platform.Host(),
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}
	m.man = ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	for i, l := range layers {
		plain := tarOf(t, l)
		data, mediaType := compress(plain, []string{"gzip", "zstd", "none"}[i%3])
		m.cfg.RootFS.DiffIDs = append(m.cfg.RootFS.DiffIDs, digest.FromBytes(plain))
		m.man.Layers = append(m.man.Layers, m.add(mediaType, data))
	}
	m.seal(t)
	return m
}

// seal writes config and manifest.
func (m *made) seal(t testing.TB) {
	t.Helper()
	cfg, err := json.Marshal(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.man.Config = m.add(ocispec.MediaTypeImageConfig, cfg)
	man, err := json.Marshal(m.man)
	if err != nil {
		t.Fatal(err)
	}
	m.desc = m.add(m.man.MediaType, man)
}

// origin is a registry in memory.
type origin struct {
	*httptest.Server
	host  string
	mu    sync.Mutex
	tags  map[string]ocispec.Descriptor
	blobs map[digest.Digest][]byte
	log   []string
	hook  func(w http.ResponseWriter, r *http.Request) bool
}

func newOrigin(t testing.TB) *origin {
	o := &origin{tags: map[string]ocispec.Descriptor{}, blobs: map[digest.Digest][]byte{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	o.host = o.Listener.Addr().String()
	return o
}

func (o *origin) tag(name string, m *made) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for d, b := range m.blobs {
		o.blobs[d] = b
	}
	o.tags[name] = m.desc
}

// requests returns the requests for manifests and blobs since the previous call.
func (o *origin) requests() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.log
	o.log = nil
	return l
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	if r.URL.Path != "/v2/" {
		o.log = append(o.log, r.Method+" "+r.URL.Path)
	}
	hook := o.hook
	o.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	i := strings.LastIndexByte(r.URL.Path, '/')
	ref := r.URL.Path[i+1:]
	o.mu.Lock()
	defer o.mu.Unlock()
	d, ok := o.tags[strings.TrimSuffix(strings.TrimPrefix(r.URL.Path[:i], "/v2/"),
		"/manifests")+":"+ref]
	if !ok {
		data, found := o.blobs[digest.Digest(ref)]
		d, ok = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest,
			Digest: digest.Digest(ref), Size: int64(len(data))}, found
	}
	if !ok {
		w.WriteHeader(404)
		return
	}
	w.Header().Set("Content-Type", d.MediaType)
	w.Header().Set("Docker-Content-Digest", d.Digest.String())
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(o.blobs[d.Digest]))
}

var layers = []string{
	"dir etc 0755\nfile etc/a 0644 one\nfile etc/b 0600 two\ndir opt/deep 0700\nfile opt/deep/x 0755 x\nlink bin -> usr/bin\ndir usr/bin 0755\nfile usr/bin/sh 0755 sh",
	// etc and opt/deep are implied
	"file etc/.wh.a 0644 \nfile etc/c 0644 three\nfile opt/deep/y 0644 y",
	// both need the layers below
	"hardlink etc/linked => etc/b\nfile bin/tool 0755 tool",
	"dir opt 0755\nfile opt/.wh..wh..opq 0644 \nfile opt/new 0644 new",
}

const layersTree = `link bin -> usr/bin
dir etc 0755
file etc/b 0600 two
file etc/c 0644 three
hardlink etc/linked => etc/b
dir opt 0755
file opt/new 0644 new
dir usr 0755
dir usr/bin 0755
file usr/bin/sh 0755 sh
file usr/bin/tool 0755 tool
`

func TestUnpack(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, of a user namespace at least: directories that a layer implies " +
			"belong to 0:0")
	}
	for _, driver := range drivers(t) {
		t.Run(driver, func(t *testing.T) {
			o := newOrigin(t)
			m := imageOf(t, layers...)
			o.tag("base:1", m)
			s := openState(t, t.TempDir(), driver)
			img, err := s.Resolve(t.Context(), o.host+"/base:1", ResolveOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if img.Name != o.host+"/base:1" || img.Origin != FromRegistry ||
				img.Descriptor.Digest != m.desc.Digest || len(img.Config.RootFS.DiffIDs) != 4 {
				t.Errorf("image %+v", img)
			}
			var mu sync.Mutex
			ended := map[string]int64{}
			sink := func(e event.Event) {
				mu.Lock()
				defer mu.Unlock()
				if p, ok := e.(event.Progress); ok && p.Done {
					ended[p.Part] = p.Current
				}
			}
			top, cached, err := s.Unpack(t.Context(), img, UnpackOptions{ID: "x", Sink: sink})
			if err != nil || cached {
				t.Fatalf("Unpack: %v, cached %v", err, cached)
			}
			if got := s.tree(t, top); got != layersTree {
				t.Errorf("tree:\n%s\nwant:\n%s", got, layersTree)
			}
			if string(top) != img.ChainID().Encoded() {
				t.Errorf("the snapshot is %s, the chain %s", top, img.ChainID())
			}
			for _, l := range m.man.Layers {
				if n := ended["download "+l.Digest.String()]; n != l.Size {
					t.Errorf("download of %s ended at %d of %d", l.Digest, n, l.Size)
				}
				if n := ended["unpack "+l.Digest.String()]; n != l.Size {
					t.Errorf("unpacking of %s ended at %d of %d", l.Digest, n, l.Size)
				}
				if ok, err := s.store.Exists(t.Context(), l); !ok || err != nil {
					t.Errorf("blob %s is not in the store: %v", l.Digest, err)
				}
			}
			blobs := 0
			for _, r := range o.requests() {
				if strings.Contains(r, "/blobs/") {
					blobs++
				}
			}
			if blobs != 5 { // four layers and the configuration
				t.Errorf("%d blobs were fetched, want 5", blobs)
			}
			if l := s.left(t); len(l) != 0 {
				t.Errorf("left over: %v", l)
			}
			o.Close()
			s = openState(t, s.dir, driver)
			if img, err = s.Resolve(t.Context(), o.host+"/base:1", ResolveOptions{}); err != nil {
				t.Fatal(err)
			}
			again, cached, err := s.Unpack(t.Context(), img, UnpackOptions{})
			if err != nil || !cached || again != top {
				t.Errorf("second Unpack = %s, %v, %v", again, cached, err)
			}
			if err := s.Ensure(t.Context(), img, UnpackOptions{}); err != nil {
				t.Error(err)
			}
			if _, err = s.Resolve(t.Context(), o.host+"/base:1",
				ResolveOptions{Pull: true}); err == nil {
				t.Error("Pull did not ask")
			}
		})
	}
}

func TestSharedLayers(t *testing.T) {
	o := newOrigin(t)
	common := []string{"dir a 0755\nfile a/1 0644 1", "file a/2 0644 2"}
	one, two := imageOf(t, append(slices.Clone(common), "file one 0644 1")...),
		imageOf(t, append(slices.Clone(common), "file two 0644 2")...)
	o.tag("one:latest", one)
	o.tag("two:latest", two)
	for _, driver := range drivers(t) {
		t.Run(driver, func(t *testing.T) {
			dir := t.TempDir()
			// as two processes would open it
			states := []*state{openState(t, dir, driver), openState(t, dir, driver)}
			o.requests()
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					s := states[i%2]
					ref := o.host + "/" + []string{"one", "two"}[i/2%2]
					img, err := s.Resolve(t.Context(), ref, ResolveOptions{})
					if err != nil {
						t.Error(err)
						return
					}
					top, _, err := s.Unpack(t.Context(), img, UnpackOptions{})
					if err != nil {
						t.Error(err)
						return
					}
					want := "dir a 0755\nfile a/1 0644 1\nfile a/2 0644 2\nfile " +
						[]string{"one 0644 1\n", "two 0644 2\n"}[i/2%2]
					if got := s.tree(t, top); got != want {
						t.Errorf("%s:\n%s", ref, got)
					}
				})
			}
			wg.Wait()
			if ids := states[0].snapshotIDs(t); len(ids) != 4 {
				t.Errorf("%d snapshots, want 4: %v", len(ids), ids)
			}
			fetched := map[string]int{}
			for _, r := range o.requests() {
				if strings.Contains(r, "/blobs/") {
					fetched[r[strings.LastIndexByte(r, '/')+1:]]++
				}
			}
			for d, n := range fetched {
				// once in a process
				if d != one.man.Config.Digest.String() &&
					d != two.man.Config.Digest.String() && n > 2 {
					t.Errorf("%s was fetched %d times", d, n)
				}
			}
			if l := states[0].left(t); len(l) != 0 {
				t.Errorf("left over: %v", l)
			}
		})
	}
}

func TestMismatch(t *testing.T) {
	text := "dir a 0755\nfile a/x 0644 " + strings.Repeat("content ", 10_000)
	tests := []struct {
		name string
		do   func(t *testing.T, m *made)
		want string
	}{
		{"diff ID", func(t *testing.T, m *made) {
			m.cfg.RootFS.DiffIDs[1] = digest.FromString("x")
		}, " has sha256:2d711642"},
		{"blob's bytes", func(t *testing.T, m *made) {
			d := m.man.Layers[1].Digest
			m.blobs[d] = slices.Clone(m.blobs[d])
			m.blobs[d][len(m.blobs[d])/2]++
		}, "is damaged: its digest is"},
		{"blob cut", func(t *testing.T, m *made) {
			d := m.man.Layers[1].Digest
			m.blobs[d] = m.blobs[d][:len(m.blobs[d])/2]
		}, "bytes, not"},
		{"no tar", func(t *testing.T, m *made) {
			m.man.Layers[1] = m.add(ocispec.MediaTypeImageLayer,
				[]byte(strings.Repeat("this is not a tar ", 100)))
		}, "layer sha256:"},
		{"missing blob", func(t *testing.T, m *made) { delete(m.blobs, m.man.Layers[1].Digest) },
			"404"},
	}
	for _, driver := range drivers(t) {
		for _, tt := range tests {
			t.Run(driver+"/"+tt.name, func(t *testing.T) {
				o := newOrigin(t)
				m := imageOf(t, "file first 0644 1", text, "file last 0644 3")
				tt.do(t, m)
				m.seal(t)
				o.tag("bad:1", m)
				s := openState(t, t.TempDir(), driver)
				img, err := s.Resolve(t.Context(), o.host+"/bad:1", ResolveOptions{})
				if err != nil {
					t.Fatal(err)
				}
				_, _, err = s.Unpack(t.Context(), img, UnpackOptions{})
				if err == nil || !strings.Contains(err.Error(), tt.want) ||
					!strings.Contains(err.Error(), m.man.Layers[1].Digest.String()) ||
					!strings.Contains(err.Error(), "unpack "+img.Name) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				// EnsureLayer finds the same fault without unpacking.
				other := openState(t, t.TempDir(), driver)
				a, err := other.Artifact(t.Context(), o.host+"/bad:1", ResolveOptions{})
				if err != nil {
					t.Fatal(err)
				}
				for i := range m.man.Layers {
					layer, err := a.Layer(m.man.Layers[i], m.cfg.RootFS.DiffIDs[i])
					if err != nil {
						t.Fatal(err)
					}
					err = other.EnsureLayer(t.Context(), layer, UnpackOptions{})
					if (err != nil) != (i == 1) ||
						i == 1 && !strings.Contains(err.Error(), tt.want) {
						t.Errorf("EnsureLayer of layer %d: %v, want %q for layer 1", i, err,
							tt.want)
					}
				}
				// Only snapshots below the damaged layer may remain.
				for _, id := range s.snapshotIDs(t) {
					if id != m.cfg.RootFS.DiffIDs[0].Encoded() {
						t.Errorf("snapshot %s is left", id)
					}
				}
				// Without layers of their own, snapshots are made one after the other, and blobs
				// are fetched ahead: a blob that matches its digest may be in the store.
				intact := strings.HasPrefix(tt.name, "diff ID") || tt.name == "no tar"
				if ok, _ := s.store.Exists(t.Context(), m.man.Layers[1]); ok &&
					(s.snapshots.Layered() || !intact) {
					t.Error("the blob is left")
				}
				if l := s.left(t); len(l) != 0 {
					t.Errorf("left over: %v", l)
				}
			})
		}
	}
}

// TestDamagedInStore damages a blob in the store, which must be fetched again.
func TestDamagedInStore(t *testing.T) {
	o := newOrigin(t)
	m := imageOf(t, "file a 0644 "+strings.Repeat("x", 100_000))
	o.tag("base:1", m)
	s := newState(t)
	img, err := s.Pull(t.Context(), o.host+"/base:1", ResolveOptions{}, UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path := s.store.Path(m.man.Layers[0].Digest)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2]++
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if img, err = s.Resolve(t.Context(), o.host+"/base:1", ResolveOptions{}); err != nil ||
		img.Origin != FromStore {
		t.Fatalf("%v, %v", img, err)
	}
	if _, _, err := s.Unpack(t.Context(), img, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Read(t.Context(), m.man.Layers[0]); err != nil {
		t.Errorf("the store still has the bad one: %v", err)
	}
}

// TestLazy unpacks on snapshots whose blobs have been removed.
func TestLazy(t *testing.T) {
	o := newOrigin(t)
	m := imageOf(t, "file a 0644 1", "file b 0644 2")
	o.tag("base:1", m)
	s := newState(t)
	img, err := s.Resolve(t.Context(), o.host+"/base:1", ResolveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Unpack(t.Context(), img, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.man.Layers {
		if err := os.Remove(s.store.Path(l.Digest)); err != nil {
			t.Fatal(err)
		}
	}
	o.requests()
	if _, cached, err := s.Unpack(t.Context(), img, UnpackOptions{}); err != nil || !cached ||
		len(o.requests()) != 0 {
		t.Errorf("Unpack: %v, cached %v", err, cached)
	}
	if err := s.Ensure(t.Context(), img, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := o.requests(); len(got) != 2 {
		t.Errorf("Ensure asked %q", got)
	}
	// The record of an earlier process is enough to fetch the image, too.
	if err := os.Remove(s.store.Path(m.man.Layers[0].Digest)); err != nil {
		t.Fatal(err)
	}
	s = openState(t, s.dir, s.snapshots.Driver())
	if img, err = s.Resolve(t.Context(), o.host+"/base:1", ResolveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Ensure(t.Context(), img, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestOrder(t *testing.T) {
	o := newOrigin(t)
	theirs, ours := imageOf(t, "file theirs 0644 1"), imageOf(t, "file ours 0644 2")
	o.tag("app:latest", theirs)
	s := newState(t)
	ctx := t.Context()
	for d, b := range ours.blobs {
		if got, err := s.store.Write(ctx, "x", b); err != nil || got.Digest != d {
			t.Fatal(err)
		}
	}
	name := o.host + "/app"
	resolve := func(pull bool) *Image {
		t.Helper()
		img, err := s.Resolve(ctx, name, ResolveOptions{Pull: pull})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	if img := resolve(false); img.Origin != FromRegistry ||
		img.Descriptor.Digest != theirs.desc.Digest {
		t.Errorf("nothing here yet: %s from %s", img.Descriptor.Digest, img.Origin)
	}
	if err := s.store.Tag(ctx, name, ours.desc); err != nil {
		t.Fatal(err)
	}
	if img := resolve(false); img.Origin != FromStore || img.Descriptor.Digest != ours.desc.Digest {
		t.Errorf("built here: %s from %s", img.Descriptor.Digest, img.Origin)
	}
	if img := resolve(true); img.Descriptor.Digest != theirs.desc.Digest {
		t.Errorf("with Pull: %s from %s", img.Descriptor.Digest, img.Origin)
	}
	for _, ref := range []string{name + "@" + theirs.desc.Digest.String(),
		theirs.desc.Digest.String()} {
		o.requests()
		img, err := s.Resolve(ctx, ref, ResolveOptions{})
		if err != nil || img.Descriptor.Digest != theirs.desc.Digest {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := s.Resolve(ctx, digest.FromString("nothing").String(),
		ResolveOptions{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a digest that no image has: %v", err)
	}
	for _, ref := range []string{ours.desc.Digest.String(), ours.man.Config.Digest.String(),
		name + "@" + ours.desc.Digest.String()} {
		if img, err := s.Resolve(ctx, ref, ResolveOptions{Pull: true}); err != nil ||
			img.Descriptor.Digest != ours.desc.Digest {
			t.Errorf("%s: %v", ref, err)
		}
	}
	// A second resolve takes one request if the image is unchanged, and finds a changed image.
	o.requests()
	resolve(true)
	if got := o.requests(); !slices.Equal(got, []string{"HEAD /v2/app/manifests/latest"}) {
		t.Errorf("unchanged: %q", got)
	}
	newer := imageOf(t, "file newer 0644 3")
	o.tag("app:latest", newer)
	if img := resolve(true); img.Descriptor.Digest != newer.desc.Digest {
		t.Error("changed: the old one was taken")
	}
	// The documents of images without a name are roots.
	roots, err := s.Roots()
	if err != nil || !slices.ContainsFunc(roots,
		func(d ocispec.Descriptor) bool { return d.Digest == newer.desc.Digest }) {
		t.Errorf("Roots = %v, %v", roots, err)
	}
	from, err := s.Origins(ctx)
	if err != nil || !slices.Equal(from(newer.man.Config.Digest), []string{name}) {
		t.Errorf("Origins = %v, %v", from(newer.man.Config.Digest), err)
	}
	if _, err := s.Resolve(ctx, o.host+"/none", ResolveOptions{}); !errors.Is(err,
		registry.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	for _, bad := range []string{"UPPER", "", "a b", "docker-image://"} {
		if _, err := s.Resolve(ctx, bad, ResolveOptions{}); err == nil {
			t.Errorf("%q resolves", bad)
		}
	}
}

func TestPlatforms(t *testing.T) {
	o := newOrigin(t)
	m := imageOf(t, "file a 0644 1")
	m.cfg.Platform = ocispec.Platform{OS: "linux", Architecture: "s390x"}
	m.seal(t)
	child := m.desc
	child.Platform = &m.cfg.Platform
	ix, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{child}})
	if err != nil {
		t.Fatal(err)
	}
	m.desc = m.add(ocispec.MediaTypeImageIndex, ix)
	o.tag("app:latest", m)
	s := newState(t)
	want := ResolveOptions{Platform: m.cfg.Platform}
	img, err := s.Pull(t.Context(), o.host+"/app", want, UnpackOptions{})
	if err != nil || img.Platform.Architecture != "s390x" || img.Root.Digest != m.desc.Digest ||
		img.Descriptor.Digest != child.Digest {
		t.Fatalf("%+v, %v", img, err)
	}
	if err := s.store.Tag(t.Context(), "index", m.desc); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), o.host+"/app", ResolveOptions{Pull: true}); !errors.Is(err,
		registry.ErrNoPlatform) {
		t.Errorf("for this machine: %v", err)
	}
	if img, err := s.Resolve(t.Context(), "index", want); err != nil || img.Origin != FromStore {
		t.Errorf("from the store: %v", err)
	}
	// An index without the platforms of its images.
	other := imageOf(t, "file a 0644 2")
	ix, err = json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{other.desc,
			{MediaType: child.MediaType, Digest: child.Digest, Size: child.Size}}})
	if err != nil {
		t.Fatal(err)
	}
	bare := other.add(ocispec.MediaTypeImageIndex, ix)
	for _, b := range []ocispec.Descriptor{other.desc, other.man.Config, bare} {
		if err := s.store.Push(t.Context(), b, bytes.NewReader(other.blobs[b.Digest])); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.store.Tag(t.Context(), "bare", bare); err != nil {
		t.Fatal(err)
	}
	if img, err := s.Resolve(t.Context(), "bare", want); err != nil ||
		img.Descriptor.Digest != child.Digest {
		t.Errorf("of an index without platforms: %v", err)
	}
	if img, err := s.Resolve(t.Context(), "bare", ResolveOptions{Any: true}); err != nil ||
		img.Descriptor.Digest != other.desc.Digest || !img.IsIndex() {
		t.Errorf("any of an index: %v", err)
	}
}

func TestNotAnImage(t *testing.T) {
	o := newOrigin(t)
	chart := imageOf(t)
	chart.man.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
	data, _ := json.Marshal(chart.man)
	chart.desc = chart.add(chart.man.MediaType, data)
	o.tag("chart:1", chart)
	crypt := imageOf(t, "file a 0644 1")
	crypt.man.Layers[0].MediaType += "+encrypted"
	crypt.seal(t)
	o.tag("crypt:1", crypt)
	short := imageOf(t, "file a 0644 1")
	short.cfg.RootFS.DiffIDs = nil
	short.seal(t)
	o.tag("short:1", short)
	s := newState(t)
	for ref, want := range map[string]string{"chart:1": "helm", "crypt:1": "encrypted",
		"short:1": "it has 1 layers, and its configuration names 0"} {
		if _, err := s.Resolve(t.Context(), o.host+"/"+ref, ResolveOptions{}); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", ref, err, want)
		}
	}
}

func TestFewAndManyLayers(t *testing.T) {
	o := newOrigin(t)
	o.tag("none:1", imageOf(t))
	o.tag("empty:1", imageOf(t, "", "", ""))
	var many []string
	for i := range 150 {
		many = append(many, fmt.Sprintf("file f%03d 0644 %d", i, i))
	}
	o.tag("many:1", imageOf(t, many...))
	s := newState(t)
	for _, tt := range []struct {
		ref   string
		snaps int
		files int
	}{{"none:1", 0, 0}, {"empty:1", 3, 0}, {"many:1", 153, 150}} {
		img, err := s.Resolve(t.Context(), o.host+"/"+tt.ref, ResolveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		top, _, err := s.Unpack(t.Context(), img, UnpackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if (top == "") != (len(img.Manifest.Layers) == 0) {
			t.Errorf("%s: top %q", tt.ref, top)
		}
		if n := strings.Count(s.tree(t, top), "\n"); n != tt.files {
			t.Errorf("%s: %d files, want %d", tt.ref, n, tt.files)
		}
		if n := len(s.snapshotIDs(t)); n != tt.snaps {
			t.Errorf("%s: %d snapshots, want %d", tt.ref, n, tt.snaps)
		}
	}
}

// TestCancelled cancels one of two builds while both wait for one layer. The other one does not
// fail with the cause, which need not be context.Canceled: an errgroup cancels its goroutines with
// the error of the first one that fails.
func TestCancelled(t *testing.T) {
	for _, driver := range drivers(t) {
		t.Run(driver, func(t *testing.T) {
			o := newOrigin(t)
			m := imageOf(t, "file a 0644 1", "file b 0644 2")
			o.tag("base:1", m)
			s := openState(t, t.TempDir(), driver)
			img, err := s.Resolve(t.Context(), o.host+"/base:1", ResolveOptions{})
			if err != nil {
				t.Fatal(err)
			}
			asked, go_ := make(chan bool, 10), make(chan bool)
			var first atomic.Bool
			o.mu.Lock()
			o.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, m.man.Layers[0].Digest.String()) &&
					first.CompareAndSwap(false, true) {
					asked <- true
					select {
					case <-r.Context().Done():
					case <-go_:
					}
				}
				return false
			}
			o.mu.Unlock()
			ctx, cancel := context.WithCancelCause(t.Context())
			cause := errors.New("another layer has failed")
			givenUp, other := make(chan error, 1), make(chan error, 1) // either one may end first
			go func() {
				_, _, err := s.Unpack(ctx, img, UnpackOptions{})
				givenUp <- err
			}()
			<-asked
			var top snapshot.ID
			go func() {
				var err error
				top, _, err = s.Unpack(t.Context(), img, UnpackOptions{})
				other <- err
			}()
			// The other one waits for each layer. Where layers are unpacked at the same time, the
			// second layer of the first one waits for its parent.
			waits := 1
			if s.snapshots.Layered() {
				waits = 3
			}
			awaitStack(waits, "memo.(*Call[...]).Wait(")
			cancel(cause)
			if err := <-givenUp; !errors.Is(err, cause) {
				t.Errorf("the one that was given up: %v", err)
			}
			if err := <-other; err != nil {
				t.Errorf("the other: %v", err)
			}
			close(go_)
			if got := s.tree(t, top); got != "file a 0644 1\nfile b 0644 2\n" {
				t.Errorf("tree:\n%s", got)
			}
			if l := s.left(t); len(l) != 0 {
				t.Errorf("left over: %v", l)
			}
		})
	}
}

// awaitStack waits until n goroutines are in a function.
func awaitStack(n int, function string) {
	for stacks := make([]byte, 1<<20); bytes.Count(stacks[:runtime.Stack(stacks, true)],
		[]byte(function)) < n; {
		time.Sleep(time.Millisecond)
	}
}

// TestCancelledWaiting cancels a build that waits until layers of other images are unpacked: it
// gets the cause, not the snapshot below the layers that were not unpacked.
func TestCancelledWaiting(t *testing.T) {
	o := newOrigin(t)
	o.tag("base:1", imageOf(t, "file a 0644 1", "file b 0644 2"))
	for _, driver := range drivers(t) {
		s := openState(t, t.TempDir(), driver)
		img, err := s.Resolve(t.Context(), o.host+"/base:1", ResolveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range cap(s.slots) {
			s.slots <- struct{}{}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("another layer has failed")
		unpacked := make(chan error)
		go func() {
			_, _, err := s.Unpack(ctx, img, UnpackOptions{})
			unpacked <- err
		}()
		awaitStack(1, "image.(*unpacking).acquire(")
		cancel(cause)
		if err := <-unpacked; !errors.Is(err, cause) {
			t.Errorf("%s: Unpack: %v, want the cause", driver, err)
		}
		for range cap(s.slots) {
			<-s.slots
		}
		if _, _, err := s.Unpack(t.Context(), img, UnpackOptions{}); err != nil {
			t.Errorf("%s: the next Unpack: %v", driver, err)
		}
	}
}

// writeLayout writes images under names as an OCI layout.
func writeLayout(t testing.TB, dir string, images map[string]*made) {
	t.Helper()
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex}
	for name, m := range images {
		for d, b := range m.blobs {
			write(t, filepath.Join(dir, "blobs", "sha256", d.Encoded()), b)
		}
		d := m.desc
		if name != "" {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		}
		ix.Manifests = append(ix.Manifests, d)
	}
	data, err := json.Marshal(ix)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "index.json"), data)
	write(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// archiveOf packs a directory.
func archiveOf(t testing.TB, dir string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return buf.Bytes()
}

func TestLayouts(t *testing.T) {
	dir := t.TempDir()
	a, b := imageOf(t, "file a 0644 1"), imageOf(t, "file b 0644 2", "dir a 0755\nfile a/c 0644 3")
	writeLayout(t, filepath.Join(dir, "one"), map[string]*made{"docker.io/library/app:v1": a})
	writeLayout(t, filepath.Join(dir, "two"), map[string]*made{"v1": a, "latest": b})
	writeLayout(t, filepath.Join(dir, "odd:name"), map[string]*made{"": a})
	writeLayout(t, filepath.Join(dir, "empty"), nil)
	write(t, filepath.Join(dir, "nothing", "file"), nil)
	write(t, filepath.Join(dir, "two.tar"), archiveOf(t, filepath.Join(dir, "two")))
	gz, _ := compress(archiveOf(t, filepath.Join(dir, "one")), "gzip")
	write(t, filepath.Join(dir, "one.tar.gz"), gz)
	write(t, filepath.Join(dir, "junk.tar"), []byte("junk"))
	t.Chdir(dir)
	tests := []struct {
		ref  string
		want *made
		err  string
	}{
		{ref: "oci-layout://" + dir + "/one", want: a},
		{ref: "oci-layout://one:v1", want: a},
		{ref: "oci-layout://one:app:v1", want: a},
		{ref: "oci:./one:docker.io/library/app:v1", want: a},
		{ref: "oci:one:v1", want: a},
		{ref: "oci-layout://one:v2", err: `no image "v2": there is docker.io/library/app:v1`},
		{ref: "oci-layout://two", want: b},
		{ref: "oci-layout://two:v1", want: a},
		{ref: "oci-layout://two:v1@" + b.desc.Digest.String(), want: b},
		{ref: "oci-layout://two@" + a.desc.Digest.String(), want: a},
		{ref: "oci-layout://two@" + digest.FromString("x").String(), err: "no image sha256:"},
		{ref: "oci-layout://odd:name", want: a},
		{ref: "oci-archive:./two.tar:v1", want: a},
		{ref: "oci-layout://two.tar", want: b},
		{ref: "oci-layout://one.tar.gz:v1", want: a},
		{ref: "oci-layout://empty", err: "holds no image"},
		{ref: "oci-layout://nothing", err: "neither an OCI image layout nor"},
		{ref: "oci-layout://none", err: "no such file"},
		{ref: "oci-layout://", err: "no path"},
		{ref: "oci-archive:./junk.tar", err: "junk.tar"},
		{ref: "docker-archive:./two.tar", err: "neither an OCI image layout nor"},
	}
	for _, tt := range tests {
		t.Run(tt.ref, func(t *testing.T) {
			s := newState(t)
			img, err := s.Resolve(t.Context(), tt.ref, ResolveOptions{})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if img.Descriptor.Digest != tt.want.desc.Digest || img.Origin != FromLayout {
				t.Errorf("got %s from %s", img.Descriptor.Digest, img.Origin)
			}
			if _, _, err := s.Unpack(t.Context(), img, UnpackOptions{}); err != nil {
				t.Error(err)
			}
			if err := s.Ensure(t.Context(), img, UnpackOptions{}); err != nil {
				t.Error(err)
			}
			u, err := s.store.Usage(t.Context(), img.Descriptor)
			if err != nil || u.Missing != 0 {
				t.Errorf("the store lacks %d blobs: %v", u.Missing, err)
			}
		})
	}
	if !HasPlace("oci-layout://one") || !HasPlace("oci:./one") || HasPlace("oci:latest") ||
		HasPlace("busybox") || HasPlace("docker-image://a") {
		t.Error("IsPath")
	}
}

// TestDockerArchive reads archives in the formats of skopeo and of old versions of docker, which
// did not write layouts.
func TestDockerArchive(t *testing.T) {
	m := imageOf(t, "file a 0644 1", "file b 0644 2", "file c 0644 3")
	cfg := m.blobs[m.man.Config.Digest]
	dir := t.TempDir()
	build := func(name string, layer func(i int, plain []byte) []byte, names ...string) string {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		file := func(name string, data []byte) {
			w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644,
				Typeflag: tar.TypeReg})
			w.Write(data)
		}
		var layers []string
		for i, text := range []string{"file a 0644 1", "file b 0644 2", "file c 0644 3"} {
			file(fmt.Sprintf("l%d/layer.tar", i), layer(i, tarOf(t, text)))
			// docker links layers that several images have.
			w.WriteHeader(&tar.Header{Name: fmt.Sprintf("other%d/layer.tar", i),
				Typeflag: tar.TypeSymlink, Linkname: fmt.Sprintf("../l%d/layer.tar", i)})
			layers = append(layers, fmt.Sprintf("other%d/layer.tar", i))
		}
		file("config.json", cfg)
		var list []dockerImage
		for _, n := range names {
			list = append(list, dockerImage{Config: "config.json",
				RepoTags: []string{n}, Layers: layers})
		}
		data, _ := json.Marshal(list)
		file("manifest.json", data)
		w.Close()
		path := filepath.Join(dir, name)
		write(t, path, buf.Bytes())
		return path
	}
	plain := func(_ int, b []byte) []byte { return b }
	paths := map[string]string{
		"docker-archive:" + build("plain.tar", plain,
			"app:1"): "",
		"docker-archive:" + dir +
			"/plain.tar:app:1": "",
		"docker-archive:" + dir +
			"/plain.tar:docker.io/app:2": "no image",
		"oci-layout://" + build("two.tar", plain, "a:1",
			"b:1"): "holds several images, name one of them: a:1, b:1",
		"oci-layout://" + dir + "/two.tar:b:1": "",
		"docker-archive:" + build("none.tar",
			plain): "holds no image",
		"docker-archive:" + build("damaged.tar",
			func(i int, b []byte) []byte { b[len(b)-600]++; return b }, "x:1"): "damaged",
		"docker-archive:" + build("gz.tar", func(i int, b []byte) []byte {
			z, _ := compress(b, []string{"gzip", "zstd", ""}[i])
			return z
		}, "x:1"): "",
	}
	if skopeo, err := exec.LookPath("skopeo"); err == nil {
		z := imageOf(t)
		// docker's format does not accept zstd
		for _, text := range []string{"file a 0644 1", "file b 0644 2", "file c 0644 3"} {
			data, mediaType := compress(tarOf(t, text), "gzip")
			z.man.Layers = append(z.man.Layers, z.add(mediaType, data))
		}
		z.cfg = m.cfg
		z.seal(t)
		writeLayout(t, filepath.Join(dir, "layout"), map[string]*made{"v1": z})
		write(t, filepath.Join(dir, "policy.json"),
			[]byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))
		cmd := exec.Command(skopeo, "--policy", filepath.Join(dir, "policy.json"), "copy",
			"oci:"+filepath.Join(dir, "layout")+":v1",
			"docker-archive:"+filepath.Join(dir, "skopeo.tar")+":app:9")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		paths["docker-archive:"+dir+"/skopeo.tar:app:9"] = ""
	}
	for ref, want := range paths {
		t.Run(strings.TrimPrefix(ref, dir), func(t *testing.T) {
			s := newState(t)
			img, err := s.Resolve(t.Context(), ref, ResolveOptions{})
			var top snapshot.ID
			if err == nil {
				top, _, err = s.Unpack(t.Context(), img, UnpackOptions{})
			}
			if want != "" {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := s.tree(t, top); got != "file a 0644 1\nfile b 0644 2\nfile c 0644 3\n" {
				t.Errorf("tree:\n%s", got)
			}
			if u, err := s.store.Usage(t.Context(), img.Descriptor); err != nil ||
				u.Missing != 0 || len(u.Blobs) != 5 {
				t.Errorf("the store has %v, %v", u, err)
			}
		})
	}
}

// FuzzArchive reads invalid archives and layouts. None may cause a panic or a read outside of them.
func FuzzArchive(f *testing.F) {
	m := imageOf(f, "file a 0644 1")
	dir := f.TempDir()
	writeLayout(f, dir, map[string]*made{"v1": m})
	f.Add(archiveOf(f, dir))
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, data := range map[string]string{"manifest.json": `[{"Config":"c","Layers":["l"]}]`,
		"c": `{"rootfs":{"diff_ids":["x"]}}`, "l": ""} {
		w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644})
		io.WriteString(w, data)
	}
	w.Close()
	f.Add(buf.Bytes())
	s := newState(f)
	path := filepath.Join(f.TempDir(), "x.tar")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		img, err := s.Resolve(t.Context(), "oci-layout://"+path, ResolveOptions{})
		if err == nil {
			if img.Descriptor.Digest.Validate() != nil ||
				len(img.Manifest.Layers) != len(img.Config.RootFS.DiffIDs) {
				t.Errorf("an image that is not valid was taken: %+v", img)
			}
		}
		s.Close()
	})
}

func BenchmarkUnpack(b *testing.B) {
	var text strings.Builder
	for i := range 500 {
		fmt.Fprintf(&text, "file f%04d 0644 %s\n", i, strings.Repeat(fmt.Sprint(i*i), 2000))
	}
	m := imageOf(b, text.String())
	o := newOrigin(b)
	o.tag("base:1", m)
	plain := len(tarOf(b, text.String()))
	b.SetBytes(int64(plain))
	for b.Loop() {
		b.StopTimer()
		s := newState(b)
		b.StartTimer()
		img, err := s.Resolve(b.Context(), o.host+"/base:1", ResolveOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := s.Unpack(b.Context(), img, UnpackOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWarm measures the cost of a base image whose layers are unpacked already.
func BenchmarkWarm(b *testing.B) {
	m := imageOf(b, "file a 0644 1", "file b 0644 2", "file c 0644 3")
	o := newOrigin(b)
	o.tag("base:1", m)
	s := newState(b)
	for b.Loop() {
		img, err := s.Resolve(b.Context(), o.host+"/base:1", ResolveOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := s.Unpack(b.Context(), img, UnpackOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestOwners unpacks files of many users. If their ids cannot be set, there is one warning and the
// build continues.
func TestOwners(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, of a user namespace at least")
	}
	m := imageOf(t)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range 3 {
		w.WriteHeader(&tar.Header{Name: fmt.Sprint("f", i), Mode: 0o644, Uid: 7 * i, Gid: 8 * i,
			Typeflag: tar.TypeReg})
	}
	w.Close()
	m.man.Layers = append(m.man.Layers, m.add(ocispec.MediaTypeImageLayer, buf.Bytes()))
	m.cfg.RootFS.DiffIDs = append(m.cfg.RootFS.DiffIDs, digest.FromBytes(buf.Bytes()))
	m.seal(t)
	dir := t.TempDir()
	writeLayout(t, dir, map[string]*made{"v1": m})
	s := newState(t)
	img, err := s.Resolve(t.Context(), "oci-layout://"+dir, ResolveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	top, _, err := s.Unpack(t.Context(), img, UnpackOptions{Sink: func(e event.Event) {
		if w, ok := e.(event.Warning); ok {
			warnings = append(warnings, w.Message)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	info, err := ns.Current()
	if err != nil {
		t.Fatal(err)
	}
	if info.SingleID {
		if len(warnings) != 1 || !strings.HasPrefix(warnings[0],
			"2 files of v1 belong to users without ids in /etc/subuid and /etc/subgid (f1 belongs to 7:8)") {
			t.Errorf("warnings: %q", warnings)
		}
		return
	}
	c, err := s.snapshots.Changes(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	got, err := fstree.Print(c.Dir, fstree.Show{Owners: true})
	if want := "file f0 0644 root:root\nfile f1 0644 7:8\nfile f2 0644 14:16\n"; got != want ||
		err != nil || len(warnings) != 0 {
		t.Errorf("got\n%s%v\nwant\n%s\nwarnings: %q", got, err, want, warnings)
	}
}

// TestUnpackAs checks that the snapshot has the name that Top returned, also if another process
// records the same files under another name in between.
func TestUnpackAs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: directories that a layer implies belong to 0:0")
	}
	for _, driver := range drivers(t) {
		t.Run(driver, func(t *testing.T) {
			o := newOrigin(t)
			o.tag("base:1", imageOf(t, layers...))
			s := openState(t, t.TempDir(), driver)
			img, err := s.Resolve(t.Context(), o.host+"/base:1", ResolveOptions{})
			if err != nil {
				t.Fatal(err)
			}
			id, ok, err := s.Top(t.Context(), img)
			if err != nil || ok || string(id) != img.ChainID().Encoded() {
				t.Fatalf("Top = %s, %v, %v before the image was unpacked", id, ok, err)
			}
			active, err := s.snapshots.Prepare(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			const other = snapshot.ID("other")
			if err := active.Commit(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			if err := s.cache.PutChain(t.Context(), img.ChainID(), string(other)); err != nil {
				t.Fatal(err)
			}
			if got, ok, err := s.Top(t.Context(), img); got != other || !ok || err != nil {
				t.Errorf("Top = %s, %v, %v after the chain was recorded", got, ok, err)
			}
			if _, err := s.UnpackAs(t.Context(), img, id, UnpackOptions{}); err != nil {
				t.Fatal(err)
			}
			if got, want := s.tree(t, id), s.tree(t, other); got != want {
				t.Errorf("tree:\n%s\nwant:\n%s", got, want)
			}
			if l := s.left(t); len(l) != 0 {
				t.Errorf("left over: %v", l)
			}
			// Again, with both names.
			if _, err := s.UnpackAs(t.Context(), img, id, UnpackOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEnsureChecked checks that the layers of an image that was not unpacked are read, once, and
// that another diffID is an error.
func TestEnsureChecked(t *testing.T) {
	o := newOrigin(t)
	good := imageOf(t, layers...)
	o.tag("good:1", good)
	s := openState(t, t.TempDir(), "copy")
	img, err := s.Resolve(t.Context(), o.host+"/good:1", ResolveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.EnsureChecked(t.Context(), img, UnpackOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	blobs := 0
	for _, r := range o.requests() {
		if strings.Contains(r, "/blobs/") {
			blobs++
		}
	}
	if blobs != 5 { // four layers and the configuration
		t.Errorf("%d blobs were fetched, want 5", blobs)
	}
	if _, ok, err := s.Top(t.Context(), img); ok || err != nil {
		t.Errorf("the image was unpacked: %v, %v", ok, err)
	}
	bad := *img
	bad.Config.RootFS.DiffIDs = slices.Clone(img.Config.RootFS.DiffIDs)
	bad.Config.RootFS.DiffIDs[1] = digest.FromString("other")
	err = s.EnsureChecked(t.Context(), &bad, UnpackOptions{})
	if err == nil || !strings.Contains(err.Error(), "its content has the digest") {
		t.Errorf("another diffID: error %v", err)
	}
}
