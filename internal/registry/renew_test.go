package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestTokenExpires pushes an image to a registry that refuses one request of the push because the
// token has expired, after it has read the request's body or without reading it.
func TestTokenExpires(t *testing.T) {
	content := bytes.Repeat([]byte("content"), 400_000)
	for _, tt := range []struct {
		name   string
		method string
		path   string // a part of the request's URL
		reads  bool   // the registry reads the body before it refuses the request
		stream bool   // the layer is pushed while it is written
	}{
		{"the beginning of an upload", http.MethodPost, "/uploads/", true, false},
		{"an upload", http.MethodPut, "digest=", true, false},
		{"an upload that is not read", http.MethodPut, "digest=", false, false},
		{"a manifest", http.MethodPut, "/manifests/", true, false},
		{"the beginning of a stream", http.MethodPost, "/uploads/", true, true},
		{"a stream", http.MethodPatch, "/uploads/", true, true},
		{"a stream that is not read", http.MethodPatch, "/uploads/", false, true},
		{"the end of a stream", http.MethodPut, "digest=", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, issuer := newServer(t, false), newServer(t, false)
			var mu sync.Mutex
			issued, refused := 0, 0 // the last token that is valid; requests that were refused
			issuer.hook = func(w http.ResponseWriter, _ *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				issued++
				fmt.Fprintf(w, `{"token":"token-%d","expires_in":300}`, issued)
				return true
			}
			// accept reports whether the request has a token that is valid.
			accept := func(r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				if refused == 0 && r.Method == tt.method && issued > 0 &&
					strings.Contains(r.URL.RequestURI(), tt.path) {
					refused++
					return false
				}
				return r.Header.Get("Authorization") == fmt.Sprintf("Bearer token-%d", issued)
			}
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if accept(r) {
					return false
				}
				if tt.reads {
					io.Copy(io.Discard, r.Body)
				}
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(
					`Bearer realm="%s/token",service="r",error="invalid_token"`, issuer.URL))
				fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "the token has expired")
				return true
			}
			c := newClient(t, "")
			p, err := c.Pusher(s.host+"/to:1", PushOptions{})
			if err != nil {
				t.Fatal(err)
			}
			b := blobs{}
			m := b.image(amd64)
			layer := b.add(ocispec.MediaTypeImageLayerGzip, content)
			streamed := make(chan error, 1)
			if tt.stream {
				// A token is issued before the stream.
				if _, _, err := p.stat(t.Context(), layer.Digest); err != nil {
					t.Fatal(err)
				}
				g := newGrowing()
				g.write(content[:1_000_000])
				go func() { streamed <- p.Stream(t.Context(), g) }()
				for s.count("POST") == 0 {
					time.Sleep(time.Millisecond)
				}
				g.write(content[1_000_000:])
				g.end(nil)
			} else {
				streamed <- nil
			}
			if err := p.Blob(t.Context(), b, layer); err != nil {
				t.Error(err)
			}
			if err := p.Push(t.Context(), b, m); err != nil {
				t.Error(err)
			}
			if err := <-streamed; err != nil && tt.reads {
				t.Errorf("Stream: %v", err)
			}
			if refused != 1 || issued < 2 {
				t.Errorf("%d requests were refused and %d tokens issued, want 1 and at least 2",
					refused, issued)
			}
			if !bytes.Equal(s.blobs[layer.Digest], content) {
				t.Error("the registry does not have the layer")
			}
			if s.tags["to:1"].Digest != m.Digest {
				t.Error("the registry does not have the image")
			}
			// The registry may close a connection whose body it does not read before the client has
			// its answer. The client then begins another upload.
			if tt.reads && s.sessions != 2 {
				t.Errorf("%d uploads of 2 blobs: %q", s.sessions, s.requests())
			}
		})
	}
}
