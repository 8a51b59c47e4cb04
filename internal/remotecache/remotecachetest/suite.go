package remotecachetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Machine is a machine that uses a cache. It has a state of its own.
type Machine struct {
	State  *state.State
	Images *image.Resolver
	Client *registry.Client
}

// NewMachine returns a machine whose state is empty and is removed when the test ends.
func NewMachine(t testing.TB) *Machine {
	t.Helper()
	st, err := state.Open(t.Context(), state.Options{Root: t.TempDir(), Driver: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	client := registry.New(registry.Options{Backoff: 5 * time.Millisecond})
	m := &Machine{State: st, Client: client, Images: image.New(image.Options{Store: st.Store,
		Cache: st.Cache, Snapshots: st.Snapshots, Registry: client})}
	t.Cleanup(func() {
		if err := errors.Join(m.Images.Close(), client.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// Layer adds a layer with about size bytes to the store of the machine. Layers with different seeds
// are different.
func (m *Machine) Layer(t testing.TB, seed uint64, size int) (ocispec.Descriptor, digest.Digest) {
	t.Helper()
	content := make([]byte, size)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := range content {
		content[i] = byte(rnd.Uint32())
	}
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(size)})
	if err == nil {
		_, err = w.Write(content)
	}
	z := gzip.NewWriter(&packed)
	if err = errors.Join(err, w.Close()); err == nil {
		_, err = z.Write(plain.Bytes())
	}
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	d, err := m.State.Store.Write(t.Context(), ocispec.MediaTypeImageLayerGzip, packed.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return d, digest.FromBytes(plain.Bytes())
}

// Fetch fetches a layer of an artifact into the store of the machine.
func (m *Machine) Fetch(t testing.TB, from *image.Artifact, d ocispec.Descriptor,
	diffID digest.Digest) error {
	t.Helper()
	img, err := from.Layer(d, diffID)
	if err != nil {
		return err
	}
	return m.Images.EnsureLayer(t.Context(), img, image.UnpackOptions{})
}

// name returns the name of a document of a test.
func name(i int) string { return fmt.Sprintf("layerbuild-1-%064x", i) }

// Test tests a store. open returns it as a machine uses it: all that it returns are one cache.
func Test(t *testing.T, open func(t *testing.T, m *Machine) remotecache.Store) {
	one, two := NewMachine(t), NewMachine(t)
	s := suite{t: t, one: one, two: two, writer: open(t, one), reader: open(t, two)}
	t.Run("documents", func(t *testing.T) { s.on(t).documents() })
	t.Run("layers", func(t *testing.T) { s.on(t).layers() })
	t.Run("concurrent", func(t *testing.T) { s.on(t).concurrent() })
	if _, ok := s.writer.(remotecache.Catalog); ok {
		t.Run("catalog", func(t *testing.T) { s.on(t).catalog() })
	}
	if _, ok := s.writer.(remotecache.Leaser); ok {
		t.Run("leases", func(t *testing.T) { s.on(t).leases() })
	}
}

// suite tests a store that one machine writes and another one reads.
type suite struct {
	t              *testing.T
	one, two       *Machine
	writer, reader remotecache.Store
}

func (s suite) on(t *testing.T) suite {
	s.t = t
	return s
}

// put writes a document.
func (s suite) put(name, data string, blobs ...ocispec.Descriptor) {
	s.t.Helper()
	if err := s.writer.Put(s.t.Context(), name, []byte(data), blobs); err != nil {
		s.t.Fatalf("Put(%s): %v", name, err)
	}
}

// wants checks the content of a document.
func (s suite) wants(name, want string) *image.Artifact {
	s.t.Helper()
	got, from, err := s.reader.Get(s.t.Context(), name)
	if err != nil || string(got) != want || from == nil {
		s.t.Fatalf("Get(%s) = %d bytes, %v, %v, want %d bytes", name, len(got), from, err,
			len(want))
	}
	return from
}

// wantsNone checks that there is no document.
func (s suite) wantsNone(name string) {
	s.t.Helper()
	got, _, err := s.reader.Get(s.t.Context(), name)
	if !errors.Is(err, remotecache.ErrNoDocument) {
		s.t.Fatalf("Get(%s) = %q, %v, want ErrNoDocument", name, got, err)
	}
}

func (s suite) documents() {
	s.wantsNone(name(1))
	s.put(name(1), `{"a":1}`)
	s.wants(name(1), `{"a":1}`)
	s.wantsNone(name(2))
	s.put(name(2), `{"b":2}`)
	s.put(name(1), `{"a":"another"}`)
	s.wants(name(1), `{"a":"another"}`)
	s.wants(name(2), `{"b":2}`)
	hint := strings.Repeat(`{"records": "<>&"}`, 100_000) // 1.8 MB
	s.put("layerbuild-hint-1-abc", hint)
	s.wants("layerbuild-hint-1-abc", hint)
}

func (s suite) layers() {
	a, aID := s.one.Layer(s.t, 1, 100)
	b, bID := s.one.Layer(s.t, 2, 3<<20)
	for range 2 {
		for _, d := range []ocispec.Descriptor{a, b} {
			if err := s.writer.Send(s.t.Context(), d); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	s.put(name(10), "layers", a, b)
	from := s.wants(name(10), "layers")
	for _, l := range []struct {
		d    ocispec.Descriptor
		diff digest.Digest
	}{{a, aID}, {b, bID}} {
		if err := s.two.Fetch(s.t, from, l.d, aID); (err == nil) != (l.diff == aID) {
			s.t.Errorf("layer %s with the diffID %s: %v", l.d.Digest, aID, err)
		}
		if err := s.two.Fetch(s.t, from, l.d, l.diff); err != nil {
			s.t.Error(err)
		}
		r, err := s.two.State.Store.Fetch(s.t.Context(), l.d)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			s.t.Error(err)
		}
		r.Close()
	}
	missing := ocispec.Descriptor{MediaType: a.MediaType, Digest: digest.FromString("x"), Size: 1}
	if err := s.two.Fetch(s.t, from, missing, aID); err == nil {
		s.t.Error("a layer that was not sent was fetched")
	}
	if err := s.writer.Send(s.t.Context(), missing); err == nil {
		s.t.Error("a blob that this machine does not have was sent")
	}
}

func (s suite) concurrent() {
	var wg sync.WaitGroup
	for i := range 8 {
		d, id := s.one.Layer(s.t, uint64(100+i), 1000)
		wg.Go(func() {
			text := fmt.Sprint("document ", i)
			err := s.writer.Send(s.t.Context(), d)
			if err == nil {
				err = s.writer.Put(s.t.Context(), name(100+i), []byte(text),
					[]ocispec.Descriptor{d})
			}
			if err != nil {
				s.t.Errorf("%d: %v", i, err)
				return
			}
			got, from, err := s.reader.Get(s.t.Context(), name(100+i))
			if err == nil && string(got) != text {
				err = fmt.Errorf("document %q", got)
			}
			if err == nil {
				err = s.two.Fetch(s.t, from, d, id)
			}
			if err != nil {
				s.t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func (s suite) catalog() {
	ctx := s.t.Context()
	catalog := s.writer.(remotecache.Catalog)
	d, id := s.one.Layer(s.t, 20, 2000)
	if err := s.writer.Send(ctx, d); err != nil {
		s.t.Fatal(err)
	}
	s.put(name(20), "kept", d)
	s.put(name(21), "deleted")
	list := func() (names []string) {
		s.t.Helper()
		err := catalog.List(ctx, func(name string) error {
			names = append(names, name)
			return nil
		})
		if err != nil {
			s.t.Fatal(err)
		}
		return names
	}
	for _, i := range []int{20, 21} {
		if got := list(); !slices.Contains(got, name(i)) {
			s.t.Errorf("the list lacks %s: %q", name(i), got)
		}
	}
	if err := catalog.Delete(ctx, name(21)); err != nil {
		s.t.Error(err)
	}
	if err := catalog.Delete(ctx, name(21)); !errors.Is(err, remotecache.ErrNoDocument) {
		s.t.Errorf("a document that does not exist is deleted: %v", err)
	}
	if got := list(); slices.Contains(got, name(21)) || !slices.Contains(got, name(20)) {
		s.t.Errorf("after the deletion the list is %q", got)
	}
	stop := errors.New("stop")
	if err := catalog.List(ctx, func(string) error { return stop }); !errors.Is(err, stop) {
		s.t.Errorf("the list ends with %v", err)
	}
	s.wantsNone(name(21))
	_, _, err := catalog.Sweep(ctx, time.Now().Add(time.Hour),
		func(other digest.Digest) bool { return other == d.Digest })
	if err != nil {
		s.t.Error(err)
	}
	if err := s.two.Fetch(s.t, s.wants(name(20), "kept"), d, id); err != nil {
		s.t.Errorf("a layer in use was swept: %v", err)
	}
}

func (s suite) leases() {
	ctx := s.t.Context()
	take := func(store remotecache.Store, name string) io.Closer {
		s.t.Helper()
		l, err := store.(remotecache.Leaser).Lease(ctx, name)
		if err != nil {
			s.t.Fatal(err)
		}
		return l
	}
	end := func(l io.Closer) {
		s.t.Helper()
		if l == nil {
			s.t.Fatal("the lease is not free")
		}
		if err := l.Close(); err != nil {
			s.t.Error(err)
		}
	}
	first := take(s.writer, "a")
	for _, store := range []remotecache.Store{s.writer, s.reader} {
		if take(store, "a") != nil {
			s.t.Error("two machines have one lease")
		}
	}
	end(take(s.reader, "b"))
	end(first)
	end(take(s.reader, "a"))
	var mu sync.Mutex
	var wg sync.WaitGroup
	var got []io.Closer
	for i := range 8 {
		store := []remotecache.Store{s.writer, s.reader}[i%2]
		wg.Go(func() {
			l, err := store.(remotecache.Leaser).Lease(ctx, "c")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.t.Error(err)
			}
			if l != nil {
				got = append(got, l)
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		s.t.Errorf("%d of 8 have the lease, want 1", len(got))
	}
	for _, l := range got {
		end(l)
	}
}
