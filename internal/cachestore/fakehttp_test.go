package cachestore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/remotecache/remotecachetest"
)

// fakeHTTP is a remote cache of Bazel. As bazel-remote does, it answers with a document only if it
// has all files of it.
type fakeHTTP struct {
	user string // "user:password" that is required; "": none is

	mu    sync.Mutex
	files map[string][]byte // by path
	log   []string          // "METHOD PATH STATUS"
	heads []http.Header     // of all requests
	// before answers a request in place of the server if it returns true.
	before func(w http.ResponseWriter, r *http.Request) bool
}

func startHTTP(t testing.TB, f *fakeHTTP) *httptest.Server {
	f.files = map[string][]byte{}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return srv
}

func (f *fakeHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.heads = append(f.heads, r.Header.Clone())
	before := f.before
	f.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	status, data := f.answer(r)
	f.mu.Lock()
	f.log = append(f.log, fmt.Sprint(r.Method, " ", r.URL.Path, " ", status))
	f.mu.Unlock()
	switch {
	case status == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="cache"`)
		w.WriteHeader(status)
	case status == http.StatusOK && r.Method != http.MethodPut:
		http.ServeContent(w, r, "", zeroTime, strings.NewReader(string(data)))
	default:
		w.WriteHeader(status)
	}
}

func (f *fakeHTTP) answer(r *http.Request) (int, []byte) {
	if f.user != "" {
		user, password, _ := r.BasicAuth()
		if user+":"+password != f.user {
			return http.StatusUnauthorized, nil
		}
	}
	dir, name, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/prefix/"), "/")
	if raw, err := hex.DecodeString(name); !ok || err != nil || len(raw) != sha256.Size ||
		dir != "ac" && dir != "cas" {
		return http.StatusBadRequest, nil
	}
	if r.Method == http.MethodPut {
		return f.put(r, dir, name), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	data, ok := f.files[dir+"/"+name]
	if !ok {
		return http.StatusNotFound, nil
	}
	if dir == "ac" {
		files, err := decodeActionResult(data)
		if err != nil {
			return http.StatusInternalServerError, nil
		}
		for _, o := range files {
			if int64(len(f.files["cas/"+o.hash])) != o.size {
				return http.StatusNotFound, nil
			}
		}
	}
	return http.StatusOK, data
}

func (f *fakeHTTP) put(r *http.Request, dir, name string) int {
	data, err := io.ReadAll(r.Body)
	if err != nil || r.ContentLength != int64(len(data)) {
		return http.StatusBadRequest
	}
	sum := sha256.Sum256(data)
	if _, err := decodeActionResult(data); dir == "ac" && err != nil ||
		dir == "cas" && hex.EncodeToString(sum[:]) != name {
		return http.StatusBadRequest
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[dir+"/"+name] = data
	return http.StatusOK
}

// lines returns the log, and empties it.
func (f *fakeHTTP) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log
	f.log = nil
	return log
}

// opened returns the store at an address as a machine uses it.
func opened(t testing.TB, address string, m *remotecachetest.Machine,
	env map[string]string) remotecache.Store {
	t.Helper()
	s, err := Open(remotecache.SharedPlace{Ref: address}, Options{Client: m.Client,
		Blobs: m.State.Store, Getenv: func(name string) string { return env[name] }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
