package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// memory is Metadata for tests.
type memory struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (m *memory) Load(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m[name]
}

func (m *memory) Store(_ context.Context, name string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = map[string][]byte{}
	}
	m.m[name] = value
	return nil
}

// site is a server that counts the responses that it sends.
type site struct {
	*httptest.Server
	mu      sync.Mutex
	bodies  int
	asked   int
	content string
	etag    string
	always  bool // sends the content even if the client already has it
	noHead  bool // refuses HEAD
	fail    int  // number of requests that fail first
	header  http.Header
}

func newSite(t *testing.T) *site {
	s := &site{content: "hello", header: http.Header{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.fail > 0 {
		s.fail--
		http.Error(w, "later", http.StatusServiceUnavailable)
		return
	}
	if s.noHead && r.Method == http.MethodHead {
		w.Header().Set("ETag", s.etag)
		http.Error(w, "no", http.StatusMethodNotAllowed)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/secret") && r.Header.Get("Authorization") != "Bearer x" {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	for k, v := range s.header {
		w.Header()[k] = v
	}
	if s.etag != "" {
		w.Header().Set("ETag", s.etag)
		if r.Header.Get("If-None-Match") == s.etag && !s.always {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if r.Method == http.MethodHead {
		return
	}
	s.bodies++
	io.WriteString(w, s.content)
}

func fetchAll(t *testing.T, r Remote) (*Fetched, string) {
	t.Helper()
	f, err := r.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b, err := os.ReadFile(f.Dir.Name() + "/" + f.Items[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	return f, string(b)
}

func TestHTTP(t *testing.T) {
	s := newSite(t)
	s.header.Set("Last-Modified", "Tue, 02 Jan 2024 03:04:05 GMT")
	d, err := HTTP(t.Context(), s.URL+"/dir/app.tar?x=1", HTTPOptions{TempDir: below(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	f, got := fetchAll(t, d)
	if got != "hello" || s.bodies != 1 {
		t.Errorf("content %q with %d downloads, want hello with one", got, s.bodies)
	}
	it := f.Items[0]
	if it.Target != "app.tar" {
		t.Errorf("target = %q, want app.tar", it.Target)
	}
	info, err := os.Stat(f.Dir.Name() + "/app.tar")
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC); info.Mode() != 0o600 ||
		!info.ModTime().Equal(want) {
		t.Errorf("mode %v, time %v, want 0600 and %v", info.Mode(), info.ModTime(), want)
	}
	if e := slices.Collect(it.Entries.All())[0]; e.Size != info.Size() ||
		e.MtimeNs != info.ModTime().UnixNano() {
		t.Errorf("entry %+v is not what stat says: %v", e, info)
	}
	temp := f.Dir.Name()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(temp); !os.IsNotExist(err) {
		t.Errorf("%s is left behind", temp)
	}
}

func TestHTTPKeys(t *testing.T) {
	s := newSite(t)
	key := func(path string, o HTTPOptions) digest.Digest {
		t.Helper()
		o.TempDir = below(t.TempDir())
		d, err := HTTP(t.Context(), s.URL+path, o)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		return d.Key()
	}
	base := key("/f", HTTPOptions{})
	if key("/g/f?v=2", HTTPOptions{}) != base {
		t.Error("the same file from another URL has another key")
	}
	if key("/g", HTTPOptions{}) == base {
		t.Error("another name has the same key")
	}
	s.content = "other"
	if key("/f", HTTPOptions{}) == base {
		t.Error("other content has the same key")
	}
	s.content = "hello"
	s.header.Set("Last-Modified", "Tue, 02 Jan 2024 03:04:05 GMT")
	if key("/f", HTTPOptions{}) == base {
		t.Error("another time has the same key, though it is copied")
	}
	// With a checksum, no request is made.
	asked := s.asked
	sum := digest.FromString("hello")
	if key("/f", HTTPOptions{Checksum: sum}) != key("/f", HTTPOptions{Checksum: sum}) ||
		s.asked != asked {
		t.Errorf("a key with a checksum took %d requests, want none", s.asked-asked)
	}
}

func TestHTTPRevalidates(t *testing.T) {
	for _, tt := range []struct {
		always, noHead bool
		bodies         int // downloads of an unchanged file
	}{{false, false, 1}, {true, false, 1}, {false, true, 1}, {true, true, 2}} {
		s := newSite(t)
		s.etag, s.always, s.noHead = `"one"`, tt.always, tt.noHead
		o := HTTPOptions{TempDir: below(t.TempDir()), Store: &memory{}}
		open := func() *Download {
			t.Helper()
			d, err := HTTP(t.Context(), s.URL+"/f", o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { d.Close() })
			return d
		}
		first := open()
		second := open()
		if first.Key() != second.Key() {
			t.Error("the key of what did not change has changed")
		}
		if second.body != nil {
			t.Error("what did not change was downloaded again")
		}
		if s.bodies != tt.bodies {
			t.Errorf("%+v: the server sent the file %d times, want %d", tt, s.bodies, tt.bodies)
		}
		if _, got := fetchAll(t, second); got != "hello" {
			t.Errorf("content = %q, want hello", got)
		}
		s.content, s.etag = "changed", `"two"`
		if open().Key() == first.Key() {
			t.Error("the key of what has changed is the same")
		}
		// The file was changed between Key and Fetch: it is not the file of the key.
		third := open()
		s.content, s.etag = "again", `"three"`
		if _, err := third.Fetch(t.Context()); !errors.Is(err, ErrRemoteChanged) {
			t.Errorf("Fetch of something else = %v, want ErrRemoteChanged", err)
		}
	}
}

func TestHTTPChecksum(t *testing.T) {
	s := newSite(t)
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		d, err := HTTP(t.Context(), s.URL+"/f",
			HTTPOptions{TempDir: below(t.TempDir()), Checksum: alg.FromString("hello")})
		if err != nil {
			t.Fatal(err)
		}
		if _, got := fetchAll(t, d); got != "hello" {
			t.Errorf("content = %q, want hello", got)
		}
	}
	temp := t.TempDir()
	d, err := HTTP(t.Context(), s.URL+"/f",
		HTTPOptions{TempDir: below(temp), Checksum: digest.FromString("other")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Fetch(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "digest mismatch") {
		t.Errorf("Fetch error = %v, want digest mismatch", err)
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := HTTP(t.Context(), s.URL+"/f", HTTPOptions{Checksum: "sha256:short"}); err == nil {
		t.Error("an invalid checksum is accepted")
	}
}

func TestHTTPNames(t *testing.T) {
	s := newSite(t)
	tests := []struct{ path, disposition, want string }{
		{"/a/b.txt", "", "b.txt"},
		{"/a/b.txt", `attachment; filename="c.txt"`, "b.txt"},
		{"/a/", "", "a"},
		{"/", "", "__unnamed__"},
		{"", `attachment; filename="c.txt"`, "c.txt"},
		{"", `attachment; filename="../../etc/passwd"`, "passwd"},
		{"", `attachment; filename=".."`, "__unnamed__"},
		{"/x%2Fy", "", "y"},
		{"/a%0Ab", "", "__unnamed__"},
		{"/with%20space", "", "with space"},
	}
	for _, tt := range tests {
		s.header.Set("Content-Disposition", tt.disposition)
		d, err := HTTP(t.Context(), s.URL+tt.path, HTTPOptions{TempDir: below(t.TempDir())})
		if err != nil {
			t.Fatal(err)
		}
		if f, _ := fetchAll(t, d); f.Items[0].Target != tt.want {
			t.Errorf("name of %q with %q = %q, want %q", tt.path, tt.disposition,
				f.Items[0].Target, tt.want)
		}
	}
}

func TestHTTPErrors(t *testing.T) {
	s := newSite(t)
	s.fail = 2
	if _, err := HTTP(t.Context(), s.URL+"/f",
		HTTPOptions{TempDir: below(t.TempDir())}); err != nil {
		t.Errorf("a server that answers the third time: %v", err)
	}
	_, err := HTTP(t.Context(), strings.Replace(s.URL, "http://", "http://me:pass@", 1)+"/secret",
		HTTPOptions{TempDir: below(t.TempDir())})
	if err == nil || !strings.Contains(err.Error(), "401 Unauthorized") ||
		strings.Contains(err.Error(), "pass") {
		t.Errorf("error = %v, want 401 and no password", err)
	}
	auth := func(_ context.Context, host string) string {
		if host == "127.0.0.1" {
			return "Bearer x"
		}
		return ""
	}
	if _, err := HTTP(t.Context(), s.URL+"/secret",
		HTTPOptions{TempDir: below(t.TempDir()), Authorization: auth}); err != nil {
		t.Error(err)
	}
	if _, err := HTTP(t.Context(), "ftp://host/f", HTTPOptions{}); err == nil {
		t.Error("ftp is accepted")
	}
}

func TestHTTPCutShort(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "only this")
	}))
	defer srv.Close()
	temp := t.TempDir()
	if _, err := HTTP(t.Context(), srv.URL+"/f", HTTPOptions{TempDir: below(temp)}); !errors.Is(err,
		io.ErrUnexpectedEOF) {
		t.Errorf("error = %v, want unexpected EOF", err)
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestHTTPSilence checks that a download ends if the server does not answer, stops, or sends a byte
// now and then, and that one with a slow reader does not.
func TestHTTPSilence(t *testing.T) {
	send := func(w http.ResponseWriter, n int) {
		w.Write(make([]byte, n))
		w.(http.Flusher).Flush()
	}
	for name, answer := range map[string]http.HandlerFunc{
		"no answer": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half":      func(w http.ResponseWriter, r *http.Request) { send(w, 10); <-r.Context().Done() },
		"bytes": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				send(w, 1)
				time.Sleep(10 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(answer)
			defer srv.Close()
			temp := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err := HTTP(ctx, srv.URL+"/f",
				HTTPOptions{TempDir: below(temp), Silence: 200 * time.Millisecond})
			if !errors.Is(err, errStalled) {
				t.Errorf("error = %v, want that nothing was sent", err)
			}
			if left, _ := os.ReadDir(temp); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	// A server that is slow, but not too slow.
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 4 {
			send(w, 64<<10)
			time.Sleep(300 * time.Millisecond)
		}
	}))
	defer srv.Close()
	if _, err := HTTP(t.Context(), srv.URL+"/f",
		HTTPOptions{TempDir: below(t.TempDir()), Silence: time.Second}); err != nil {
		t.Error(err)
	}
}

// TestHTTPRedirects checks that credentials are not sent along redirects to another host, port or
// scheme, nor back from there.
func TestHTTPRedirects(t *testing.T) {
	var mu sync.Mutex
	var got []string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.URL.Path+" "+r.Header.Get("Authorization")+r.Header.Get("Referer"))
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
		}
	})
	first, second := httptest.NewServer(handler), httptest.NewServer(handler)
	secure := httptest.NewTLSServer(handler)
	for _, s := range []*httptest.Server{first, second, secure} {
		t.Cleanup(s.Close)
	}
	transport := secure.Client().Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(address)
		return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
	}
	transport.TLSClientConfig.InsecureSkipVerify = true
	client := &http.Client{Transport: transport, CheckRedirect: checkRedirect}
	port := func(s *httptest.Server) string { return s.URL[strings.LastIndexByte(s.URL, ':'):] }
	for _, tt := range []struct{ name, from, to, want string }{
		{"the same server", "http://a.test" + port(first), "/x", "/x token"},
		{"a subdomain", "http://a.test" + port(first), "http://b.a.test" + port(first) + "/x", "/x "},
		{"another port", "http://a.test" + port(first), "http://a.test" + port(second) + "/x", "/x "},
		{"plain http", "https://a.test" + port(secure), "http://a.test" + port(first) + "/x", "/x "},
		{"there and back", "http://a.test" + port(first), "http://b.test" + port(first) +
			"/?to=http://a.test" + port(first) + "/x", "/x "},
	} {
		got = nil
		_, err := HTTP(t.Context(), tt.from+"/?to="+url.QueryEscape(tt.to), HTTPOptions{
			TempDir: below(t.TempDir()), Client: client,
			Authorization: func(context.Context, string) string { return "token" }})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		last := got[len(got)-1]
		if tt.name == "the same server" {
			last, _, _ = strings.Cut(last, "http:") // the address of the same server is no secret
		}
		if last != tt.want || got[0] != "/ token" {
			t.Errorf("%s: the servers got %q, want %q last", tt.name, got, tt.want)
		}
	}
	d, err := HTTP(t.Context(), first.URL, HTTPOptions{TempDir: below(t.TempDir())})
	if err != nil || d.o.Client.CheckRedirect == nil {
		t.Errorf("without a client: %v", err)
	}
}

func TestStoreName(t *testing.T) {
	d, err := HTTP(t.Context(), "http://h/../..", HTTPOptions{Checksum: digest.FromString("x")})
	if err != nil {
		t.Fatal(err)
	}
	if n := d.storeName(); len(n) != len("http-")+2*sha256.Size || strings.ContainsAny(n, "/.") {
		t.Errorf("storeName = %q", n)
	}
}

// TestFetchAfterChange checks that a file is not used under its key if its content or time has
// changed between the response from which the key was made and the download. The next call must
// return another key.
func TestFetchAfterChange(t *testing.T) {
	for _, change := range []func(s *site){
		func(s *site) { s.content, s.etag = "other", `"2"` },
		func(s *site) { s.header.Set("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT") },
	} {
		s := newSite(t)
		s.etag = `"1"`
		s.header.Set("Last-Modified", "Mon, 01 Jan 2018 00:00:00 GMT")
		o := HTTPOptions{TempDir: below(t.TempDir()), Store: &memory{}}
		open := func() *Download {
			d, err := HTTP(t.Context(), s.URL+"/f", o)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		open().Close()
		d := open() // the server answers 304 Not Modified
		key := d.Key()
		change(s)
		if f, err := d.Fetch(t.Context()); !errors.Is(err, ErrRemoteChanged) {
			t.Errorf("Fetch = %v, %v, want ErrRemoteChanged", f, err)
		}
		d = open()
		if d.Key() == key {
			t.Error("the key is the same")
		}
		f, err := d.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// TestFetchWithChecksum checks that the time of a file with a checksum is not in its key.
func TestFetchWithChecksum(t *testing.T) {
	s := newSite(t)
	s.header.Set("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
	d, err := HTTP(t.Context(), s.URL+"/f", HTTPOptions{TempDir: below(t.TempDir()),
		Checksum: digest.FromString("hello")})
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestFrozenHoles checks that the private copy of a sparse file has holes.
func TestFrozenHoles(t *testing.T) {
	dir := makeTree(t, "file a A\n")
	const size = 64 << 20
	if err := os.Truncate(filepath.Join(dir, "a"), size); err != nil {
		t.Fatal(err)
	}
	want := matchAll(t, openTree(t, dir, TreeOptions{})).Digest
	tree := openTree(t, dir, TreeOptions{TempDir: func() (string, error) {
		return t.TempDir(), nil
	}})
	matchAll(t, tree)
	tree.Changed("a", false)
	m := matchAll(t, tree)
	if m.Digest != want {
		t.Errorf("digest %s, want %s", m.Digest, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(m.Frozen.Name(), "1"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != size || st.Blocks*512 > 4<<20 {
		t.Errorf("the copy has %d bytes and takes %d", st.Size, st.Blocks*512)
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
}
