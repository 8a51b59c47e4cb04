package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestSealCallsOut has the sealer find two layers in the store. While the function that it calls
// for the first one has not returned, other layers are sealed, also those of the same source.
func TestSealCallsOut(t *testing.T) {
	st, err := state.Open(t.Context(), state.Options{Root: t.TempDir(), Driver: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	sealed, goOn := make(chan ocispec.Descriptor, 2), make(chan struct{})
	first := make(chan struct{}, 1)
	first <- struct{}{}
	s := NewSealer(t.Context(), SealerOptions{State: st, Sealed: func(d ocispec.Descriptor) {
		waits := false
		select {
		case <-first: // before another layer can be sealed
			waits = true
		default:
		}
		sealed <- d
		if waits {
			<-goOn
		}
	}})
	for _, id := range []string{"a", "b"} {
		d, err := st.Store.Ingest(t.Context(), ocispec.MediaTypeImageLayer,
			func(w io.Writer) error { _, err := io.WriteString(w, id); return err })
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Cache.PutSealed(t.Context(), id, s.Format(), cache.Layer{Descriptor: d,
			DiffID: d.Digest}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		s.Seal(&Layer{Snapshot: "a"})
		close(done)
	}()
	<-sealed
	for _, id := range []snapshot.ID{"b", "a"} {
		l := &Layer{Snapshot: id}
		began := make(chan struct{})
		go func() {
			s.Seal(l)
			close(began)
		}()
		select {
		case <-began:
		case <-time.After(20 * time.Second): // only a failing test takes this long
			t.Fatalf("Seal of %q waits for the function called for another layer", id)
		}
		if err := l.Wait(t.Context()); err != nil || l.Descriptor.Size != 1 {
			t.Errorf("layer %q: descriptor %+v, error %v", id, l.Descriptor, err)
		}
	}
	close(goOn)
	<-done
	s.Wait()
}

// TestSeal seals the layers of a chain of snapshots, in two builds.
func TestSeal(t *testing.T) {
	drivers(t, func(t *testing.T, f *fixture) {
		f.commit("one", "", "dir d 0755\nfile d/a 0644 1\nfile d/b 0644 1\n")
		f.commit("two", "one", "file d/a 0600 22\nremove d/b\nfifo d/f 0644\nfile d/.wh.x 0644\n")
		for build := range 2 {
			s := NewSealer(t.Context(), f.options())
			f.sealed, f.warned = nil, nil
			list := []*Layer{{Snapshot: "one", Text: "RUN 1"}, {Snapshot: "two", Text: "RUN 2"},
				{Snapshot: "two", NoOp: true}, {Snapshot: "one", NoOp: true},
				{Snapshot: "two", Text: "RUN 2 again"}}
			for _, l := range list {
				s.Seal(l)
				s.Seal(l) // does nothing
			}
			for _, l := range list {
				if err := l.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			s.Wait()
			for i, want := range []string{
				"dir d 0755\nfile d/a 0644 \"1\"\nfile d/b 0644 \"1\"",
				"dir d 0755\nwhiteout d/b\nfile d/a 0600 \"22\"\nfifo d/f 0644", "", "",
				"dir d 0755\nwhiteout d/b\nfile d/a 0600 \"22\"\nfifo d/f 0644"} {
				got := strings.Split(f.entries(list[i].Descriptor), "\n")
				slices.Sort(got)
				entries := strings.Split(want, "\n")
				slices.Sort(entries)
				if diff := cmp.Diff(entries, got); diff != "" {
					t.Errorf("build %d, layer %d: %s", build, i, diff)
				}
			}
			if want := map[int][]string{0: {"RUN 2: d/.wh.x: "}}; len(f.warned) != len(want[build]) ||
				len(f.warned) > 0 && !strings.HasPrefix(f.warned[0], want[build][0]) {
				t.Errorf("build %d: warnings %q", build, f.warned)
			}
			digests := map[digest.Digest]bool{}
			for _, d := range f.sealed {
				digests[d.Digest] = true
			}
			if len(f.sealed) != 3 || len(digests) != 3 {
				t.Errorf("build %d: Sealed was called with %v, want each of three layers once",
					build, f.sealed)
			}
			if want := []string{"", "one", "two"}; !slices.Equal(f.seals(), want) {
				t.Errorf("build %d: records of %q, want %q", build, f.seals(), want)
			}
		}
	})
}

// TestSealFails seals layers that cannot be sealed. All layers of the same source get the error,
// and nothing is recorded.
func TestSealFails(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		id   snapshot.ID
		set  func(f *fixture, o *SealerOptions)
		want error
		text string
	}{
		{"no such snapshot", "gone", nil, snapshot.ErrNotExist, `seal the layer of "RUN x": `},
		{"a lazy snapshot that cannot be made", "lazy", func(_ *fixture, o *SealerOptions) {
			o.Lazy.Add("lazy", func(context.Context) error { return broken })
		}, broken, `seal the layer of "RUN x": broken`},
		{"an unknown compression", "one", func(_ *fixture, o *SealerOptions) {
			o.Format.Compression = "none such"
		}, nil, `seal the layer of "RUN x": `},
		{"a store that cannot be written", "one", func(f *fixture, _ *SealerOptions) {
			dir := filepath.Join(f.state.Root, "oci/tmp")
			if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
				f.Fatal(err)
			}
		}, nil, `seal the layer of "RUN x": `},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, "copy")
			f.commit("one", "", "file a 0644 1\n")
			o := f.options()
			if tt.set != nil {
				tt.set(f, &o)
			}
			s := NewSealer(t.Context(), o)
			lines := parser.Range{Start: 3, End: 4}
			list := []*Layer{{Snapshot: tt.id, Text: "RUN x", Lines: lines},
				{Snapshot: tt.id, Text: "RUN y"}}
			for _, l := range list {
				s.Seal(l)
			}
			for _, l := range list {
				err := l.Wait(t.Context())
				if err == nil || tt.want != nil && !errors.Is(err, tt.want) ||
					!strings.Contains(err.Error(), tt.text) {
					t.Errorf("error %v, want %q and %v", err, tt.text, tt.want)
				}
				e, ok := errors.AsType[*Error](err)
				if !ok || e.Lines != lines {
					t.Errorf("error %+v, want one of the lines %v", err, lines)
				}
			}
			s.Wait()
			if len(f.sealed) > 0 || len(f.seals()) > 0 {
				t.Errorf("sealed %v, recorded %q", f.sealed, f.seals())
			}
		})
	}
}

// TestSealCanceled ends the context of the build while a layer waits for others to be written. It
// is not sealed, and a Wait with another context returns the cause.
func TestSealCanceled(t *testing.T) {
	f := newFixture(t, "copy")
	f.commit("one", "", "file a 0644 1\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := NewSealer(ctx, f.options())
	for range cap(s.slots) {
		s.slots <- struct{}{}
	}
	l := &Layer{Snapshot: "one", Text: "RUN x"}
	s.Seal(l)
	own, end := context.WithCancel(t.Context())
	end()
	if err := l.Wait(own); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with a context that has ended: %v", err)
	}
	if id, err := s.ChainID(own, []*Layer{l}); id != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("ChainID with a context that has ended: %q, %v", id, err)
	}
	stop := errors.New("stop")
	cancel(stop)
	if err := l.Wait(t.Context()); err != stop {
		t.Errorf("Wait: error %v, want the cause", err)
	}
	s.Wait()
	if len(f.sealed) > 0 || len(f.seals()) > 0 {
		t.Errorf("sealed %v, recorded %q", f.sealed, f.seals())
	}
}

// TestSealSlots has as many layers written at once as there are slots. A further one is written
// when one of them is done.
func TestSealSlots(t *testing.T) {
	f := newFixture(t, "copy")
	o := f.options()
	begun, goOn := make(chan snapshot.ID), make(chan struct{})
	var list []*Layer
	for i := range max(2, runtime.GOMAXPROCS(0)) + 1 {
		id := f.commit(snapshot.ID(fmt.Sprint("s", i)), "", fmt.Sprintf("file a 0644 %d\n", i))
		o.Lazy.Add(id, func(context.Context) error {
			begun <- id
			<-goOn
			return nil
		})
		list = append(list, &Layer{Snapshot: id})
	}
	s := NewSealer(t.Context(), o)
	for _, l := range list {
		s.Seal(l)
	}
	first := map[snapshot.ID]bool{}
	for range len(list) - 1 {
		first[<-begun] = true
	}
	select {
	case id := <-begun:
		t.Errorf("%s is written beside %v", id, first)
	default:
	}
	goOn <- struct{}{}
	if last := <-begun; first[last] {
		t.Errorf("%s is written twice", last)
	}
	close(goOn)
	for _, l := range list {
		if err := l.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestChainID computes the chain ID of layers, of which some are of an image, some have been
// sealed, and some are sealed by the call.
func TestChainID(t *testing.T) {
	f := newFixture(t, "copy")
	f.commit("one", "", "file a 0644 1\n")
	s := NewSealer(t.Context(), f.options())
	if id, err := s.ChainID(t.Context(), nil); id != "" || err != nil {
		t.Errorf("the chain ID of no layers is %q, %v", id, err)
	}
	list := []*Layer{{Base: &image.Image{}, DiffID: digest.FromString("base")}, {Snapshot: "one"},
		{NoOp: true}}
	s.Seal(list[2])
	got, err := s.ChainID(t.Context(), list)
	want := identity.ChainID([]digest.Digest{list[0].DiffID, list[1].DiffID, list[2].DiffID})
	if got != want || err != nil || list[1].DiffID == "" {
		t.Errorf("ChainID = %s, %v, want %s", got, err, want)
	}
	if _, err := s.ChainID(t.Context(), []*Layer{list[0], {Snapshot: "gone"}}); !errors.Is(err,
		snapshot.ErrNotExist) {
		t.Errorf("ChainID of a missing snapshot: %v", err)
	}
}

// TestSealTables checks that the tables for package analyze are kept if they are requested, and
// that the layers are the same.
func TestSealTables(t *testing.T) {
	f := newFixture(t, "copy")
	f.commit("one", "", "file a 0644 1\n")
	f.commit("two", "", "file a 0644 1\n")
	o := f.options()
	plain, tables := &Layer{Snapshot: "one"}, &Layer{Snapshot: "one"}
	if _, err := NewSealer(t.Context(), o).ChainID(t.Context(), []*Layer{plain}); err != nil {
		t.Fatal(err)
	}
	if kept := f.state.Kept("tables"); len(kept) > 0 {
		t.Errorf("tables of %v", kept)
	}
	o.Tables = true
	o.Format.Compression = "none" // in another format, so that it is sealed
	if _, err := NewSealer(t.Context(), o).ChainID(t.Context(), []*Layer{tables}); err != nil {
		t.Fatal(err)
	}
	if kept := f.state.Kept("tables"); !slices.Equal(kept,
		[]digest.Digest{tables.Descriptor.Digest}) || tables.DiffID != plain.DiffID {
		t.Errorf("tables of %v, want %v; diffIDs %s, %s", kept, tables.Descriptor.Digest,
			tables.DiffID, plain.DiffID)
	}
}
