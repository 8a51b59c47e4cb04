package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hanging is a place that does not answer until a test ends.
type hanging struct {
	begun chan struct{} // closed when it has been asked
	once  sync.Once
	end   chan struct{}
}

func newHanging() *hanging { return &hanging{begun: make(chan struct{}), end: make(chan struct{})} }

func (h *hanging) wait() {
	h.once.Do(func() { close(h.begun) })
	<-h.end
}

// TestCanceledWaiters checks that a caller whose context has ended does not wait for another caller
// whose request hangs.
func TestCanceledWaiters(t *testing.T) {
	b := blobs{}
	layer := b.add(ocispec.MediaTypeImageLayer, []byte("layer"))
	// each returns the function that hangs
	tests := map[string]func(*testing.T, *hanging) func(context.Context) error{
		"probe": func(t *testing.T, hang *hanging) func(context.Context) error {
			c := newClient(t, "")
			c.o.Proxy = func(*http.Request) (*url.URL, error) { hang.wait(); return nil, nil }
			h, err := c.host("localhost:1", true)
			if err != nil {
				t.Fatal(err)
			}
			return func(ctx context.Context) error { _, err := h.base(ctx); return err }
		},
		"token": func(t *testing.T, hang *hanging) func(context.Context) error {
			s := newServer(t, false)
			s.hook = func(http.ResponseWriter, *http.Request) bool { hang.wait(); return false }
			h, err := newClient(t, "").host(s.host, true)
			if err != nil {
				t.Fatal(err)
			}
			h.auth.realm = s.URL + "/token"
			return func(ctx context.Context) error {
				_, err := h.auth.fetch(ctx, pullScope("a/b"), "")
				return err
			}
		},
		"push": func(t *testing.T, hang *hanging) func(context.Context) error {
			s := newServer(t, false)
			s.hook = func(http.ResponseWriter, *http.Request) bool { hang.wait(); return false }
			p, err := newClient(t, "").Pusher(s.host+"/to:1", PushOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return func(ctx context.Context) error { return p.Blob(ctx, b, layer) }
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			hang := newHanging()
			call := test(t, hang)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			var wg sync.WaitGroup
			wg.Go(func() { call(t.Context()) })
			<-hang.begun
			waiter := make(chan error, 1)
			go func() { waiter <- call(ctx) }()
			select {
			case err := <-waiter:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("error %v, want context.Canceled", err)
				}
			case <-time.After(20 * time.Second): // only a failing test takes this long
				t.Error("the caller waits for the other one after its context has ended")
			}
			close(hang.end)
			wg.Wait()
		})
	}
}

// TestSlowHelper checks that the time for which a credential helper runs does not count as waiting
// for the server: the helper may ask for a password. The helper is run once for each repository.
func TestSlowHelper(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, 5000)
	var doc ocispec.Manifest
	if err := json.Unmarshal(b[m.Digest], &doc); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, false)
	s.tag("a/one:1", m, b)
	s.tag("a/two:1", m, b)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			user, password, _ := r.BasicAuth()
			fmt.Fprintf(w, `{"token":"%s-%s"}`, user, password)
			return true
		}
		if r.Header.Get("Authorization") == "Bearer me-secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, s.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	bin := t.TempDir()
	// It needs longer than the client waits for an answer, and than all its attempts may take.
	helper := "#!/bin/sh\necho run >> " + bin + "/log\nsleep 1\n" +
		`echo '{"ServerURL":"x","Username":"me","Secret":"secret"}'` + "\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-slow"), []byte(helper),
		0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "config.json"), []byte(`{"credsStore":"slow"}`),
		0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("DOCKER_CONFIG", bin)
	c := newClient(t, "")
	c.o.Idle, c.o.MaxWait = 500*time.Millisecond, 800*time.Millisecond
	for _, repo := range []string{"a/one", "a/two"} {
		img, err := c.Resolve(t.Context(), s.host+"/"+repo+":1", amd64)
		if err != nil {
			t.Fatal(err)
		}
		r, err := img.Source.Fetch(t.Context(), doc.Layers[0])
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	log, _ := os.ReadFile(filepath.Join(bin, "log"))
	if got := strings.Count(string(log), "run"); got != 2 {
		t.Errorf("the helper ran %d times, want 2", got)
	}
}

// TestCanceledHelper checks that a credential helper is ended when the only caller that waits for
// it is canceled, and that the request does not go on without credentials.
func TestCanceledHelper(t *testing.T) {
	s := newServer(t, false)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	bin := t.TempDir()
	fifo := filepath.Join(bin, "begun")
	helper := "#!/bin/sh\necho $$ > " + fifo + "\nexec sleep 1000\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-hangs"), []byte(helper),
		0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "config.json"), []byte(`{"credsStore":"hangs"}`),
		0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("DOCKER_CONFIG", bin)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := newClient(t, "").Resolve(ctx, s.host+"/a/b:1", amd64)
		done <- err
	}()
	data, err := os.ReadFile(fifo) // waits for the helper
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the helper still runs: %v", err)
	}
}
