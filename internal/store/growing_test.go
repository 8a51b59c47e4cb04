package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// TestWatched writes blobs and reads them meanwhile.
func TestWatched(t *testing.T) {
	content := make([]byte, 3*watchSize+12345)
	rand.NewChaCha8([32]byte{}).Read(content)
	failed := errors.New("the compressor failed")
	for _, tt := range []struct {
		name    string
		size    int
		err     error
		watched bool
	}{
		{"small", watchSize - 1, nil, false},
		{"large", len(content), nil, true},
		{"failing", 2 * watchSize, failed, true},
		{"failing early", 100, failed, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openTest(t)
			var wg sync.WaitGroup
			begun := 0
			var growing *Growing
			w := s.Watched(func(g *Growing) {
				begun++
				growing = g
				for range 3 {
					r, err := g.Open(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					wg.Go(func() {
						defer r.Close()
						got, err := io.ReadAll(r)
						if !errors.Is(err, tt.err) {
							t.Errorf("read: error %v, want %v", err, tt.err)
						}
						if err == nil && !bytes.Equal(got, content[:tt.size]) ||
							!bytes.HasPrefix(content, got) {
							t.Errorf("%d other bytes were read", len(got))
						}
						d, err := g.Wait(t.Context())
						if !errors.Is(err, tt.err) ||
							err == nil && d.Digest != digest.FromBytes(content[:tt.size]) {
							t.Errorf("Wait = %v, %v", d, err)
						}
						if _, ok := g.Result(); ok != (tt.err == nil) {
							t.Errorf("Result reports %v", ok)
						}
					})
				}
				if _, ok := g.Result(); ok {
					t.Error("Result reports a complete blob")
				}
			})
			d, err := w.Ingest(t.Context(), "type", func(w io.Writer) error {
				for rest := content[:tt.size]; len(rest) > 0; {
					n := min(len(rest), 100_000)
					if _, err := w.Write(rest[:n]); err != nil {
						return err
					}
					rest = rest[n:]
				}
				return tt.err
			})
			wg.Wait()
			if !errors.Is(err, tt.err) {
				t.Errorf("Ingest returns %v, want %v", err, tt.err)
			}
			if (begun > 0) != tt.watched || begun > 1 {
				t.Errorf("begun was called %d times", begun)
			}
			if growing == nil {
				return
			}
			if _, err := growing.Open(t.Context()); err != os.ErrClosed {
				t.Errorf("Open afterwards: error %v, want ErrClosed", err)
			}
			if tt.err == nil {
				if ok, err := s.Exists(t.Context(), d); !ok || err != nil {
					t.Errorf("Exists = %v, %v", ok, err)
				}
			}
		})
	}
}

// A reader that waits for bytes ends with its context.
func TestWatchedCanceled(t *testing.T) {
	s := openTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	w := s.Watched(func(g *Growing) {
		r, err := g.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer r.Close()
			_, err := io.Copy(io.Discard, r)
			ended <- err
		}()
		go func() {
			_, err := g.Wait(ctx)
			ended <- err
		}()
	})
	_, err := w.Ingest(t.Context(), "type", func(w io.Writer) error {
		if _, err := w.Write(make([]byte, watchSize)); err != nil {
			return err
		}
		cancel()
		for range 2 {
			select {
			case err := <-ended:
				if err != context.Canceled {
					t.Errorf("error %v, want %v", err, context.Canceled)
				}
			case <-time.After(20 * time.Second):
				t.Error("it still waits")
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
