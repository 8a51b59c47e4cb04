package cachestore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/remotecache/remotecachetest"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var zeroTime time.Time

func TestHTTPStore(t *testing.T) {
	srv := startHTTP(t, &fakeHTTP{})
	remotecachetest.Test(t, func(t *testing.T, m *remotecachetest.Machine) remotecache.Store {
		return opened(t, srv.URL+"/prefix/", m, nil)
	})
}

// TestHTTPRequests checks the requests of each operation.
func TestHTTPRequests(t *testing.T) {
	f := &fakeHTTP{}
	srv := startHTTP(t, f)
	m := remotecachetest.NewMachine(t)
	s := opened(t, srv.URL+"/prefix", m, nil)
	d, _ := m.Layer(t, 1, 100)
	ctx := t.Context()
	cas := "/prefix/cas/" + d.Digest.Encoded()
	ac := "/prefix/ac/" + digest.FromString("n").Encoded()
	doc := "/prefix/cas/" + digest.FromString("data").Encoded()
	check := func(want ...string) {
		t.Helper()
		if got := f.lines(); !slices.Equal(got, want) {
			t.Errorf("requests %q, want %q", got, want)
		}
	}
	for range 2 { // the second time nothing is sent
		if err := s.Send(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	check("HEAD "+cas+" 404", "PUT "+cas+" 200")
	if err := s.Put(ctx, "n", []byte("data"), []ocispec.Descriptor{d}); err != nil {
		t.Fatal(err)
	}
	check("PUT "+doc+" 200", "PUT "+ac+" 200")
	if _, _, err := s.Get(ctx, "n"); err != nil {
		t.Fatal(err)
	}
	check("GET " + ac + " 200")
	if err := opened(t, srv.URL+"/prefix", m, nil).Send(ctx, d); err != nil {
		t.Fatal(err)
	}
	check("HEAD " + cas + " 200")

	// A file that is not complete, as a server that lost power may have it, is sent again.
	f.files["cas/"+d.Digest.Encoded()] = []byte("short")
	if _, _, err := s.Get(ctx, "n"); !errors.Is(err, remotecache.ErrNoDocument) {
		t.Errorf("a document without its layer: %v", err)
	}
	if err := opened(t, srv.URL+"/prefix", m, nil).Send(ctx, d); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(ctx, "n"); err != nil {
		t.Error(err)
	}
}

// TestHTTPDocuments checks that documents that are not what they promise to be are refused.
func TestHTTPDocuments(t *testing.T) {
	f := &fakeHTTP{}
	srv := startHTTP(t, f)
	m := remotecachetest.NewMachine(t)
	s := opened(t, srv.URL+"/prefix", m, nil)
	sum := digest.FromString("data").Encoded()
	key := "ac/" + digest.FromString("n").Encoded()
	f.files["cas/"+sum] = []byte("data")
	for _, tt := range []struct {
		name string
		data []byte
		want string // an error
	}{
		{"inline", encodeActionResult([]outputFile{
			{path: documentName, hash: sum, size: 4, contents: []byte("data")}}), ""},
		{"in cas", encodeActionResult([]outputFile{{path: documentName, hash: sum, size: 4}}), ""},
		{"wrong inline", encodeActionResult([]outputFile{
			{path: documentName, hash: sum, size: 4, contents: []byte("date")}}),
			"does not have the digest"},
		{"no document", encodeActionResult([]outputFile{{path: "a", hash: sum, size: 4}}),
			"has no document"},
		{"empty", nil, "has no document"},
	} {
		f.files[key] = tt.data
		got, _, err := s.Get(t.Context(), "n")
		if tt.want == "" && (err != nil || string(got) != "data") ||
			tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		fmt.Fprint(w, "<html>a login page</html>")
		return true
	}
	if got, _, err := s.Get(t.Context(), "n"); err == nil {
		t.Errorf("a page of HTML is a document: %q", got)
	}
}

// TestHTTPFaults checks that a server that fails for some time, or for good, ends no request too
// late, and damages nothing.
func TestHTTPFaults(t *testing.T) {
	for _, tt := range []struct {
		name string
		// fault answers the first requests; n counts them from 1.
		fault func(w http.ResponseWriter, r *http.Request, n int) bool
		fails bool
	}{
		{"429 with Retry-After", func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n%2 == 1 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusTooManyRequests)
			}
			return n%2 == 1
		}, false},
		{"503", func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n%3 != 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return n%3 != 0
		}, false},
		{"broken connections", func(_ http.ResponseWriter, _ *http.Request, n int) bool {
			if n%2 == 1 {
				panic(http.ErrAbortHandler)
			}
			return false
		}, false},
		{"a stall", func(_ http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				<-r.Context().Done()
			}
			return n == 1
		}, false},
		{"truncation and wrong bytes", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if r.Method != http.MethodGet || n%2 == 0 {
				return false
			}
			w.Write([]byte("wrong"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, true}, // the rest is fetched, and the digest is wrong
		{"wrong bytes", func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/cas/") {
				return false
			}
			w.Write(bytes.Repeat([]byte{'x'}, 1))
			return true
		}, true},
		{"a long Retry-After", func(w http.ResponseWriter, _ *http.Request, n int) bool {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeHTTP{}
			srv := startHTTP(t, f)
			m, other := remotecachetest.NewMachine(t), remotecachetest.NewMachine(t)
			if tt.name == "a stall" {
				m.Client = registry.New(registry.Options{Backoff: time.Millisecond,
					Idle: time.Second})
				other.Client.Close()
				other.Client = m.Client
				defer m.Client.Close()
			}
			s := opened(t, srv.URL+"/prefix", m, nil)
			d, id := m.Layer(t, 1, 100_000)
			n := 0
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				f.mu.Lock()
				n++
				i := n
				f.mu.Unlock()
				return tt.fault(w, r, i)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := s.Send(ctx, d)
			if err == nil {
				err = s.Put(ctx, "n", []byte("data"), []ocispec.Descriptor{d})
			}
			if err == nil {
				n = 0
				var err1 error
				_, from, err1 := opened(t, srv.URL+"/prefix", other, nil).Get(ctx, "n")
				if err = err1; err == nil {
					err = other.Fetch(t, from, d, id)
				}
			}
			if (err != nil) != tt.fails || ctx.Err() != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestHTTPRanges checks that a download continues where it broke.
func TestHTTPRanges(t *testing.T) {
	f := &fakeHTTP{}
	srv := startHTTP(t, f)
	m, other := remotecachetest.NewMachine(t), remotecachetest.NewMachine(t)
	d, id := m.Layer(t, 1, 200_000)
	s := opened(t, srv.URL+"/prefix", m, nil)
	if err := errors.Join(s.Send(t.Context(), d),
		s.Put(t.Context(), "n", []byte("data"), nil)); err != nil {
		t.Fatal(err)
	}
	var ranges []string
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/cas/") {
			return false
		}
		if ranges = append(ranges, r.Header.Get("Range")); len(ranges) > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(d.Size))
		w.Write(f.files["cas/"+d.Digest.Encoded()][:100_000])
		panic(http.ErrAbortHandler)
	}
	_, from, err := opened(t, srv.URL+"/prefix", other, nil).Get(t.Context(), "n")
	if err == nil {
		err = other.Fetch(t, from, d, id)
	}
	if err != nil || len(ranges) != 2 || !strings.HasPrefix(ranges[1], "bytes=") ||
		ranges[1] == "bytes=0-" {
		t.Errorf("ranges %q: %v", ranges, err)
	}
}

// TestHTTPCredentials checks that credentials of the address, and of docker's file, are sent to
// their server only, and are in no message.
func TestHTTPCredentials(t *testing.T) {
	const secret = "s3cret/pass"
	f := &fakeHTTP{user: "me:" + secret}
	srv := startHTTP(t, f)
	elsewhere := &fakeHTTP{}
	other := startHTTP(t, elsewhere)
	host := strings.TrimPrefix(srv.URL, "http://")
	m := remotecachetest.NewMachine(t)
	d, id := m.Layer(t, 1, 1<<20)

	for _, tt := range []struct{ name, address, docker, fails string }{
		{"none", srv.URL, "", "401"},
		{"in the address", "http://me:s3cret%2Fpass@" + host, "", ""},
		{"wrong", "http://me:wrong%2Fpass@" + host, "", "401"},
		{"docker's", srv.URL, "me:" + secret, ""},
		{"the address before docker's", "http://me:s3cret%2Fpass@" + host, "x:y", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			auths := map[string]any{}
			if user, password, ok := strings.Cut(tt.docker, ":"); ok {
				auths[host] = map[string]string{"username": user, "password": password}
			}
			config, _ := json.Marshal(map[string]any{"auths": auths})
			if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
				t.Fatal(err)
			}
			m := &remotecachetest.Machine{State: m.State, Images: m.Images,
				Client: registry.New(registry.Options{AuthFile: filepath.Join(dir, "config.json"),
					Backoff: time.Millisecond})}
			defer m.Client.Close()
			s := opened(t, tt.address+"/prefix", m, nil)
			err := s.Send(t.Context(), d)
			if err == nil {
				err = s.Put(t.Context(), "n", []byte("data"), []ocispec.Descriptor{d})
			}
			if err == nil {
				_, _, err = s.Get(t.Context(), "n")
			}
			if tt.fails == "" && err != nil ||
				tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("%v, want %q", err, tt.fails)
			}
			if err != nil && strings.Contains(err.Error(), "pass") {
				t.Errorf("the password is in the message: %v", err)
			}
		})
	}

	// A server that redirects downloads gives its credentials to no other one.
	s := opened(t, "http://me:s3cret%2Fpass@"+host+"/prefix", m, nil)
	elsewhere.files["cas/"+d.Digest.Encoded()] = f.files["cas/"+d.Digest.Encoded()]
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/cas/") {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	_, from, err := s.Get(t.Context(), "n")
	if err != nil {
		t.Fatal(err)
	}
	if err := remotecachetest.NewMachine(t).Fetch(t, from, d, id); err != nil {
		t.Error(err)
	}
	if len(elsewhere.heads) == 0 {
		t.Error("the redirect was not followed")
	}
	for _, h := range elsewhere.heads {
		if h.Get("Authorization") != "" || h.Get("Referer") != "" {
			t.Errorf("the other server got %v", h)
		}
	}
	if strings.Contains(from.Name, "pass") {
		t.Errorf("the artifact has the name %s", from.Name)
	}
}

// TestHTTPRemedies checks what messages say about servers that refuse writes.
func TestHTTPRemedies(t *testing.T) {
	for status, want := range map[int]string{
		http.StatusConflict:              "create_full_put_path",
		http.StatusMethodNotAllowed:      "dav_methods PUT",
		http.StatusRequestEntityTooLarge: "client_max_body_size",
		http.StatusForbidden:             "use ,ro",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
		}))
		defer srv.Close()
		m := remotecachetest.NewMachine(t)
		err := opened(t, srv.URL, m, nil).Put(t.Context(), "n", []byte("data"), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v, want %q", status, err, want)
		}
	}
}
