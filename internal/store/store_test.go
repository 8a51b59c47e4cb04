package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/lock/locktest"
	"github.com/layerbuild/layerbuild/internal/workertest"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func openTest(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "oci"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d, err := s.Ingest(t.Context(), mediaType, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func putJSON(t testing.TB, s *Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return put(t, s, mediaType, data)
}

// emptyTar is a layer: two blocks of zeros.
var emptyTar = make([]byte, 1024)

// putImage stores an image with one unique layer, and returns its manifest.
func putImage(t testing.TB, s *Store, seed string) ocispec.Descriptor {
	t.Helper()
	layer := put(t, s, ocispec.MediaTypeImageLayer, emptyTar)
	created := time.Unix(1700000000, 0).UTC()
	config := putJSON(t, s, ocispec.MediaTypeImageConfig, ocispec.Image{
		Author: seed, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
		History: []ocispec.History{{Created: &created, CreatedBy: "test"}},
	})
	own := put(t, s, "application/octet-stream", []byte("only "+seed))
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config, Layers: []ocispec.Descriptor{layer},
		Annotations: map[string]string{"own": own.Digest.String()}}
	return putJSON(t, s, ocispec.MediaTypeImageManifest, m)
}

func blobFiles(t testing.TB, s *Store) []string {
	t.Helper()
	var out []string
	for _, dir := range []string{filepath.Join(s.dir, "blobs", "sha256"), s.tmp()} {
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			out = append(out, n.Name())
		}
	}
	return out
}

func TestIngestAndFetch(t *testing.T) {
	s := openTest(t)
	for _, size := range []int{0, 1, 4096, 3<<20 + 17} {
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{}).Read(data)
		d := put(t, s, "application/octet-stream", data)
		if want := (ocispec.Descriptor{MediaType: "application/octet-stream",
			Digest: digest.FromBytes(data), Size: int64(size)}); !cmp.Equal(d, want) {
			t.Errorf("Ingest of %d bytes = %v, want %v", size, d, want)
		}
		r, err := s.Fetch(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("Fetch of %d bytes: %d bytes, %v", size, len(got), err)
		}
		r.Close()
		if ok, err := s.Exists(t.Context(), d); !ok || err != nil {
			t.Errorf("Exists = %v, %v", ok, err)
		}
	}
	if _, err := s.Fetch(t.Context(), ocispec.Descriptor{Digest: digest.FromString("no"),
		Size: 2}); !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Fetch of a missing blob: %v, want ErrNotFound", err)
	}
	for _, bad := range []digest.Digest{"", "sha256:../../../etc/passwd", "sha256:abc", "x:y"} {
		if _, err := s.Fetch(t.Context(), ocispec.Descriptor{Digest: bad}); err == nil {
			t.Errorf("Fetch(%q) succeeds", bad)
		}
		if p := s.Path(bad); p != "" {
			t.Errorf("Path(%q) = %q", bad, p)
		}
	}
}

func TestIngestKeepsNothingOnError(t *testing.T) {
	s := openTest(t)
	boom := errors.New("boom")
	_, err := s.Ingest(t.Context(), "x", func(w io.Writer) error {
		w.Write([]byte("half"))
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("Ingest: %v, want the writer's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.Ingest(ctx, "x", func(w io.Writer) error {
		cancel()
		_, err := w.Write([]byte("late"))
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Ingest after cancel: %v", err)
	}
	if got := blobFiles(t, s); len(got) != 0 {
		t.Errorf("files left: %v", got)
	}
}

func TestIngestAs(t *testing.T) {
	good := []byte("the content")
	want := ocispec.Descriptor{MediaType: "x", Digest: digest.FromBytes(good),
		Size: int64(len(good))}
	tests := []struct {
		name  string
		data  string
		fail  error
		wrong bool
	}{
		{name: "right", data: "the content"},
		{name: "short", data: "the conten", wrong: true},
		{name: "long", data: "the content and more", wrong: true},
		{name: "other", data: "the c0ntent", wrong: true},
		{name: "other, and the reader stumbles over it", data: "the c0ntent",
			fail: errors.New("not a tar"), wrong: true},
		{name: "right, and the reader fails", data: "the content", fail: errors.New("disk full")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openTest(t)
			err := s.IngestAs(t.Context(), want, func(w io.Writer) error {
				if _, err := io.WriteString(w, tt.data); err != nil {
					return err
				}
				return tt.fail
			})
			switch {
			case tt.wrong && !errors.Is(err, ErrDamaged):
				t.Errorf("error %v, want ErrDamaged", err)
			case !tt.wrong && !errors.Is(err, tt.fail):
				t.Errorf("error %v, want %v", err, tt.fail)
			}
			if got := len(blobFiles(t, s)); (err == nil) != (got == 1) {
				t.Errorf("%d files after %v", got, err)
			}
		})
	}
	t.Run("sha512", func(t *testing.T) {
		s := openTest(t)
		d := ocispec.Descriptor{Digest: digest.SHA512.FromBytes(good), Size: int64(len(good))}
		if err := s.Push(t.Context(), d, bytes.NewReader(good)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Read(t.Context(), d); err != nil || !bytes.Equal(got, good) {
			t.Errorf("Read = %q, %v", got, err)
		}
	})
}

func TestDamagedBlob(t *testing.T) {
	for _, tt := range []struct{ name, now string }{
		{"same size", "the c0ntent"}, {"cut", "the"}, {"longer", "the content!"}, {"empty", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openTest(t)
			d := put(t, s, "x", []byte("the content"))
			if err := os.WriteFile(s.Path(d.Digest), []byte(tt.now), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Read(t.Context(), d); !errors.Is(err, ErrDamaged) {
				t.Errorf("Read: %v, want ErrDamaged", err)
			}
			// It has been removed, and can be stored again.
			if _, err := os.Lstat(s.Path(d.Digest)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the damaged blob is still there: %v", err)
			}
			put(t, s, "x", []byte("the content"))
			if got, err := s.Read(t.Context(), d); err != nil || string(got) != "the content" {
				t.Errorf("Read of the new one = %q, %v", got, err)
			}
		})
	}
	t.Run("cut, then stored again unread", func(t *testing.T) {
		s := openTest(t)
		d := put(t, s, "x", []byte("the content"))
		if err := os.Truncate(s.Path(d.Digest), 3); err != nil {
			t.Fatal(err)
		}
		put(t, s, "x", []byte("the content"))
		if got, err := s.Read(t.Context(), d); err != nil || string(got) != "the content" {
			t.Errorf("Read = %q, %v", got, err)
		}
	})
}

func TestName(t *testing.T) {
	d := strings.Repeat("a", 64)
	tests := []struct{ in, want string }{
		{"app", "docker.io/library/app:latest"},
		{"app:1", "docker.io/library/app:1"},
		{"docker.io/app", "docker.io/library/app:latest"},
		{"me/app", "docker.io/me/app:latest"},
		{"localhost:5000/app", "localhost:5000/app:latest"},
		{"r.example/a/b/c:x", "r.example/a/b/c:x"},
		{"app:1@sha256:" + d, "docker.io/library/app@sha256:" + d},
		{"APP", ""}, {"", ""}, {"a b", ""}, {"app:", ""},
	}
	for _, tt := range tests {
		got, err := Name(tt.in)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("Name(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestTags(t *testing.T) {
	s := openTest(t)
	ctx := t.Context()
	a, b := putImage(t, s, "a"), putImage(t, s, "b")
	if err := s.Tag(ctx, "app", a); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"app", "app:latest", "docker.io/library/app", a.Digest.String(),
		"app@" + a.Digest.String()} {
		if got, err := s.Resolve(ctx, n); err != nil || got.Digest != a.Digest {
			t.Errorf("Resolve(%q) = %v, %v", n, got.Digest, err)
		}
	}
	for _, n := range []string{"app:1", "other", b.Digest.String()} {
		if _, err := s.Resolve(ctx, n); !errors.Is(err, ErrNotFound) {
			t.Errorf("Resolve(%q): %v, want ErrNotFound", n, err)
		}
	}
	// The other form of the name is the same name.
	if err := s.Tag(ctx, "docker.io/library/app:latest", b); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, "app:1", b); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, "", a); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, "", a); err != nil {
		t.Fatal(err)
	}
	list, err := s.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.Name+" "+e.Descriptor.Digest.String())
		if time.Since(e.Tagged) > time.Hour || e.Descriptor.Annotations != nil {
			t.Errorf("entry %v", e)
		}
	}
	want := []string{" " + a.Digest.String(), "docker.io/library/app:1 " + b.Digest.String(),
		"docker.io/library/app:latest " + b.Digest.String()}
	if !slices.Equal(got, want) {
		t.Errorf("Names = %v, want %v", got, want)
	}
	// Resolve by the digest of the configuration, docker's image ID.
	var m ocispec.Manifest
	data, _ := s.Read(ctx, b)
	json.Unmarshal(data, &m)
	if got, err := s.Resolve(ctx, m.Config.Digest.String()); err != nil || got.Digest != b.Digest {
		t.Errorf("Resolve by configuration = %v, %v", got, err)
	}
	if _, err := s.Untag(ctx, "app"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Untag(ctx, "app"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second Untag: %v", err)
	}
	if _, err := s.Untag(ctx, a.Digest.String()); err != nil {
		t.Error(err)
	}
	if err := s.Tag(ctx, "x", ocispec.Descriptor{Digest: digest.FromString("gone"),
		Size: 4}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Tag of a missing blob: %v", err)
	}
	if err := s.Tag(ctx, "x@"+a.Digest.String(), a); err == nil {
		t.Error("a name with a digest can be given")
	}
}

func TestForeignIndex(t *testing.T) {
	s := openTest(t)
	d := putImage(t, s, "a")
	index := fmt.Sprintf(`{"schemaVersion":2,"unknown":{"a":1},"manifests":[
		{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"v1","keep":"me"}},
		{"mediaType":"application/x-thing","digest":"sha256:%064x","size":7}]}`, d.MediaType, d.Digest, d.Size, 5)
	if err := os.WriteFile(s.index(), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	// "v1" is a tag that another tool wrote. It is parsed as an image name.
	got, err := s.Resolve(t.Context(), "v1")
	if err != nil || got.Digest != d.Digest || got.Annotations["keep"] != "me" {
		t.Errorf("Resolve = %v, %v", got, err)
	}
	if err := s.Tag(t.Context(), "new", d); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(s.index())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"unknown":{"a":1}`, `"keep":"me"`, `application/x-thing`,
		`"docker.io/library/new:latest"`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("index.json has lost or lacks %s: %s", part, data)
		}
	}
}

func TestCollect(t *testing.T) {
	s := openTest(t)
	ctx := t.Context()
	named, rooted, loose := putImage(t, s, "named"), putImage(t, s, "rooted"),
		putImage(t, s, "loose")
	index := putJSON(t, s, ocispec.MediaTypeImageIndex,
		ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageIndex,
			Manifests: []ocispec.Descriptor{named,
				{MediaType: ocispec.MediaTypeImageManifest,
					Digest: digest.FromString("elsewhere"), Size: 9}}})
	if err := s.Tag(ctx, "x", index); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.tmp(), "blob-dead"),
		[]byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := s.Usage(ctx, index)
	if err != nil || len(u.Blobs) != 4 || u.Missing != 1 {
		t.Errorf("Usage = %v, %v, want 4 blobs and 1 missing", u, err)
	}
	if c, err := s.Collect(ctx, CollectOptions{Roots: []ocispec.Descriptor{rooted},
		Grace: time.Hour}); err != nil || c != (Collected{}) {
		t.Errorf("Collect spares nothing: %v, %v", c, err)
	}
	dry, err := s.Collect(ctx, CollectOptions{Roots: []ocispec.Descriptor{rooted}, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	before := blobFiles(t, s)
	c, err := s.Collect(ctx, CollectOptions{Roots: []ocispec.Descriptor{rooted}})
	if err != nil || c != dry {
		t.Errorf("Collect = %v, %v, the dry run said %v", c, err, dry)
	}
	// loose's manifest and config, and the blob beside each of the three images.
	if c.Blobs != 5 || c.Files != 1 || len(before)-len(blobFiles(t, s)) != 6 {
		t.Errorf("Collect = %v", c)
	}
	for _, d := range []ocispec.Descriptor{named, rooted, index} {
		if ok, _ := s.Exists(ctx, d); !ok {
			t.Errorf("%s is gone", d.Digest)
		}
	}
	if ok, _ := s.Exists(ctx, loose); ok {
		t.Error("the loose image is still there")
	}
	// A layer that two images share is removed with the last image.
	if _, err := s.Untag(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(ctx, CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := blobFiles(t, s); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// TestCanceled cancels the methods that wait for the lock of index.json.
func TestCanceled(t *testing.T) {
	for _, test := range []struct {
		name string
		call func(ctx context.Context, s *Store, image ocispec.Descriptor) error
		want string // the names afterwards
	}{
		{"Open", func(ctx context.Context, s *Store, _ ocispec.Descriptor) error {
			if err := os.RemoveAll(s.index()); err != nil { // a layout that is not complete
				return err
			}
			_, err := Open(ctx, s.dir, Options{})
			return err
		}, "one"},
		{"Tag", func(ctx context.Context, s *Store, image ocispec.Descriptor) error {
			return s.Tag(ctx, "two", image)
		}, "one two"},
		{"Untag", func(ctx context.Context, s *Store, _ ocispec.Descriptor) error {
			_, err := s.Untag(ctx, "one")
			return err
		}, ""},
		{"Forget", func(ctx context.Context, s *Store, image ocispec.Descriptor) error {
			return s.Forget(ctx, Entry{Descriptor: image})
		}, "one"},
		{"Collect", func(ctx context.Context, s *Store, _ ocispec.Descriptor) error {
			_, err := s.Collect(ctx, CollectOptions{})
			return err
		}, "one"},
		{"Names of a damaged index", func(ctx context.Context, s *Store,
			_ ocispec.Descriptor) error {
			if err := os.WriteFile(s.index(), []byte("damaged"), 0o644); err != nil {
				return err
			}
			_, err := s.Names(ctx)
			return err
		}, "one"},
		{"Resolve in a damaged index", func(ctx context.Context, s *Store,
			_ ocispec.Descriptor) error {
			if err := os.WriteFile(s.index(), []byte("damaged"), 0o644); err != nil {
				return err
			}
			_, err := s.Resolve(ctx, "one")
			return err
		}, "one"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openTest(t)
			image := putImage(t, s, "one")
			if err := s.Tag(t.Context(), "one", image); err != nil {
				t.Fatal(err)
			}
			locktest.Canceled(t, filepath.Join(s.dir, "lock"), func(ctx context.Context) error {
				return test.call(ctx, s, image)
			})
			list, err := s.Names(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range list {
				name := strings.TrimPrefix(e.Name, "docker.io/library/")
				names = append(names, strings.TrimSuffix(name, ":latest"))
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("the names are %q, want %q", got, test.want)
			}
			if ok, err := s.Exists(t.Context(), image); err != nil || !ok {
				t.Errorf("the image is there: %v, %v", ok, err)
			}
			if left, err := os.ReadDir(s.tmp()); err != nil || len(left) > 0 {
				t.Errorf("left in tmp: %v, %v", left, err)
			}
		})
	}
}

// TestLeaseFails checks that a blob that cannot be leased is neither used nor stored.
func TestLeaseFails(t *testing.T) {
	s := openTest(t)
	image := putImage(t, s, "one")
	failed := errors.New("not leased")
	s.o.Lease = func(context.Context, digest.Digest, bool) error { return failed }
	ctx := t.Context()
	write := func(w io.Writer) error {
		_, err := io.WriteString(w, "new")
		return err
	}
	second := func(_ any, err error) error { return err }
	_, _, graph := s.Graph(ctx, image)
	for what, err := range map[string]error{
		"Exists": second(s.Exists(ctx, image)), "Fetch": second(s.Fetch(ctx, image)),
		"Read": second(s.Read(ctx, image)), "Write": second(s.Write(ctx, "x", []byte("new"))),
		"Ingest": second(s.Ingest(ctx, "x", write)), "Tag": s.Tag(ctx, "one", image),
		"Usage": second(s.Usage(ctx, image)), "Verify": s.Verify(ctx, image), "Graph": graph,
	} {
		if !errors.Is(err, failed) {
			t.Errorf("%s = %v, want the error of Lease", what, err)
		}
	}
	s.o.Lease = nil
	if ok, err := s.Exists(ctx, ocispec.Descriptor{Digest: digest.FromString("new"),
		Size: 3}); err != nil || ok {
		t.Errorf("the blob that was not leased is there: %v, %v", ok, err)
	}
	if left, err := os.ReadDir(s.tmp()); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}

// TestConcurrent stores and names the same and different images in goroutines of several processes.
func TestConcurrent(t *testing.T) {
	dir := workertest.Run(t, 3, func(dir, worker string) error {
		s, err := Open(t.Context(), filepath.Join(dir, "oci"), Options{})
		if err != nil {
			return err
		}
		for i := range 15 {
			same := bytes.Repeat([]byte{byte(i)}, 50_000)
			d, err := s.Ingest(context.Background(), "x", func(w io.Writer) error {
				for chunk := range slices.Chunk(same, 7777) {
					if _, err := w.Write(chunk); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			if _, err := s.Read(context.Background(), d); err != nil {
				return err
			}
			if err := s.Tag(context.Background(), fmt.Sprintf("w%s:%d", worker, i), d); err != nil {
				return err
			}
			if _, err := s.Resolve(context.Background(),
				fmt.Sprintf("w%s:%d", worker, i)); err != nil {
				return err
			}
		}
		return nil
	})
	s, err := Open(t.Context(), filepath.Join(dir, "oci"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Names(t.Context())
	if err != nil || len(list) != 6*15 {
		t.Errorf("%d names, %v, want 90: an update got lost", len(list), err)
	}
	if got := blobFiles(t, s); len(got) != 15 {
		t.Errorf("%d files, want 15: %v", len(got), got)
	}
}

// TestKilledInTheMiddle kills a process that stores blobs. Only its temporary files are collected
// as left over.
func TestKilledInTheMiddle(t *testing.T) {
	if dir := os.Getenv("STORE_VICTIM"); dir != "" {
		s, err := Open(t.Context(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s.Ingest(context.Background(), "x", func(w io.Writer) error {
			w.Write(make([]byte, 1<<20))
			fmt.Println("written")
			select {}
		})
		return
	}
	s := openTest(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledInTheMiddle$")
	cmd.Env = append(os.Environ(), "STORE_VICTIM="+s.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("written"))); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if names, _ := os.ReadDir(filepath.Join(s.dir, "blobs", "sha256")); len(names) != 0 {
		t.Errorf("half a blob has a name: %v", names)
	}
	c, err := s.Collect(t.Context(), CollectOptions{})
	if err != nil || c.Files != 1 || c.Bytes != 1<<20 || c.Blobs != 0 {
		t.Errorf("Collect = %v, %v, want the one temporary file", c, err)
	}
}

// TestOtherTools reads and writes the layout with skopeo and umoci.
func TestOtherTools(t *testing.T) {
	for _, tool := range []string{"skopeo", "umoci"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	s := openTest(t)
	for _, n := range []string{"app", "localhost:5000/group/app:v1.2"} {
		if err := s.Tag(t.Context(), n, putImage(t, s, n)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", cmd, err, out)
		}
	}
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`),
		0o644); err != nil {
		t.Fatal(err)
	}
	for _, full := range []string{"docker.io/library/app:latest", "localhost:5000/group/app:v1.2"} {
		run("skopeo", "--policy", policy, "copy", "oci:"+s.dir+":"+full,
			"oci:"+filepath.Join(t.TempDir(), "copy")+":x")
		run("umoci", "stat", "--image", s.dir+":"+full)
		run("umoci", "unpack", "--rootless", "--image", s.dir+":"+full,
			filepath.Join(t.TempDir(), "bundle"))
	}
	run("umoci", "ls", "--layout", s.dir)
	run("skopeo", "--policy", policy, "copy", "oci:"+s.dir+":docker.io/library/app:latest",
		"oci:"+s.dir+":theirs")
	got, err := s.Resolve(t.Context(), "theirs")
	if err != nil {
		t.Fatal(err)
	}
	if want, err := s.Resolve(t.Context(), "app"); err != nil || got.Digest != want.Digest {
		t.Errorf("what skopeo wrote is %v, want %v (%v)", got.Digest, want.Digest, err)
	}
	if c, err := s.Collect(t.Context(), CollectOptions{}); err != nil || c.Blobs != 2 {
		t.Errorf("Collect = %v, %v, want only the two blobs that no image has", c, err)
	}
	run("skopeo", "--policy", policy, "copy", "oci:"+s.dir+":theirs",
		"oci:"+filepath.Join(t.TempDir(), "copy")+":x")
}

func TestOpenForeignLayout(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": `{"schemaVersion":2,"manifests":[]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), "a", put(t, s, "x", []byte("1"))); err != nil {
		t.Error(err)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"sha256:` +
		strings.Repeat("0", 64) +
		`","size":1,"annotations":{"org.opencontainers.image.ref.name":"x"}}]}`))
	f.Add([]byte(`null`))
	f.Add([]byte(``))
	f.Add([]byte(`{"manifests":null,"mediaType":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ix, err := parseIndex(data)
		if err != nil {
			return
		}
		out, err := ix.encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := parseIndex(out)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, out)
		}
		if !slices.EqualFunc(again.manifests, ix.manifests, func(a, b ocispec.Descriptor) bool {
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			return bytes.Equal(x, y)
		}) {
			t.Errorf("%v became %v", ix.manifests, again.manifests)
		}
		for _, e := range ix.manifests {
			if n := entryName(e); n != "" && e.Annotations[annotationTagged] == "" {
				if again, err := Name(n); err != nil || again != n {
					t.Errorf("the name %q of an entry is not a full name: %q, %v", n, again, err)
				}
			}
		}
	})
}

func BenchmarkIngest(b *testing.B) {
	s := openTest(b)
	chunk := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(chunk)
	b.SetBytes(16 << 20)
	for i := 0; b.Loop(); i++ {
		chunk[0], chunk[1], chunk[2] = byte(i), byte(i>>8), byte(i>>16)
		d, err := s.Ingest(b.Context(), "x", func(w io.Writer) error {
			for range 16 {
				if _, err := w.Write(chunk); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		os.Remove(s.Path(d.Digest))
	}
}

func BenchmarkFetch(b *testing.B) {
	s := openTest(b)
	d := put(b, s, "x", make([]byte, 16<<20))
	buf := make([]byte, 256<<10)
	b.SetBytes(d.Size)
	for b.Loop() {
		r, err := s.Fetch(b.Context(), d)
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err = r.Read(buf); err != nil {
				break
			}
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		r.Close()
	}
}

func BenchmarkResolve(b *testing.B) {
	s := openTest(b)
	d := put(b, s, "x", []byte("1"))
	for i := range 100 {
		if err := s.Tag(b.Context(), fmt.Sprintf("app:%d", i), d); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := s.Resolve(b.Context(), "app:50"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDescriptorIsWrong checks that a descriptor with a wrong size, which may come from anywhere,
// does not remove a good blob.
func TestDescriptorIsWrong(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Write(t.Context(), "text/plain", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	wrong := d
	wrong.Size = 3
	if _, err := s.Fetch(t.Context(), wrong); !errors.Is(err, ErrDamaged) {
		t.Errorf("Fetch = %v, want ErrDamaged", err)
	}
	if ok, err := s.Exists(t.Context(), wrong); ok || err != nil {
		t.Errorf("Exists = %v, %v", ok, err)
	}
	if _, err := s.Read(t.Context(), d); err != nil {
		t.Errorf("the good blob is gone: %v", err)
	}
	if err := os.WriteFile(s.Path(d.Digest), []byte("c0ntent"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), "text/plain", []byte("content")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context(), d); err != nil {
		t.Errorf("what is written again does not replace what is damaged: %v", err)
	}
}
