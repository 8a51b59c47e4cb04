package faults

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/test/lab"
)

// front starts a server that answers some requests itself and passes others to the lab's registry.
func front(t *testing.T, l *lab.Lab, answer func(w http.ResponseWriter,
	r *http.Request) bool) (host string) {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: l.Registry.Host})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answer(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return strings.TrimPrefix(srv.URL, "http://")
}

// endless writes until the client disconnects.
func endless(w http.ResponseWriter, r *http.Request) {
	buf := make([]byte, 64<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(buf); err != nil {
			return
		}
	}
}

// TestHostileRegistry builds on an image of a registry that sends invalid responses.
func TestHostileRegistry(t *testing.T) {
	lab.Root(t)
	const manifest, blob = "/manifests/", "/blobs/"
	tests := []struct {
		name, path string
		answer     func(w http.ResponseWriter, r *http.Request)
		err        string
	}{
		{"endless manifest", manifest, endless, "has more than"},
		{"endless blob", blob, endless, ""},
		{"endless error", blob, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			endless(w, r)
		}, "404"},
		{"endless header", manifest, func(w http.ResponseWriter, r *http.Request) {
			for i := range 20000 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
			}
		}, "header"},
		{"5xx", blob, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, "503"},
		{"429 for long", manifest, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(429)
		}, "429"},
		{"truncated", blob, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5000")
			io.WriteString(w, "x")
		}, ""},
		{"empty", blob, func(w http.ResponseWriter, r *http.Request) {}, "bytes"},
		{"another blob", blob, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Repeat("x", 1000))
		}, ""},
		{"html", manifest, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<html>")
		}, "not a manifest"},
		{"both", manifest, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			io.WriteString(w, `{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`)
		}, "both a manifest and an index"},
		{"an index in itself", manifest, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","size":1,"digest":"sha256:`+strings.Repeat("a", 64)+`"}]}`)
		}, "manifest"},
		{"a circle", blob, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, 307)
		}, "redirects"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := lab.New(t)
			l.Busybox()
			host := front(t, l, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, tt.path) {
					return false
				}
				tt.answer(w, r)
				return true
			})
			l.Write("Dockerfile", "FROM "+host+"/library/busybox\nRUN true\n")
			refused(t, build(l), tt.err)
			l.Write("Dockerfile", "FROM scratch\nCOPY --from="+host+"/library/busybox /bin/sh /x\n")
			refused(t, build(l), tt.err)
		})
	}
}

// TestSilentRegistry checks that a stalled download is tried again, and fails after two minutes in
// all.
func TestSilentRegistry(t *testing.T) {
	lab.Root(t)
	if !whole() {
		t.Skip("takes two minutes; internal/registry has it with shorter times")
	}
	l := lab.New(t)
	l.Busybox()
	var asked atomic.Int32
	host := front(t, l, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		asked.Add(1)
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	l.Write("Dockerfile", "FROM "+host+"/library/busybox\n")
	start := time.Now()
	r := watchFor(t, build(l), 2*time.Minute)
	if r.status == 0 || asked.Load() < 2 {
		t.Errorf("after %v: status %d, asked %d times\n%s", time.Since(start), r.status,
			asked.Load(), tail(r.log))
	}
}
