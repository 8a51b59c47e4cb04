package cachestore

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/remotecache/remotecachetest"
	digest "github.com/opencontainers/go-digest"
)

// fakeActions is the cache service of GitHub Actions and the storage of its blobs, as far as
// clients use it (https://github.com/actions/toolkit/tree/main/packages/cache).
type fakeActions struct {
	mu       sync.Mutex
	url      string
	entries  []actionsFile // in the order of their creation
	blocks   map[string][]byte
	log      []string
	readOnly bool
	throttle int  // how many requests are answered with 429
	lose     bool // the next answer about a new entry is lost
}

type actionsFile struct {
	key, version string
	data         []byte
	complete     bool
}

func startActions(t testing.TB, f *fakeActions) map[string]string {
	f.blocks = map[string][]byte{}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return map[string]string{actionsURL: srv.URL + "/", actionsToken: "secret-token"}
}

func (f *fakeActions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.throttle > 0 {
		f.throttle--
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	if err != nil {
		return
	}
	if strings.HasPrefix(r.URL.Path, "/blob/") {
		f.log = append(f.log, r.Method+" blob")
		f.blob(w, r, body)
		return
	}
	method := strings.TrimPrefix(r.URL.Path, actionsService)
	f.log = append(f.log, method)
	var in struct {
		Key     string   `json:"key"`
		Version string   `json:"version"`
		Restore []string `json:"restore_keys"`
		Size    int64    `json:"size_bytes,string"`
	}
	if r.Header.Get("Authorization") != "Bearer secret-token" || r.Method != http.MethodPost ||
		json.Unmarshal(body, &in) != nil || len(in.Key) > 512 ||
		!regexp.MustCompile("^[0-9a-f]{64}$").MatchString(in.Version) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	out := f.answer(method, in.Key, in.Version, in.Restore, in.Size)
	if f.lose && method == "CreateCacheEntry" {
		f.lose = false
		panic(http.ErrAbortHandler)
	}
	json.NewEncoder(w).Encode(out)
}

func (f *fakeActions) answer(method, key, version string, restore []string,
	size int64) map[string]any {
	find := func(match func(string) bool) int {
		for i := len(f.entries) - 1; i >= 0; i-- {
			if e := f.entries[i]; e.version == version && match(e.key) {
				return i
			}
		}
		return -1
	}
	exactly := find(func(k string) bool { return k == key })
	no := map[string]any{"ok": false}
	switch method {
	case "CreateCacheEntry":
		if exactly >= 0 || f.readOnly {
			return no
		}
		f.entries = append(f.entries, actionsFile{key: key, version: version})
		return map[string]any{"ok": true, "signed_upload_url": fmt.Sprintf(
			"%s/blob/%d?sig=write-secret", f.url, len(f.entries)-1)}
	case "FinalizeCacheEntryUpload":
		if exactly < 0 || int64(len(f.entries[exactly].data)) != size {
			return no
		}
		f.entries[exactly].complete = true
		return map[string]any{"ok": true, "entry_id": "1"}
	}
	at := exactly
	for _, prefix := range restore {
		if at < 0 {
			at = find(func(k string) bool { return strings.HasPrefix(k, prefix) })
		}
	}
	if at < 0 || !f.entries[at].complete {
		return map[string]any{"ok": false, "signed_download_url": "", "matched_key": ""}
	}
	return map[string]any{"ok": true, "matched_key": f.entries[at].key,
		"signed_download_url": fmt.Sprintf("%s/blob/%d?sig=read-secret", f.url, at)}
}

// blob answers a request to the storage.
func (f *fakeActions) blob(w http.ResponseWriter, r *http.Request, body []byte) {
	var n int
	query := r.URL.Query()
	if _, err := fmt.Sscanf(r.URL.Path, "/blob/%d", &n); err != nil || n >= len(f.entries) ||
		r.Header.Get("Authorization") != "" ||
		!strings.HasSuffix(query.Get("sig"), "-secret") {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	e := &f.entries[n]
	switch {
	case r.Method == http.MethodGet:
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(e.data)))
		return
	case query.Get("comp") == "block":
		f.blocks[fmt.Sprint(n, query.Get("blockid"))] = body
	case query.Get("comp") == "blocklist":
		e.data = nil
		for _, id := range regexp.MustCompile("<Latest>([^<]*)</Latest>").FindAllSubmatch(body,
			-1) {
			if _, err := base64.StdEncoding.DecodeString(string(id[1])); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			e.data = append(e.data, f.blocks[fmt.Sprint(n, string(id[1]))]...)
		}
	case r.Header.Get("X-Ms-Blob-Type") == "BlockBlob":
		e.data = body
	default:
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

func TestActionsStore(t *testing.T) {
	for _, limit := range []int64{256 << 20, 10_000} {
		f := &fakeActions{}
		env := startActions(t, f)
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			remotecachetest.Test(t,
				func(t *testing.T, m *remotecachetest.Machine) remotecache.Store {
					s := opened(t, "gha:main", m, env).(*actionsStore)
					s.single, s.block = limit, 70_000
					return s
				})
		})
	}
}

// TestActionsEntries checks that scopes have entries of their own, that a layer is sent once, and
// what messages say.
func TestActionsEntries(t *testing.T) {
	f := &fakeActions{throttle: 2}
	env := startActions(t, f)
	m := remotecachetest.NewMachine(t)
	d, _ := m.Layer(t, 1, 100)
	for range 2 {
		if err := opened(t, "gha", m, env).Send(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if err := opened(t, "gha", m, env).Put(t.Context(), "n", []byte("data"), nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"GetCacheEntryDownloadURL", "CreateCacheEntry", "PUT blob",
		"FinalizeCacheEntryUpload", "GetCacheEntryDownloadURL", "CreateCacheEntry", "PUT blob",
		"FinalizeCacheEntryUpload"}
	if got := fmt.Sprint(f.log); got != fmt.Sprint(want) {
		t.Errorf("requests %s, want %s", got, want)
	}
	if _, _, err := opened(t, "gha:other", m, env).Get(t.Context(), "n"); err !=
		remotecache.ErrNoDocument {
		t.Errorf("another scope: %v", err)
	}
	// An entry that a job has not completed does not keep others from writing the blob.
	f.entries[0].complete = false
	if err := opened(t, "gha", m, env).Send(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if e := f.entries[len(f.entries)-1]; !e.complete || digest.FromBytes(e.data) != d.Digest {
		t.Errorf("the last entry is %s", e.key)
	}

	f.lose = true
	if err := opened(t, "gha", m, env).Put(t.Context(), "n", []byte("x"), nil); err != nil {
		t.Errorf("an answer was lost: %v", err)
	}

	f.readOnly = true
	err := opened(t, "gha", m, env).Put(t.Context(), "n", []byte("data"), nil)
	if err == nil || !strings.Contains(err.Error(), "use ,ro") {
		t.Errorf("without permission: %v", err)
	}
	_, _, err = opened(t, "gha", m, nil).Get(t.Context(), "n")
	if err == nil || !strings.Contains(err.Error(), "ACTIONS_RESULTS_URL") {
		t.Errorf("outside of a job: %v", err)
	}
	f.url = "ftp://x"
	_, _, err = opened(t, "gha", m, env).Get(t.Context(), "n")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an address that is not valid: %v", err)
	}
}
