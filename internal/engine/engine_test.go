package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// serve runs a daemon with a handler, and returns it.
func serve(t *testing.T, h http.HandlerFunc) *Engine {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	e, err := New("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSave(t *testing.T) {
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path + "?" + r.URL.Query().Get("names") {
		case "/images/get?a/b:c":
			io.WriteString(w, "archive")
		case "/images/get?gone":
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"No such image: gone"}`)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	r, err := e.Save(t.Context(), "a/b:c")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := io.ReadAll(r); string(data) != "archive" || err != nil {
		t.Errorf("Save: %q, %v", data, err)
	}
	if _, err := e.Save(t.Context(), "gone"); !errors.Is(err, ErrNoImage) ||
		!strings.Contains(err.Error(), "No such image: gone") {
		t.Errorf("Save of a missing image: %v", err)
	}
	if _, err := e.Save(t.Context(), "x"); err == nil || errors.Is(err, ErrNoImage) {
		t.Errorf("Save of a broken image: %v", err)
	}
}

func TestLoad(t *testing.T) {
	answer := `{"stream":"Loaded image: a\n"}`
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if string(data) != "archive" || err != nil {
			t.Errorf("the daemon got %q, %v", data, err)
		}
		fmt.Fprint(w, answer)
	})
	if got, err := e.Load(t.Context(), strings.NewReader("archive")); got != "Loaded image: a\n" ||
		err != nil {
		t.Errorf("Load = %q, %v", got, err)
	}
	answer = `{"stream":"x"}{"error":"bad","errorDetail":{"message":"bad archive"}}`
	if _, err := e.Load(t.Context(), strings.NewReader("archive")); err == nil ||
		!strings.Contains(err.Error(), "bad archive") {
		t.Errorf("Load of a bad archive: %v", err)
	}
}

func TestNew(t *testing.T) {
	for _, host := range []string{"ssh://a", "/var/run/docker.sock", "unix://", "x"} {
		if _, err := New(host); err == nil {
			t.Errorf("New(%q) returns no error", host)
		}
	}
	e, err := New("unix:///nonexistent/s")
	if err == nil {
		_, err = e.Save(t.Context(), "a")
	}
	const want = "unix:///nonexistent/s: there is no such socket"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Save without a daemon: %v", err)
	}
	if e, err := New(""); err != nil || e.address != "unix://"+DefaultSocket {
		t.Errorf("New: %+v, %v", e, err)
	}
}

func FuzzMessages(f *testing.F) {
	for _, s := range []string{`{"stream":"a"}`, `{"errorDetail":{"message":"x"}}`, `{`, `[]`,
		`{"stream":"a"}{"error":"b"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if text, err := messages(strings.NewReader(s)); err != nil && text != "" {
			t.Errorf("messages(%q) = %q and %v", s, text, err)
		}
	})
}
