package layers

import (
	"io"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
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
		sealed <- d
		select {
		case <-first:
			<-goOn
		default:
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
