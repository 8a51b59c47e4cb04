package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pieceServer serves a blob, and a client that downloads it in pieces of 10,000 bytes.
func pieceServer(t *testing.T, size int) (*server, *Source, ocispec.Descriptor, []byte) {
	t.Helper()
	s := newServer(t, false)
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(content)
	d := s.blobs.add(ocispec.MediaTypeImageLayerGzip, content)
	c := newClient(t, "")
	c.o.Ranges, c.o.Piece = 30_000, 10_000
	src, err := c.Source(s.host + "/a:1")
	if err != nil {
		t.Fatal(err)
	}
	return s, src, d, content
}

// partial answers a request for a range with other headers or bytes.
func partial(w http.ResponseWriter, r *http.Request, content []byte, contentRange string) {
	var first, last int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil {
		last = len(content) - 1
	}
	if contentRange == "" {
		contentRange = fmt.Sprintf("bytes %d-%d/%d", first, last, len(content))
	}
	w.Header().Set("Content-Range", contentRange)
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(content[first : last+1])
}

// TestPieces downloads blobs from servers that treat ranges in different ways.
func TestPieces(t *testing.T) {
	isBlob := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
	}
	for _, tt := range []struct {
		name string
		size int
		// answer may answer the request for a piece, the nth one.
		answer   func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool
		requests int // 0: any number
		err      string
	}{
		{name: "small", size: 29_999, requests: 1},
		{name: "whole pieces", size: 100_000, requests: 10},
		{name: "a short last piece", size: 100_001, requests: 11},
		{
			name: "a server without ranges", size: 100_000, requests: 1,
			answer: func(w http.ResponseWriter, _ *http.Request, _ int, content []byte) bool {
				_, _ = w.Write(content)
				return true
			},
		},
		{
			name: "ranges for the first piece only", size: 50_000, requests: 5,
			answer: func(w http.ResponseWriter, _ *http.Request, n int, content []byte) bool {
				if n > 1 {
					_, _ = w.Write(content)
				}
				return n > 1
			},
		},
		{
			name: "the rest instead of a piece", size: 50_000, requests: 5,
			answer: func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool {
				var first int
				_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first)
				w.Header().Set("Content-Range",
					fmt.Sprintf("bytes %d-%d/%d", first, len(content)-1, len(content)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(content[first:])
				return true
			},
		},
		{
			name: "broken connections", size: 100_000,
			answer: func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool {
				if n%3 != 0 {
					return false
				}
				w.Header().Set("Content-Length", "10000")
				var first int
				_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-", first))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(content[first : first+100])
				panic(http.ErrAbortHandler)
			},
		},
		{
			name: "another size", size: 100_000,
			answer: func(w http.ResponseWriter, r *http.Request, _ int, content []byte) bool {
				partial(w, r, content, "bytes 0-9999/100001")
				return true
			},
			err: "blob has 100001 bytes, not 100000",
		},
		{
			name: "another range", size: 100_000,
			answer: func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool {
				if n > 1 {
					partial(w, r, content, "bytes 0-9999/100000")
				}
				return n > 1
			},
			err: "requested bytes from",
		},
		{
			name: "an error in the middle", size: 100_000,
			answer: func(w http.ResponseWriter, _ *http.Request, n int, _ []byte) bool {
				if n > 3 {
					w.WriteHeader(http.StatusForbidden)
				}
				return n > 3
			},
			err: "403",
		},
		{
			name: "other bytes", size: 100_000,
			answer: func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool {
				partial(w, r, bytes.Repeat([]byte{1}, len(content)), "")
				return true
			},
			err: "is damaged: its digest is",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, src, d, content := pieceServer(t, tt.size)
			var mu sync.Mutex
			n := 0
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r) || tt.answer == nil {
					return false
				}
				mu.Lock()
				n++
				mine := n
				mu.Unlock()
				return tt.answer(w, r, mine, content)
			}
			r, err := src.Fetch(t.Context(), d)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(r)
				r.Close()
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes and error %v, want %d, or they differ", len(got), err,
					len(content))
			}
			if asked := s.count("GET"); tt.requests > 0 && asked != tt.requests {
				t.Errorf("%d requests, want %d", asked, tt.requests)
			}
		})
	}
}

// TestPiecesAtOnce checks that maxPieces requests are answered at the same time and no more, and
// that the connections are used again.
func TestPiecesAtOnce(t *testing.T) {
	s, src, d, content := pieceServer(t, 400_000)
	var mu sync.Mutex
	now, most := 0, 0
	full := make(chan struct{})
	remotes := map[string]bool{}
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		now++
		most = max(most, now)
		if now == maxPieces {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		remotes[r.RemoteAddr] = true
		mu.Unlock()
		// The first piece is answered at once: the others are requested then. They wait for each
		// other.
		first := strings.HasPrefix(r.Header.Get("Range"), "bytes=0-")
		if !first {
			select {
			case <-full:
			case <-time.After(20 * time.Second):
			}
		}
		s.serve(w, r)
		mu.Lock()
		now--
		mu.Unlock()
		return true
	}
	r, err := src.Fetch(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, error %v", len(got), err)
	}
	r.Close()
	if most != maxPieces {
		t.Errorf("at most %d requests at the same time, want %d", most, maxPieces)
	}
	if len(remotes) > maxPieces+1 {
		t.Errorf("%d connections for 40 requests", len(remotes))
	}
}

// TestPiecesEnd checks that a transfer that is canceled or closed early returns an error instead
// of the end, and leaves no request.
func TestPiecesEnd(t *testing.T) {
	for _, end := range []string{"cancel", "close"} {
		t.Run(end, func(t *testing.T) {
			s, src, d, _ := pieceServer(t, 400_000)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, err := src.Fetch(ctx, d)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, r, 15_000); err != nil {
				t.Fatal(err)
			}
			if end == "cancel" {
				cancel()
				if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
					t.Errorf("error %v, want %v", err, context.Canceled)
				}
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if n := s.count("GET"); n > 10 {
				t.Errorf("%d requests for the first two of 40 pieces", n)
			}
		})
	}
}

// BenchmarkPieces downloads 32 MB from a server that sends 3 MB a second over each connection.
func BenchmarkPieces(b *testing.B) {
	content := make([]byte, 32<<20)
	s := newServer(b, false)
	d := s.blobs.add(ocispec.MediaTypeImageLayerGzip, content)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		s.serve(slow{w}, r)
		return true
	}
	for name, from := range map[string]int64{"one connection": 1 << 40, "pieces": 1} {
		b.Run(name, func(b *testing.B) {
			c := newClient(b, "")
			c.o.Ranges = from
			src, err := c.Source(s.host + "/a:1")
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(d.Size)
			for b.Loop() {
				r, err := src.Fetch(b.Context(), d)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}

// slow waits before each write.
type slow struct{ http.ResponseWriter }

func (s slow) Write(p []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return s.ResponseWriter.Write(p)
}
