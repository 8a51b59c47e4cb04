package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// impatient returns a client that gives up after tenths of a second.
func impatient(t *testing.T) *Client {
	c := newClient(t, "")
	c.o.Idle, c.o.MaxWait = 50*time.Millisecond, 300*time.Millisecond
	return c
}

// TestSilence checks that a transfer that stops at any point is tried again, continues where it
// stopped, and is given up in the end.
func TestSilence(t *testing.T) {
	b := blobs{}
	d := b.image(amd64, 500_000)
	var m ocispec.Manifest
	if err := json.Unmarshal(b[d.Digest], &m); err != nil {
		t.Fatal(err)
	}
	layer := m.Layers[0]
	kinds := []struct {
		name, path string
		most       int // requests
		answer     func(w http.ResponseWriter, r *http.Request, data []byte)
	}{
		{"no answer to the manifest", "/manifests/", 10,
			func(w http.ResponseWriter, r *http.Request, data []byte) { <-r.Context().Done() }},
		{"no answer to the blob", "/blobs/", 10,
			func(w http.ResponseWriter, r *http.Request, data []byte) { <-r.Context().Done() }},
		{"half a manifest", "/manifests/", 10,
			func(w http.ResponseWriter, r *http.Request, data []byte) {
				w.Header().Set("Content-Type", d.MediaType)
				w.Write(data[:len(data)/2])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}},
		{"half a blob", "/blobs/", 10, func(w http.ResponseWriter, r *http.Request, data []byte) {
			w.Write(data[:len(data)/2])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{"a byte each time", "/blobs/", 1000,
			func(w http.ResponseWriter, r *http.Request, data []byte) {
				if r.Header.Get("Range") == "" {
					w.Write(data[:1])
				} else {
					var from int
					fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from,
						len(data)-1, len(data)))
					w.WriteHeader(http.StatusPartialContent)
					w.Write(data[from : from+1])
				}
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}},
		{"drops", "/blobs/", 10, func(w http.ResponseWriter, r *http.Request, data []byte) {
			for i := 0; i < len(data) && r.Context().Err() == nil; i++ {
				w.Write(data[i : i+1])
				w.(http.Flusher).Flush()
				time.Sleep(time.Millisecond)
			}
		}},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := newServer(t, false)
			s.tag("a/b:1", d, b)
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, k.path) {
					return false
				}
				data := b[d.Digest]
				if k.path == "/blobs/" {
					data = b[layer.Digest]
				}
				k.answer(w, r, data)
				return true
			}
			err := func() error {
				img, err := impatient(t).Resolve(t.Context(), s.host+"/a/b:1", amd64)
				if err != nil {
					return err
				}
				r, err := img.Source.Fetch(t.Context(), layer)
				if err != nil {
					return err
				}
				defer r.Close()
				_, err = io.Copy(io.Discard, r)
				return err
			}()
			if !errors.Is(err, errIdle) && !errors.Is(err, errNoAnswer) {
				t.Errorf("error = %v, want that it stood still", err)
			}
			if n := s.count(k.path); n > k.most || n < 2 && k.name != "drops" {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestSlowReader checks that a download with a slow reader is not taken for a stalled server.
func TestSlowReader(t *testing.T) {
	b := blobs{}
	d := b.image(amd64, 4<<20)
	var m ocispec.Manifest
	if err := json.Unmarshal(b[d.Digest], &m); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, false)
	s.tag("a/b:1", d, b)
	img, err := impatient(t).Resolve(t.Context(), s.host+"/a/b:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	r, err := img.Source.Fetch(t.Context(), m.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got bytes.Buffer
	for range 4 {
		time.Sleep(150 * time.Millisecond)
		if _, err := io.CopyN(&got, r, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTokenServers checks that over plain http credentials go to the registry's own host only, and
// a server elsewhere needs a valid certificate even if the registry is insecure.
func TestTokenServers(t *testing.T) {
	type request struct{ auth, form string }
	var mu sync.Mutex
	var got []request
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		mu.Lock()
		got = append(got, request{r.Header.Get("Authorization"), r.Form.Get("refresh_token")})
		mu.Unlock()
		io.WriteString(w, `{"token":"tok"}`)
	})
	elsewhere, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip(err)
	}
	plain := &http.Server{Handler: answer}
	go plain.Serve(elsewhere)
	t.Cleanup(func() { plain.Close() })
	same := httptest.NewServer(answer)
	t.Cleanup(same.Close)
	secure := httptest.NewTLSServer(answer)
	t.Cleanup(secure.Close)
	// A name that is not on loopback by its name, so that its certificate counts.
	_, port, _ := net.SplitHostPort(secure.Listener.Addr().String())
	untrusted := "https://auth.example.com:" + port

	b := blobs{}
	d := b.image(amd64)
	tests := []struct {
		name, realm, login string
		asked              int    // requests that the token server gets
		err                string // part of the error; "": the login succeeds
	}{
		{"own host, another port", same.URL + "/token", "password", 1, ""},
		{"own host, a refresh token", same.URL + "/token", "refresh", 1, ""},
		{"another host", "http://" + elsewhere.Addr().String() + "/token",
			"password", 0, "without https"},
		{"another host, a refresh token", "http://" + elsewhere.Addr().String() + "/token",
			"refresh", 0, "without https"},
		{"another host, nothing to give", "http://" + elsewhere.Addr().String() + "/token", "", 1,
			""},
		{"https, a certificate of nobody", untrusted + "/token", "password", 0, "certificate"},
		{"another scheme", "ftp://127.0.0.1/token", "password", 0, "without https"},
		{"a file", "file:///etc/passwd", "password", 0, "an invalid token server"},
		{"no realm", "", "password", 0, "nauthorized"},
		{"link-local", "http://169.254.169.254/token", "password", 0, "link-local"},
		{"unspecified", "http://0.0.0.0/token", "password", 0, "link-local"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, false)
			s.tag("a/b:1", d, b)
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") == "Bearer tok" {
					return false
				}
				w.Header().Set("WWW-Authenticate",
					fmt.Sprintf(`Bearer realm=%q,service="x"`, tt.realm))
				fail(w, 401, "UNAUTHORIZED", "authentication required")
				return true
			}
			switch tt.login {
			case "password":
				login(t, s.host, "me", "secret")
			case "refresh":
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "config.json"),
					fmt.Appendf(nil,
						`{"auths":{%q:{"auth":"PHRva2VuPjo=","identitytoken":"refresh!"}}}`,
						s.host), 0o600); err != nil {
					t.Fatal(err)
				}
				t.Setenv("DOCKER_CONFIG", dir)
			default:
				t.Setenv("DOCKER_CONFIG", t.TempDir())
			}
			got = nil
			c := newClient(t, "")
			c.o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if strings.HasPrefix(address, "auth.example.com:") {
					address = secure.Listener.Addr().String()
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}
			_, err := c.Resolve(t.Context(), s.host+"/a/b:1", amd64)
			if tt.err == "" && err != nil || tt.err != "" &&
				(err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error = %v, want %q", err, tt.err)
			}
			if len(got) != tt.asked {
				t.Errorf("the token server got %q, want %d requests", got, tt.asked)
			}
		})
	}
}

// TestTokenAnswers checks that every answer of a token server gives a token or an error.
func TestTokenAnswers(t *testing.T) {
	b := blobs{}
	d := b.image(amd64)
	tests := []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		err    string
	}{
		{"token", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"token":"tok"}`)
		}, ""},
		{"access token", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"access_token":"tok","expires_in":-5}`)
		}, ""},
		{"both", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"token":"tok","access_token":"x","expires_in":1e3}`)
		}, ""},
		{"far end", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"token":"tok","expires_in":9223372036854775807}`)
		}, ""},
		{"none", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{}`) },
			"no token"},
		{"of another type", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"token":5}`)
		}, "token server's answer"},
		{"with a line break", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"token":"tok\r\nX-Evil: 1"}`)
		}, "cannot be used"},
		{"html", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `<html>`) },
			"token server's answer"},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"token":"`)
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
					return
				}
			}
		}, "token server's answer"},
		{"redirect in a circle", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/token", 302)
		}, "redirects"},
		{"5xx", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, "503"},
		{"another challenge", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://127.0.0.1:1/"`)
			w.WriteHeader(401)
		}, "401"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			s := newServer(t, false)
			s.tag("a/b:1", d, b)
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.URL.Path == "/token":
					tt.answer(w, r)
				case r.Header.Get("Authorization") == "Bearer tok":
					return false
				default:
					w.Header().Set("WWW-Authenticate",
						fmt.Sprintf(`Bearer realm="http://%s/token"`, s.host))
					fail(w, 401, "UNAUTHORIZED", "authentication required")
				}
				return true
			}
			_, err := newClient(t, "").Resolve(t.Context(), s.host+"/a/b:1", amd64)
			if tt.err == "" && err != nil || tt.err != "" &&
				(err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error = %.300v, want %q", err, tt.err)
			}
		})
	}
}

// TestRedirects checks that credentials never follow a redirect, and a manifest is not fetched over
// a less secure connection than requested.
func TestRedirects(t *testing.T) {
	b := blobs{}
	d := b.image(amd64, 1000)
	tests := []struct {
		name   string
		secure bool
		to     func(other, self *server, r *http.Request) string
		err    string
	}{
		{"another host", false, func(o, _ *server, r *http.Request) string {
			return o.URL + r.URL.Path
		}, ""},
		{"there and back", false, func(o, s *server, r *http.Request) string {
			return o.URL + "/back?to=" + s.URL + r.URL.Path + "%3Fx"
		}, ""},
		{"a circle", false, func(_, s *server, r *http.Request) string {
			return s.URL + r.URL.Path
		}, "redirects"},
		{"https to http", true, func(o, _ *server, r *http.Request) string {
			return o.URL + r.URL.Path
		}, "plain http"},
		{"another scheme", false, func(o, _ *server, r *http.Request) string {
			return "ftp://example.com/"
		}, "ftp"},
		{"link-local", false, func(o, _ *server, r *http.Request) string {
			return "http://169.254.169.254/latest"
		}, "link-local"},
		{"no address", false, func(o, _ *server, r *http.Request) string { return "http://%zz/" },
			"Location"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, other := newServer(t, tt.secure), newServer(t, false)
			s.tag("a/b:1", d, b)
			other.tag("a/b:1", d, b)
			other.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if a := r.Header.Get("Authorization"); a != "" {
					t.Errorf("the other server was given %q", a)
				}
				if r.Header.Get("Referer") != "" {
					t.Errorf("the other server was told %q", r.Header.Get("Referer"))
				}
				if to := r.URL.Query().Get("to"); to != "" {
					http.Redirect(w, r, to, 302)
					return true
				}
				return false
			}
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.RawQuery == "x" { // on the way back
					if a := r.Header.Get("Authorization"); a != "" {
						t.Errorf("after a detour the server was given %q", a)
					}
					return false
				}
				if _, pass, ok := r.BasicAuth(); !ok || pass != "secret" {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(401)
					return true
				}
				http.Redirect(w, r, tt.to(other, s, r), http.StatusTemporaryRedirect)
				return true
			}
			login(t, s.host, "me", "secret")
			c := newClient(t, "")
			if tt.secure {
				h, err := c.host(s.host, false)
				if err != nil {
					t.Fatal(err)
				}
				// as a server elsewhere is; its certificate is accepted all the same
				h.insecure = false
			}
			_, err := c.Resolve(t.Context(), s.host+"/a/b:1", amd64)
			if tt.err == "" && err != nil || tt.err != "" &&
				(err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error = %v, want %q", err, tt.err)
			}
		})
	}
}

// TestRedirectedUpload checks that a blob or a manifest does not count as sent because a redirect
// leads to an answer to another request: net/http follows it with a GET.
func TestRedirectedUpload(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307} {
		for _, what := range []string{"/uploads/", "/manifests/"} {
			s := newServer(t, false)
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.Method == http.MethodGet:
					if what == "/uploads/" {
						w.WriteHeader(http.StatusNoContent) // as for the state of an upload
					}
				case r.Method == http.MethodPut && strings.Contains(r.URL.Path, what):
					http.Redirect(w, r, "/elsewhere"+r.URL.Path, status)
				default:
					return false
				}
				return true
			}
			b := blobs{}
			err := newClient(t, "").Push(t.Context(), s.host+"/to:1", b, b.image(amd64, 1000),
				PushOptions{})
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), "redirect") {
				t.Errorf("%d for %s: error %v, want one about the redirect", status, what, err)
			}
		}
	}
}

// TestAskedToWait checks that Retry-After is obeyed when it is short, and an error when it is long.
func TestAskedToWait(t *testing.T) {
	for _, tt := range []struct {
		after string
		n     int
		err   string
	}{{"0", 2, ""}, {"3600", 1, "429"}, {"-5", 1, ""}, {"soon", 1, ""},
		{"99999999999999999999", 1, ""}, {time.Now().Add(time.Hour).UTC().Format(http.TimeFormat),
			1, "429"}} {
		b := blobs{}
		s := newServer(t, false)
		s.tag("a/b:1", b.image(amd64), b)
		n := 0
		s.hook = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") && n < tt.n {
				n++
				w.Header().Set("Retry-After", tt.after)
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			}
			return false
		}
		_, err := newClient(t, "").Resolve(t.Context(), s.host+"/a/b:1", amd64)
		if tt.err == "" && err != nil || tt.err != "" &&
			(err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("Retry-After %q: %v, want %q", tt.after, err, tt.err)
		}
	}
}
