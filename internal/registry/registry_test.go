package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The tests do not read files of the user.
	dir, err := os.MkdirTemp("", "registry-test-")
	if err != nil {
		panic(err)
	}
	for k, v := range map[string]string{"HOME": dir, "DOCKER_CONFIG": dir, "XDG_RUNTIME_DIR": dir,
		"XDG_CONFIG_HOME": dir, "CONTAINERS_REGISTRIES_CONF": "/dev/null"} {
		os.Setenv(k, v)
	}
	for _, k := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy",
		"REGISTRY_AUTH_FILE"} {
		os.Unsetenv(k)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// newClient returns a client with a configuration, which may be empty, and short waits between
// attempts.
func newClient(t testing.TB, conf string) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registries.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	c := New(Options{Config: path, Backoff: time.Millisecond, Idle: 5 * time.Second})
	t.Cleanup(func() { c.Close() })
	return c
}

// blobs is an image in memory.
type blobs map[digest.Digest][]byte

func (b blobs) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data),
		Size: int64(len(data))}
	b[d.Digest] = data
	return d
}

func (b blobs) addJSON(mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b.add(mediaType, data)
}

func (b blobs) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := b[d.Digest]
	if !ok {
		return nil, fmt.Errorf("no blob %s", d.Digest)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// image adds an image with layers of these sizes.
func (b blobs) image(p ocispec.Platform, sizes ...int) ocispec.Descriptor {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	m.Config = b.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: p})
	for i, n := range sizes {
		data := make([]byte, n)
		rand.NewChaCha8([32]byte{byte(i), byte(len(p.Architecture))}).Read(data)
		m.Layers = append(m.Layers, b.add(ocispec.MediaTypeImageLayerGzip, data))
	}
	d := b.addJSON(m.MediaType, m)
	d.Platform = &p
	return d
}

// server is a registry whose answers a test can change.
type server struct {
	*httptest.Server
	host string

	mu    sync.Mutex
	blobs blobs
	tags  map[string]ocispec.Descriptor // "repo:tag"
	types map[digest.Digest]string
	repos map[string]map[digest.Digest]bool // which blobs a repository has; nil: all
	parts map[string][]byte                 // the content of begun uploads
	// sessions is the number of uploads that were begun. As in docker-registry, the URL of one has
	// the size of what the server has, and is invalid once the server has more.
	sessions int
	log      []string
	seen     []http.Header
	// hook may answer a request itself.
	hook func(w http.ResponseWriter, r *http.Request) bool
}

func newServer(t testing.TB, secure bool) *server {
	s := &server{blobs: blobs{}, tags: map[string]ocispec.Descriptor{}, parts: map[string][]byte{},
		types: map[digest.Digest]string{}, repos: map[string]map[digest.Digest]bool{}}
	s.Server = httptest.NewUnstartedServer(s)
	// tests break off handshakes and answers on purpose
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	s.host = s.Listener.Addr().String()
	return s
}

// requests returns the requests since the last call.
func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.log
	s.log = nil
	return l
}

// left returns the number of uploads that were begun and have not ended.
func (s *server) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.parts)
}

func (s *server) count(part string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, l := range s.log {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}

func (s *server) tag(name string, d ocispec.Descriptor, from blobs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range from {
		s.blobs[k] = v
	}
	s.tags[name] = d
	s.types[d.Digest] = d.MediaType
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.log = append(s.log, r.Method+" "+r.URL.RequestURI())
	s.seen = append(s.seen, r.Header.Clone())
	hook := s.hook
	s.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	s.serve(w, r)
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if path == "" {
		return
	}
	if i := strings.Index(path, "/blobs/uploads/"); i >= 0 {
		s.upload(w, r, path[:i])
		return
	}
	if i := strings.LastIndex(path, "/blobs/"); i >= 0 {
		d := digest.Digest(path[i+len("/blobs/"):])
		s.mu.Lock()
		data, ok := s.blobs[d]
		if has := s.repos[path[:i]]; has != nil && !has[d] {
			ok = false
		}
		s.mu.Unlock()
		if !ok {
			fail(w, 404, "BLOB_UNKNOWN", "blob unknown to registry")
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		return
	}
	i := strings.LastIndex(path, "/manifests/")
	if i < 0 {
		fail(w, 404, "NAME_UNKNOWN", "")
		return
	}
	repo, ref := path[:i], path[i+len("/manifests/"):]
	if r.Method == http.MethodPut {
		data, _ := io.ReadAll(r.Body)
		d := ocispec.Descriptor{MediaType: r.Header.Get("Content-Type"),
			Digest: digest.FromBytes(data), Size: int64(len(data))}
		s.mu.Lock()
		s.blobs[d.Digest] = data
		s.types[d.Digest] = d.MediaType
		s.tags[repo+":"+ref] = d
		s.mu.Unlock()
		w.Header().Set("Docker-Content-Digest", d.Digest.String())
		w.WriteHeader(201)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.tags[repo+":"+ref]
	if dd := digest.Digest(ref); dd.Validate() == nil {
		if data := s.blobs[dd]; data != nil {
			t := s.types[dd]
			if t == "" {
				t = ocispec.MediaTypeImageManifest
			}
			d, ok = ocispec.Descriptor{MediaType: t, Digest: dd, Size: int64(len(data))}, true
		}
	}
	if !ok {
		fail(w, 404, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", d.MediaType)
	w.Header().Set("Docker-Content-Digest", d.Digest.String())
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.blobs[d.Digest]))
}

func (s *server) upload(w http.ResponseWriter, r *http.Request, repo string) {
	q := r.URL.Query()
	switch r.Method {
	case http.MethodPost:
		if from := q.Get("from"); from != "" {
			s.mu.Lock()
			has := s.repos[from]
			d := digest.Digest(q.Get("mount"))
			if _, ok := s.blobs[d]; ok && (has == nil || has[d]) {
				if s.repos[repo] != nil {
					s.repos[repo][d] = true
				}
				s.mu.Unlock()
				w.WriteHeader(201)
				return
			}
			s.mu.Unlock()
		}
		s.mu.Lock()
		s.sessions++
		id := fmt.Sprint("session", s.sessions)
		s.parts[id] = nil
		s.mu.Unlock()
		w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=0")
		w.WriteHeader(202)
		return
	}
	id := path.Base(r.URL.Path)
	s.mu.Lock()
	part, ok := s.parts[id]
	s.mu.Unlock()
	if !ok || q.Get("state") != fmt.Sprint(len(part)) {
		fail(w, 404, "BLOB_UPLOAD_UNKNOWN", "")
		return
	}
	switch r.Method {
	case http.MethodPatch:
		data, err := io.ReadAll(r.Body)
		s.mu.Lock()
		s.parts[id] = data // also the beginning of an incomplete body
		s.mu.Unlock()
		if err != nil {
			return
		}
		w.Header().Set("Location", fmt.Sprintf("%s?state=%d", r.URL.Path, len(data)))
		w.WriteHeader(202)
	case http.MethodDelete:
		s.mu.Lock()
		delete(s.parts, id)
		s.mu.Unlock()
		w.WriteHeader(204)
	case http.MethodPut:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		data = append(append([]byte{}, part...), data...)
		if digest.FromBytes(data).String() != q.Get("digest") {
			fail(w, 400, "DIGEST_INVALID", "")
			return
		}
		s.mu.Lock()
		delete(s.parts, id)
		s.blobs[digest.FromBytes(data)] = data
		if s.repos[repo] != nil {
			s.repos[repo][digest.FromBytes(data)] = true
		}
		s.mu.Unlock()
		w.WriteHeader(201)
	}
}

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func TestResolveAndFetch(t *testing.T) {
	for _, secure := range []bool{false, true} { // a registry on loopback may use either
		s := newServer(t, secure)
		b := blobs{}
		m := b.image(amd64, 100_000, 0)
		s.tag("a/b:1", m, b)
		c := newClient(t, "")
		got, err := c.Resolve(t.Context(), s.host+"/a/b:1", amd64)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != s.host+"/a/b:1" || got.Manifest().Descriptor.Digest != m.Digest ||
			len(got.Documents) != 1 || !bytes.Equal(got.Root().Data, b[m.Digest]) {
			t.Errorf("Resolve = %+v", got)
		}
		var doc ocispec.Manifest
		json.Unmarshal(got.Manifest().Data, &doc)
		for _, d := range append(doc.Layers, doc.Config, m) {
			r, err := got.Source.Fetch(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(data, b[d.Digest]) {
				t.Errorf("Fetch of %s: %d bytes, %v", d.Digest, len(data), err)
			}
			r.Close()
		}
		// By digest: the tag is ignored.
		if got, err := c.Resolve(t.Context(), s.host+"/a/b:nonsense@"+m.Digest.String(),
			amd64); err != nil || got.Manifest().Descriptor.Digest != m.Digest {
			t.Errorf("by digest: %v", err)
		}
		if d, err := c.Head(t.Context(), s.host+"/a/b:1"); err != nil ||
			d.Digest != m.Digest || d.Size != m.Size {
			t.Errorf("Head = %v, %v", d, err)
		}
		_, err = c.Resolve(t.Context(), s.host+"/a/b:2", amd64)
		if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(),
			"no such image "+s.host+"/a/b:2") ||
			!strings.Contains(err.Error(), "manifest unknown") {
			t.Errorf("missing tag: %v", err)
		}
	}
}

// TestVariants checks that an image without a variant counts as one for the default variant.
func TestVariants(t *testing.T) {
	of := func(arch, variant string) ocispec.Platform {
		return ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant}
	}
	for _, test := range []struct {
		want, have ocispec.Platform
		ok         bool
	}{
		{of("arm64", "v9"), of("arm64", ""), true},
		{of("arm64", ""), of("arm64", "v9"), false},
		{of("arm64", "v7"), of("arm64", ""), false},
		{of("amd64", "v2"), of("amd64", ""), true},
		{of("amd64", ""), of("amd64", "v2"), false},
		{of("arm", "v6"), of("arm", ""), false},
		{of("arm", ""), of("arm", "v6"), true},
		{of("riscv64", ""), of("riscv64", ""), true},
	} {
		if got := Matches(test.want, test.have); got != test.ok {
			t.Errorf("Matches(%v, %v) = %t", test.want, test.have, got)
		}
	}
}

// TestWindowsVersions compares the images that are used for a version of Windows with those that
// containerd's package platforms (v1.0.0-rc.5) accepts.
func TestWindowsVersions(t *testing.T) {
	windows := func(version string) ocispec.Platform {
		return ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: version}
	}
	have := []string{"10.0.17763.6893", "10.0.20348.1", "10.0.22621.5", "10.0.25398",
		"10.0.26100.1", "10.1.17763", ""}
	for want, fits := range map[string]string{ // an x for each version in have that fits
		"10.0.17763":     "x-----x",
		"10.0.17763.100": "x-----x",
		"10.0.20348":     "-x----x",
		"10.0.22621":     "-xx---x",
		"10.0.26100":     "-xxxx-x",
		"10.0.26200":     "-xxxx-x",
		"":               "xxxxxxx",
	} {
		for i, version := range have {
			if got := Matches(windows(want), windows(version)); got != (fits[i] == 'x') {
				t.Errorf("Matches(%s, %s) = %t", want, version, got)
			}
		}
	}
	if distance(windows("10.0.26100"), windows(have[1])) <=
		distance(windows("10.0.26100"), windows(have[3])) {
		t.Error("an older build is not worse than a newer one")
	}
	linux := ocispec.Platform{OS: "linux", Architecture: "amd64", OSVersion: "10.0.17763"}
	other := linux
	if other.OSVersion = "10.0.17763.1"; Matches(linux, other) {
		t.Error("revisions of a build are the same for Linux")
	}
}

func TestPlatforms(t *testing.T) {
	s := newServer(t, false)
	b := blobs{}
	arm := func(v string) ocispec.Platform {
		return ocispec.Platform{OS: "linux", Architecture: "arm", Variant: v}
	}
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex}
	for i, p := range []ocispec.Platform{arm("v5"), amd64, arm("v7"),
		{OS: "unknown", Architecture: "unknown"}, {OS: "windows", Architecture: "amd64"},
		{OS: "linux", Architecture: "386"}} {
		ix.Manifests = append(ix.Manifests, b.image(p, i))
	}
	s.tag("a:latest", b.addJSON(ix.MediaType, ix), b)
	c := newClient(t, "")
	tests := []struct {
		want ocispec.Platform
		i    int
	}{
		{amd64, 1}, {ocispec.Platform{OS: "linux", Architecture: "x86_64"}, 1}, {arm("v7"), 2},
		{arm("v6"), 0}, {arm(""), 2},
		{arm("v8"), 2}, {ocispec.Platform{OS: "linux", Architecture: "386"}, 5},
		{ocispec.Platform{OS: "windows", Architecture: "amd64"}, 4},
		{ocispec.Platform{OS: "linux", Architecture: "arm64"}, 2},
		{ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}, 1},
		{ocispec.Platform{OS: "linux", Architecture: "s390x"}, -1},
		{ocispec.Platform{OS: "unknown", Architecture: "unknown"}, -1},
	}
	for _, tt := range tests {
		got, err := c.Resolve(t.Context(), s.host+"/a", tt.want)
		switch {
		case tt.i < 0 && (!errors.Is(err, ErrNoPlatform) ||
			!strings.Contains(err.Error(), "linux/arm/v5, linux/amd64, linux/arm/v7")):
			t.Errorf("%s: %v, want a list of what there is", FormatPlatform(tt.want), err)
		case tt.i >= 0 && err != nil:
			t.Errorf("%s: %v", FormatPlatform(tt.want), err)
		case tt.i >= 0 && (got.Manifest().Descriptor.Digest != ix.Manifests[tt.i].Digest ||
			len(got.Documents) != 2):
			t.Errorf("%s: got %s", FormatPlatform(tt.want), got.Manifest().Descriptor.Digest)
		}
	}
	// An index of one without a platform, as some tools write it, and one in another.
	bare := b.image(amd64, 3)
	bare.Platform = nil
	inner := b.addJSON(ix.MediaType, ocispec.Index{Versioned: ix.Versioned, MediaType: ix.MediaType,
		Manifests: []ocispec.Descriptor{bare}})
	s.types[inner.Digest] = inner.MediaType
	s.tag("bare:latest", b.addJSON(ix.MediaType,
		ocispec.Index{Versioned: ix.Versioned, MediaType: ix.MediaType,
			Manifests: []ocispec.Descriptor{inner}}), b)
	if got, err := c.Resolve(t.Context(), s.host+"/bare", amd64); err != nil ||
		got.Manifest().Descriptor.Digest != bare.Digest {
		t.Errorf("nested index: %v", err)
	}
	// Several without a platform: their configurations have it.
	two := []ocispec.Descriptor{b.image(arm("v7"), 4), bare, ix.Manifests[3]}
	two[0].Platform = nil
	s.tag("two:latest", b.addJSON(ix.MediaType,
		ocispec.Index{Versioned: ix.Versioned, MediaType: ix.MediaType, Manifests: two}), b)
	for i, p := range []ocispec.Platform{arm("v7"), amd64} {
		if got, err := c.Resolve(t.Context(), s.host+"/two", p); err != nil ||
			got.Manifest().Descriptor.Digest != two[i].Digest {
			t.Errorf("%s of an index without platforms: %v", FormatPlatform(p), err)
		}
	}
	if _, err := c.Resolve(t.Context(), s.host+"/two",
		ocispec.Platform{OS: "linux", Architecture: "s390x"}); !errors.Is(err, ErrNoPlatform) ||
		!strings.Contains(err.Error(), "linux/arm/v7, linux/amd64") {
		t.Errorf("s390x of an index without platforms: %v", err)
	}
}

// TestNesting resolves images in indexes that are nested as deeply as possible, and more deeply.
func TestNesting(t *testing.T) {
	b := blobs{}
	d := b.image(amd64)
	s := newServer(t, false)
	for depth := range ocidoc.MaxNesting + 1 {
		s.tag("a/b:1", d, b)
		img, err := newClient(t, "").Resolve(t.Context(), s.host+"/a/b:1", amd64)
		switch tooDeep := depth >= ocidoc.MaxNesting; {
		case tooDeep && !errors.Is(err, ocidoc.ErrNesting):
			t.Errorf("%d indexes: error %v, want %v", depth, err, ocidoc.ErrNesting)
		case !tooDeep && err != nil:
			t.Errorf("%d indexes: %v", depth, err)
		case !tooDeep && len(img.Documents) != depth+1:
			t.Errorf("%d indexes: %d documents", depth, len(img.Documents))
		}
		s.types[d.Digest] = d.MediaType
		d = b.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
	}
}

func TestManifestTypes(t *testing.T) {
	s := newServer(t, false)
	c := newClient(t, "")
	const docker = `{"schemaVersion":2,"mediaType":"` + ocidoc.DockerManifest +
		`","config":{},"layers":[]}`
	tests := []struct{ name, header, body, want string }{
		{"docker schema 2", ocidoc.DockerManifest, docker, ""},
		{"no type in an OCI manifest", ocispec.MediaTypeImageManifest,
			`{"schemaVersion":2,"config":{},"layers":[]}`, ""},
		{"wrong header", "text/plain; charset=utf-8",
			docker, ""},
		{"no header, no type", "", `{"schemaVersion":2,"config":{},"layers":[]}`, ""},
		{"schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws",
			`{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
		{"other", "application/x-thing", `{"schemaVersion":2,"mediaType":"application/x-thing"}`,
			`it is not an image but "application/x-thing"`},
		{"html", "text/html", `<html>log in</html>`, "not a manifest"},
	}
	for i, tt := range tests {
		ref := fmt.Sprintf("a:%d", i)
		data := []byte(tt.body)
		d := ocispec.Descriptor{MediaType: tt.header, Digest: digest.FromBytes(data),
			Size: int64(len(data))}
		s.tag(ref, d, blobs{d.Digest: data})
		_, err := c.Resolve(t.Context(), s.host+"/"+ref, amd64)
		if tt.want == "" && err != nil || tt.want != "" &&
			(err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestDamagedManifest(t *testing.T) {
	s := newServer(t, false)
	b := blobs{}
	m := b.image(amd64, 1)
	s.tag("a:1", m, b)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", m.MediaType)
		w.Header().Set("Docker-Content-Digest", m.Digest.String())
		w.Write(append(slices.Clone(b[m.Digest]), ' '))
		return true
	}
	c := newClient(t, "")
	for _, ref := range []string{"/a:1", "/a@" + m.Digest.String()} {
		if _, err := c.Resolve(t.Context(), s.host+ref, amd64); err == nil ||
			!strings.Contains(err.Error(), "is damaged: its digest is") {
			t.Errorf("%s: %v", ref, err)
		}
	}
	// A manifest without end is not read to its end.
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		chunk := make([]byte, 1<<20)
		for {
			if _, err := w.Write(chunk); err != nil {
				return true
			}
		}
	}
	if _, err := c.Resolve(t.Context(), s.host+"/a:1", amd64); err == nil ||
		!strings.Contains(err.Error(), "more than") {
		t.Errorf("endless manifest: %v", err)
	}
}

func TestRetries(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, 1000)
	for _, tt := range []struct {
		name  string
		times int64
		do    func(w http.ResponseWriter)
		want  string // "": the last attempt succeeds
	}{
		{name: "503", times: 3, do: func(w http.ResponseWriter) { w.WriteHeader(503) }},
		{name: "500", times: 3, do: func(w http.ResponseWriter) { w.WriteHeader(500) }},
		{name: "429", times: 2, do: func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
		}},
		{name: "broken connection", times: 3,
			do: func(http.ResponseWriter) { panic(http.ErrAbortHandler) }},
		{name: "503 for ever", times: 1 << 40,
			do:   func(w http.ResponseWriter) { w.WriteHeader(503) },
			want: "503 Service Unavailable"},
		{name: "429 for an hour", times: 1 << 40, do: func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "3600")
			fail(w, 429, "TOOMANYREQUESTS", "you have reached your pull rate limit")
		}, want: "pull rate limit"},
		{name: "403", times: 1 << 40, do: func(w http.ResponseWriter) {
			fail(w, 403, "DENIED", "go away")
		}, want: "go away; there are no credentials for 127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, false)
			s.tag("a:1", m, b)
			var n atomic.Int64
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/manifests/") && n.Add(1) <= tt.times {
					tt.do(w)
					return true
				}
				return false
			}
			_, err := newClient(t, "").Resolve(t.Context(), s.host+"/a:1", amd64)
			if tt.want == "" && err != nil || tt.want != "" &&
				(err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if n.Load() > maxTries {
				t.Errorf("%d tries", n.Load())
			}
		})
	}
}

func TestOffline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	c := newClient(t, "")
	start := time.Now()
	if _, err := c.Resolve(t.Context(), host+"/a", amd64); err == nil ||
		!strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody listens: %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	c = New(Options{Config: "/dev/null", Dial: func(context.Context, string,
		string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial",
			Err: &net.DNSError{Err: "no such host", Name: "registry.example", IsNotFound: true}}
	}})
	_, err = c.Resolve(t.Context(), "registry.example/a", amd64)
	if err == nil || !strings.Contains(err.Error(), "cannot be looked up") ||
		!strings.Contains(err.Error(), "online?") {
		t.Errorf("no name service: %v", err)
	}
}

func TestTLSMistakes(t *testing.T) {
	plain, secure := newServer(t, false), newServer(t, true)
	b := blobs{}
	m := b.image(amd64)
	plain.tag("a:latest", m, b)
	secure.tag("a:latest", m, b)
	// By a name that is not a loopback name, the same server is not trusted.
	with := func(t *testing.T, s *server, o Options) *Client {
		o.Backoff = time.Millisecond
		o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.host)
		}
		c := New(o)
		t.Cleanup(func() { c.Close() })
		return c
	}
	client := func(t *testing.T, s *server, conf string) *Client {
		path := filepath.Join(t.TempDir(), "conf")
		if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
			t.Fatal(err)
		}
		return with(t, s, Options{Config: path})
	}
	if _, err := client(t, plain, "").Resolve(t.Context(), "registry.example/a",
		amd64); err == nil || !strings.Contains(err.Error(), "answers with plain http") {
		t.Errorf("plain http: %v", err)
	}
	if _, err := client(t, secure, "").Resolve(t.Context(), "registry.example/a",
		amd64); err == nil || !strings.Contains(err.Error(), "certs.d/registry.example/ca.crt") {
		t.Errorf("unknown authority: %v", err)
	}
	insecure := "[[registry]]\nlocation = \"registry.example\"\ninsecure = true\n"
	for _, s := range []*server{plain, secure} {
		if _, err := client(t, s, insecure).Resolve(t.Context(),
			"registry.example/a", amd64); err != nil {
			t.Errorf("insecure = true: %v", err)
		}
	}
	for _, o := range []Options{{Insecure: true}, {InsecureHosts: []string{"registry.example"}}} {
		for _, s := range []*server{plain, secure} {
			if _, err := with(t, s, o).Resolve(t.Context(), "registry.example/a",
				amd64); err != nil {
				t.Errorf("%+v: %v", o, err)
			}
		}
	}
	other := Options{InsecureHosts: []string{"other.example"}}
	if _, err := with(t, secure, other).Resolve(t.Context(), "registry.example/a",
		amd64); err == nil {
		t.Error("a server is not verified because another one need not be")
	}
	// With its authority in certs.d it is trusted by the name that is in the certificate.
	dir := filepath.Join(os.Getenv("HOME"), ".config", "containers", "certs.d", "example.com")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	pem := "-----BEGIN CERTIFICATE-----\n" +
		base64.StdEncoding.EncodeToString(secure.Certificate().Raw) +
		"\n-----END CERTIFICATE-----\n"
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte(pem), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, secure, "").Resolve(t.Context(), "example.com/a", amd64); err != nil {
		t.Errorf("certs.d: %v", err)
	}
	// Options.CertDir is used for all names, and instead of certs.d.
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	given := t.TempDir()
	if err := os.WriteFile(filepath.Join(given, "any.crt"), []byte(pem), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"example.com/a": "", "other.example/a": "not other"} {
		_, err := with(t, secure, Options{CertDir: given}).Resolve(t.Context(), name, amd64)
		if want == "" && err != nil || want != "" &&
			(err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s with CertDir: %v, want %q", name, err, want)
		}
	}
	// Options.Certificates are used for their hosts only.
	ca := filepath.Join(given, "any.crt")
	for _, tt := range []struct {
		cert Certificate
		want string // part of the error; "": none
	}{
		{Certificate{Host: "example.com", Authorities: ca}, ""},
		{Certificate{Host: "other.example", Authorities: ca}, "certs.d/example.com/ca.crt"},
		{Certificate{Host: "example.com", Authorities: filepath.Join(dir, "ca.crt")},
			"certificates for example.com: " + dir + "/ca.crt holds no certificate"},
		{Certificate{Host: "example.com", Client: ca, Key: ca},
			"certificates for example.com: tls: "},
	} {
		o := Options{CertDir: t.TempDir(), Certificates: []Certificate{tt.cert}}
		_, err := with(t, secure, o).Resolve(t.Context(), "example.com/a", amd64)
		if tt.want == "" && err != nil || tt.want != "" &&
			(err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.cert, err, tt.want)
		}
	}
	// Options.InsecurePull does not apply to a push.
	pulls := with(t, plain, Options{InsecurePull: true})
	if _, err := pulls.Resolve(t.Context(), "registry.example/a", amd64); err != nil {
		t.Errorf("InsecurePull: %v", err)
	}
	pusher, err := pulls.Pusher("registry.example/a", PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pusher.Push(t.Context(), b, m); err == nil {
		t.Error("an image is pushed to a server with plain http")
	}
	empty := Options{CertDir: t.TempDir()}
	if _, err := with(t, secure, empty).Resolve(t.Context(), "example.com/a", amd64); err == nil {
		t.Error("without its authority in CertDir the server is trusted")
	}
}

// TestTransfers breaks transfers of blobs in the ways that networks do.
func TestTransfers(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, 3<<20)
	var doc ocispec.Manifest
	json.Unmarshal(b[m.Digest], &doc)
	layer := doc.Layers[0]
	data := b[layer.Digest]
	cut := func(w http.ResponseWriter, from, to int) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from,
				len(data)-1, len(data)))
			w.WriteHeader(206)
		}
		w.Write(data[from:to])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	tests := []struct {
		name string
		hook func(n int, w http.ResponseWriter, r *http.Request) bool
		want string
		gets int
	}{
		{name: "whole", gets: 1},
		{name: "broken twice, with ranges", gets: 3,
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				switch n {
				case 1:
					cut(w, 0, 1<<20)
				case 2:
					if r.Header.Get("Range") != fmt.Sprintf("bytes=%d-", 1<<20) {
						t.Errorf("Range %q", r.Header.Get("Range"))
					}
					cut(w, 1<<20, 2<<20)
				}
				return false
			}},
		{name: "broken, without ranges", gets: 2,
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 1 {
					cut(w, 0, 1<<20)
				}
				r.Header.Del("Range")
				return false
			}},
		{name: "broken, then 503", gets: 3, hook: func(n int, w http.ResponseWriter,
			r *http.Request) bool {
			switch n {
			case 1:
				cut(w, 0, 1<<20)
			case 2:
				w.WriteHeader(503)
				return true
			}
			return false
		}},
		{name: "always broken at once", want: "connection broke", gets: maxTries,
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}},
		{name: "other bytes", want: "is damaged: its digest is", gets: 1,
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				bad := slices.Clone(data)
				bad[77]++
				w.Write(bad)
				return true
			}},
		{name: "fewer bytes, said so", want: "has 5 bytes, not", gets: 1,
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.Write(data[:5])
				return true
			}},
		{name: "more bytes, not said", want: "more than", gets: 1,
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.(http.Flusher).Flush() // chunked
				w.Write(data)
				w.Write(data)
				return true
			}},
		{name: "fewer bytes, not said", want: "", gets: 2,
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n > 1 {
					return false
				}
				w.(http.Flusher).Flush()
				w.Write(data[:5000])
				return true
			}},
		{name: "wrong range", want: "requested bytes from", gets: 2,
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 1 {
					cut(w, 0, 1<<20)
				}
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d",
					len(data)-1, len(data)))
				w.WriteHeader(206)
				w.Write(data)
				return true
			}},
		{name: "missing", want: "blob unknown", gets: 1,
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				fail(w, 404, "BLOB_UNKNOWN", "")
				return true
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, false)
			s.tag("a:1", m, b)
			var n atomic.Int64
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				i := n.Add(1)
				return tt.hook != nil && tt.hook(int(i), w, r)
			}
			c := newClient(t, "")
			img, err := c.Resolve(t.Context(), s.host+"/a:1", amd64)
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			r, err := img.Source.Fetch(t.Context(), layer)
			if err == nil {
				got, err = io.ReadAll(r)
				r.Close()
			}
			if tt.want == "" && (err != nil || !bytes.Equal(got, data)) ||
				tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%d bytes, %v, want %q", len(got), err, tt.want)
			}
			if int(n.Load()) != tt.gets {
				t.Errorf("%d requests, want %d", n.Load(), tt.gets)
			}
		})
	}
}

func TestStalledTransfer(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, 100_000)
	var doc ocispec.Manifest
	json.Unmarshal(b[m.Digest], &doc)
	s := newServer(t, false)
	s.tag("a:1", m, b)
	var n atomic.Int64
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && n.Add(1) == 1 {
			w.Header().Set("Content-Length", "100000")
			w.Write(make([]byte, 10))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		}
		return false
	}
	c := New(Options{Config: "/dev/null", Backoff: time.Millisecond, Idle: 100 * time.Millisecond})
	defer c.Close()
	src, err := c.Source(s.host + "/a:1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := src.Open(t.Context(), doc.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// The ten bytes were not those of the blob, but as many.
	if got, err := io.ReadAll(r); err != nil || len(got) != 100_000 || n.Load() != 2 {
		t.Errorf("%d bytes, %v, %d requests", len(got), err, n.Load())
	}
	// Cancellation ends a transfer at once.
	n.Store(0)
	ctx, cancel := context.WithCancel(t.Context())
	r, err = src.Open(ctx, doc.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
}

// TestRedirect sends blobs to another server, which must not see the credentials.
func TestRedirect(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, 5000)
	var doc ocispec.Manifest
	json.Unmarshal(b[m.Digest], &doc)
	s, other := newServer(t, false), newServer(t, false)
	s.tag("a:1", m, b)
	var back atomic.Bool
	other.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("credentials for %s went to %s", s.host, other.host)
		}
		if back.Load() {
			http.Redirect(w, r, s.URL+"/direct", 307)
			return true
		}
		w.Write(b[doc.Layers[0].Digest])
		return true
	}
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/direct" {
			if r.Header.Get("Authorization") != "" {
				t.Error("credentials came back by way of another server")
			}
			w.Write(b[doc.Layers[0].Digest])
			return true
		}
		if _, pass, ok := r.BasicAuth(); !ok || pass != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, other.URL+"/cdn/blob?sig=x", 307)
			return true
		}
		return false
	}
	login(t, s.host, "me", "secret")
	for _, b := range []bool{false, true} {
		back.Store(b)
		c := newClient(t, "")
		img, err := c.Resolve(t.Context(), s.host+"/a:1", amd64)
		if err != nil {
			t.Fatal(err)
		}
		r, err := img.Source.Fetch(t.Context(), doc.Layers[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); err != nil {
			t.Error(err)
		}
		r.Close()
	}
}

// login writes a Docker configuration for the duration of a test.
func login(t testing.TB, host, user, password string) {
	t.Helper()
	dir := t.TempDir()
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	if err := os.WriteFile(filepath.Join(dir, "config.json"),
		fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, auth), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
}

// TestTokens goes through the token exchange of
// https://distribution.github.io/distribution/spec/auth/token/.
func TestTokens(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, 5000)
	s, issuer := newServer(t, false), newServer(t, false)
	s.tag("a/b:1", m, b)
	var asked []string
	var mu sync.Mutex
	issued := map[string]bool{}
	issuer.hook = func(w http.ResponseWriter, r *http.Request) bool {
		r.ParseForm()
		user, pass, _ := r.BasicAuth()
		mu.Lock()
		defer mu.Unlock()
		scope := strings.Join(r.Form["scope"], " ")
		asked = append(asked, fmt.Sprintf("%s %s %s:%s %s", r.Form.Get("service"), scope, user,
			pass, r.Form.Get("refresh_token")))
		tok := fmt.Sprintf("token-%d", len(asked))
		issued[tok+" "+scope] = true
		key := "token"
		if len(asked)%2 == 0 {
			key = "access_token"
		}
		fmt.Fprintf(w, `{%q:%q,"expires_in":300}`, key, tok)
		return true
	}
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		scope := "repository:a/b:pull"
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			scope = "repository:a/b:pull,push"
		}
		tok := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		mu.Lock()
		ok := false
		for k := range issued {
			t, s, _ := strings.Cut(k, " ")
			ok = ok || t == tok && (s == scope || strings.HasPrefix(s, "repository:a/b:pull,push"))
		}
		mu.Unlock()
		if !ok {
			w.Header().Set("WWW-Authenticate",
				fmt.Sprintf(`Bearer realm="%s/token?tenant=1",service="reg, istry",scope="%s"`,
					issuer.URL, scope))
			fail(w, 401, "UNAUTHORIZED", "authentication required")
			return true
		}
		return false
	}
	c := newClient(t, "")
	img, err := c.Resolve(t.Context(), s.host+"/a/b:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	var doc ocispec.Manifest
	json.Unmarshal(img.Manifest().Data, &doc)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			r, err := img.Source.Fetch(t.Context(), doc.Layers[0])
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			if _, err := io.ReadAll(r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if want := []string{"reg, istry repository:a/b:pull : "}; !slices.Equal(asked, want) {
		t.Errorf("asked for tokens: %q, want one anonymous", asked)
	}
	// An expired token is replaced.
	mu.Lock()
	clear(issued)
	mu.Unlock()
	if _, err := c.Resolve(t.Context(), s.host+"/a/b:1", amd64); err != nil {
		t.Error(err)
	}
	// With a password, for pushing.
	asked = nil
	login(t, s.host, "me", "secret")
	nb := blobs{}
	if err := newClient(t, "").Push(t.Context(), s.host+"/a/b:2", nb, nb.image(amd64, 777),
		PushOptions{}); err != nil {
		t.Error(err)
	}
	if len(asked) != 1 || asked[0] != "reg, istry repository:a/b:pull,push me:secret " {
		t.Errorf("asked for tokens: %q", asked)
	}
	// With an identity token.
	asked = nil
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"),
		fmt.Appendf(nil, `{"auths":{%q:{"auth":"PHRva2VuPjo=","identitytoken":"refresh!"}}}`,
			s.host), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	if _, err := newClient(t, "").Resolve(t.Context(), s.host+"/a/b:1", amd64); err != nil {
		t.Error(err)
	}
	if len(asked) != 1 || asked[0] != "reg, istry repository:a/b:pull : refresh!" {
		t.Errorf("asked for tokens: %q", asked)
	}
	// A token server that refuses, and one that must not get credentials.
	issuer.hook = func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(401)
		io.WriteString(w, `{"details":"incorrect username or password"}`)
		return true
	}
	if _, err := newClient(t, "").Resolve(t.Context(), s.host+"/a/b:1", amd64); !errors.Is(err,
		ErrDenied) || !strings.Contains(err.Error(), "incorrect username or password") {
		t.Errorf("refused: %v", err)
	}
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("WWW-Authenticate",
			`Bearer realm="http://169.254.169.254/latest/meta-data",service="x"`)
		w.WriteHeader(401)
		return true
	}
	if _, err := newClient(t, "").Resolve(t.Context(), s.host+"/a/b:1", amd64); err == nil ||
		!strings.Contains(err.Error(), "link-local") {
		t.Errorf("token server in the cloud's metadata: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	s := newServer(t, false)
	b := blobs{}
	s.tag("group/a:1", b.image(amd64), b)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if _, pass, ok := r.BasicAuth(); !ok || pass != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			fail(w, 401, "UNAUTHORIZED", "authentication required")
			return true
		}
		return false
	}
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	bin := t.TempDir()
	helper := "#!/bin/sh\nread host\necho \"$1 $host\" >> " + bin + "/log\n[ \"$host\" = " +
		s.host + " ] || { echo credentials not found in native keychain; exit 1; }\necho '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"secret\"}'\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-test"),
		[]byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	broken := "#!/bin/sh\necho the keychain is locked\nexit 1\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-broken"),
		[]byte(broken), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	tests := []struct {
		name, docker, podman, given string
		login                       Login
		want                        string
	}{
		{name: "auths", docker: fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.host, auth)},
		{name: "auths with a scheme",
			docker: fmt.Sprintf(`{"auths":{"https://%s/v1/":{"auth":%q}}}`, s.host, auth)},
		{name: "helper of the registry", docker: fmt.Sprintf(`{"credHelpers":{%q:"test"}}`,
			s.host)},
		{name: "helper of all", docker: `{"credsStore":"test"}`},
		{name: "podman's file", podman: fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.host, auth)},
		{name: "podman's file, a namespace",
			podman: fmt.Sprintf(`{"auths":{"%s/group":{"auth":%q},%q:{"auth":"eDp5"}}}`,
				s.host, auth, s.host)},
		{name: "none", want: "authentication required"},
		{name: "another registry's", docker: fmt.Sprintf(`{"auths":{"example.com":{"auth":%q}}}`,
			auth), want: "authentication required"},
		{name: "wrong", docker: fmt.Sprintf(`{"auths":{%q:{"auth":"eDp5"}}}`, s.host),
			want: "authentication required"},
		{name: "broken helper", docker: `{"credsStore":"broken"}`, want: "the keychain is locked"},
		{name: "broken file", docker: `{"auths":`, want: "config.json"},
		{name: "given file", docker: `{"auths":`,
			given: fmt.Sprintf(`{"auths":{"%s/group":{"auth":%q}}}`, s.host, auth)},
		{name: "only the given file", docker: fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.host,
			auth), given: `{}`, want: "authentication required"},
		{name: "login", docker: `{"auths":`, login: Login{"me", "secret"}},
		{name: "wrong login", docker: fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.host, auth),
			login: Login{"me", "wrong"}, want: "authentication required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, "auth.json"))
			for name, data := range map[string]string{"config.json": tt.docker,
				"auth.json": tt.podman, "given.json": tt.given} {
				if data != "" {
					if err := os.WriteFile(filepath.Join(dir, name),
						[]byte(data), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			c := newClient(t, "")
			if c.o.Login = tt.login; tt.given != "" {
				c.o.AuthFile = filepath.Join(dir, "given.json")
			}
			c = New(c.o)
			t.Cleanup(func() { c.Close() })
			_, err := c.Resolve(t.Context(), s.host+"/group/a:1", amd64)
			if tt.want == "" && err != nil || tt.want != "" &&
				(err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if log, _ := os.ReadFile(filepath.Join(bin, "log")); string(log) != strings.Repeat("get "+
		s.host+"\n", 2) {
		t.Errorf("the helper was asked: %q, want once in each of two tests", log)
	}
}

func TestMirrors(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, 100)
	var doc ocispec.Manifest
	json.Unmarshal(b[m.Digest], &doc)
	mirror, origin := newServer(t, false), newServer(t, false)
	conf := fmt.Sprintf(`
[[registry]]
prefix = "docker.io/library"
location = "%s/hub"
[[registry.mirror]]
location = "%s/cache/hub"
insecure = true
`, origin.host, mirror.host)
	origin.tag("hub/busybox:latest", m, b)
	c := newClient(t, conf)
	img, err := c.Resolve(t.Context(), "busybox", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if img.Name != "docker.io/library/busybox:latest" {
		t.Errorf("Name = %s", img.Name)
	}
	if got := mirror.requests(); !slices.Contains(got,
		"GET /v2/cache/hub/busybox/manifests/latest") {
		t.Errorf("the mirror was asked %q", got)
	}
	// The mirror gets the manifest but not the blob: that comes from the origin.
	mirror.tag("cache/hub/busybox:latest", m, blobs{m.Digest: b[m.Digest]})
	origin.requests()
	if img, err = c.Resolve(t.Context(), "busybox", amd64); err != nil {
		t.Fatal(err)
	}
	if n := origin.count("manifests"); n != 0 {
		t.Errorf("the origin was asked for the manifest %d times, though the mirror has it", n)
	}
	r, err := img.Source.Fetch(t.Context(), doc.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}
	r.Close()
	// No place has it: the error names all places.
	_, err = c.Resolve(t.Context(), "busybox:2", amd64)
	want := fmt.Sprintf(
		"no such image docker.io/library/busybox:2: tried mirror %s/cache/hub/busybox: ",
		mirror.host)
	if !errors.Is(err, ErrNotFound) || !strings.HasPrefix(err.Error(), want) ||
		!strings.Contains(err.Error(), "; "+origin.host+"/hub/busybox: ") {
		t.Errorf("got  %v\nwant %s…", err, want)
	}
	// A mirror that is down does not matter.
	mirror.Close()
	if _, err = c.Resolve(t.Context(), "busybox", amd64); err != nil {
		t.Error(err)
	}
	if _, err := newClient(t,
		"[[registry]]\nlocation = \"docker.io\"\nblocked = true\n").Resolve(t.Context(), "busybox",
		amd64); !errors.Is(err, ErrBlocked) {
		t.Errorf("blocked: %v", err)
	}
}

func TestPush(t *testing.T) {
	s := newServer(t, false)
	s.repos["to"] = map[digest.Digest]bool{}
	s.repos["base"] = map[digest.Digest]bool{}
	b := blobs{}
	m1, m2 := b.image(amd64, 100_000, 0, 3_000_000),
		b.image(ocispec.Platform{OS: "linux", Architecture: "arm64"}, 50)
	root := b.addJSON(ocispec.MediaTypeImageIndex,
		ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{m1, m2}})
	var doc ocispec.Manifest
	json.Unmarshal(b[m1.Digest], &doc)
	// One layer is in another repository of the same server.
	s.repos["base"][doc.Layers[0].Digest] = true
	s.blobs[doc.Layers[0].Digest] = b[doc.Layers[0].Digest]
	var mu sync.Mutex
	notes := map[digest.Digest]string{}
	o := PushOptions{
		From: func(d digest.Digest) []string {
			return []string{"example.com/other", s.host + "/base:1"}
		},
		Progress: func(p PushProgress) {
			mu.Lock()
			defer mu.Unlock()
			if p.Done {
				notes[p.Descriptor.Digest] += p.Note + "."
			}
		},
	}
	c := newClient(t, "")
	if err := c.Push(t.Context(), s.host+"/to:1", b, root, o); err != nil {
		t.Fatal(err)
	}
	for d := range b {
		if s.blobs[d] == nil {
			t.Errorf("%s was not pushed", d)
		}
	}
	if got := s.tags["to:1"]; got.Digest != root.Digest || got.MediaType != root.MediaType {
		t.Errorf("the tag is %v", got)
	}
	if got := notes[doc.Layers[0].Digest]; got != "mounted from base." {
		t.Errorf("the first layer: %q", got)
	}
	// two configs, layers of 0, 50 and 3,000,000 bytes
	if n := s.count("PUT /v2/to/blobs/uploads"); n != 5 {
		t.Errorf("%d uploads, want 5: %q", n, s.requests())
	}
	// The second push sends nothing.
	s.requests()
	clear(notes)
	if err := newClient(t, "").Push(t.Context(), s.host+"/to:2", b, root, o); err != nil {
		t.Fatal(err)
	}
	if n := s.count("uploads"); n != 0 {
		t.Errorf("%d uploads of what is there: %q", n, s.requests())
	}
	// What this client has sent to one repository is mounted into the next.
	s.repos["third"] = map[digest.Digest]bool{}
	s.requests()
	if err := c.Push(t.Context(), s.host+"/third:2", b, root,
		PushOptions{ByDigest: true}); err != nil {
		t.Fatal(err)
	}
	if n := s.count("PUT /v2/third/blobs"); n != 0 {
		t.Errorf("%d uploads of what could be mounted: %q", n, s.requests())
	}
	if _, ok := s.tags["third:2"]; ok ||
		s.tags["third:"+root.Digest.String()].Digest != root.Digest {
		t.Error("pushed by digest it has a tag, or is not there")
	}
	if _, err := c.Pusher(s.host+"/to@"+root.Digest.String(), PushOptions{}); err == nil {
		t.Error("a name with a digest can be pushed to")
	}
}

func TestPushFaults(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, 1_000_000)
	var doc ocispec.Manifest
	json.Unmarshal(b[m.Digest], &doc)
	tests := []struct {
		name string
		hook func(n int, w http.ResponseWriter, r *http.Request) bool
		src  func() Fetcher
		want string
	}{
		{name: "503", hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 2 {
				return false
			}
			w.WriteHeader(503)
			return true
		}},
		{name: "broken in the middle", hook: func(n int, w http.ResponseWriter,
			r *http.Request) bool {
			if n > 2 {
				return false
			}
			io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		}},
		{name: "session forgotten", hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 1 {
				return false
			}
			fail(w, 404, "BLOB_UPLOAD_UNKNOWN", "")
			return true
		}},
		{name: "refused", want: "too big for us",
			hook: func(n int, w http.ResponseWriter, r *http.Request) bool {
				fail(w, 413, "SIZE_INVALID", "too big for us")
				return true
			}},
		{name: "own content damaged", want: "rotten",
			src: func() Fetcher { return rotten{b, doc.Layers[0].Digest} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, false)
			var n atomic.Int64
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPut || !strings.Contains(r.URL.RawQuery,
					doc.Layers[0].Digest.Encoded()) {
					return false
				}
				i := n.Add(1)
				return tt.hook != nil && tt.hook(int(i), w, r)
			}
			var src Fetcher = b
			if tt.src != nil {
				src = tt.src()
			}
			err := newClient(t, "").Push(t.Context(), s.host+"/to:1", src, m, PushOptions{})
			if tt.want == "" && err != nil || tt.want != "" &&
				(err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, ok := s.tags["to:1"]; ok != (err == nil) {
				t.Errorf("tagged: %v, error: %v", ok, err)
			}
		})
	}
}

// rotten returns an error at the end of one blob, as a store does for damaged content.
type rotten struct {
	blobs
	d digest.Digest
}

func (r rotten) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := r.blobs.Fetch(ctx, d)
	if err == nil && d.Digest == r.d {
		rc = io.NopCloser(io.MultiReader(rc, errReader{}))
	}
	return rc, err
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("rotten") }

// TestUploadElsewhere has the server send the upload to another one, which gets no credentials.
func TestUploadElsewhere(t *testing.T) {
	b := blobs{}
	m := b.image(amd64)
	s, other := newServer(t, false), newServer(t, false)
	other.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials went to another server")
		}
		data, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.blobs[digest.FromBytes(data)] = data
		s.mu.Unlock()
		w.WriteHeader(201)
		return true
	}
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `basic realm="x"`)
			w.WriteHeader(401)
			return true
		}
		if r.Method == http.MethodPost {
			w.Header().Set("Location", other.URL+"/up")
			w.WriteHeader(202)
			return true
		}
		return false
	}
	login(t, s.host, "me", "secret")
	if err := newClient(t, "").Push(t.Context(), s.host+"/to:1", b, m, PushOptions{}); err != nil {
		t.Error(err)
	}
}

// TestPusher pushes blobs one by one and at the same time, each once.
func TestPusher(t *testing.T) {
	s := newServer(t, false)
	b := blobs{}
	m := b.image(amd64, 100, 200, 300)
	var doc ocispec.Manifest
	json.Unmarshal(b[m.Digest], &doc)
	p, err := newClient(t, "").Pusher(s.host+"/to:1", PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, d := range append(doc.Layers, doc.Layers...) {
		wg.Go(func() {
			if err := p.Blob(t.Context(), b, d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := p.Push(t.Context(), b, m); err != nil {
		t.Fatal(err)
	}
	if n := s.count("PUT /v2/to/blobs"); n != 4 {
		t.Errorf("%d uploads, want 4", n)
	}
}

func TestProxy(t *testing.T) {
	b := blobs{}
	m := b.image(amd64)
	s := newServer(t, false)
	s.tag("a:latest", m, b)
	var through atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		through.Add(1)
		if r.URL.Host != "registry.example" {
			w.WriteHeader(502)
			return
		}
		s.serve(w, r)
	}))
	defer proxy.Close()
	u, _ := url.Parse(proxy.URL)
	path := filepath.Join(t.TempDir(), "conf")
	os.WriteFile(path, []byte("[[registry]]\nlocation = \"registry.example\"\ninsecure = true\n"),
		0o644)
	c := New(Options{Config: path, Proxy: http.ProxyURL(u), Backoff: time.Millisecond})
	defer c.Close()
	if _, err := c.Resolve(t.Context(), "registry.example/a", amd64); err != nil {
		t.Error(err)
	}
	if through.Load() == 0 {
		t.Error("nothing went through the proxy")
	}
}

// TestDockerRegistry pushes to and pulls from the reference implementation.
func TestDockerRegistry(t *testing.T) {
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	host := serveRegistry(t, bin, "")
	b := blobs{}
	m1, m2 := b.image(amd64, 2_000_000, 0, 10),
		b.image(ocispec.Platform{OS: "linux", Architecture: "arm64"}, 5)
	root := b.addJSON(ocispec.MediaTypeImageIndex,
		ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{m1, m2}})
	c := newClient(t, "")
	if err := c.Push(t.Context(), host+"/group/app:1", b, root, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Push(t.Context(), host+"/other:1", b, m1,
		PushOptions{Progress: func(p PushProgress) {
			if p.Done && !strings.HasPrefix(p.Note, "mounted from group/app") {
				t.Errorf("%s was not mounted: %q", p.Descriptor.Digest, p.Note)
			}
		}}); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]digest.Digest{"group/app:1": m1.Digest, "other:1": m1.Digest,
		"group/app@" + root.Digest.String(): m1.Digest} {
		img, err := newClient(t, "").Resolve(t.Context(), host+"/"+ref, amd64)
		if err != nil || img.Manifest().Descriptor.Digest != want {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		var doc ocispec.Manifest
		json.Unmarshal(img.Manifest().Data, &doc)
		for _, d := range append(doc.Layers, doc.Config) {
			r, err := img.Source.Fetch(t.Context(), d)
			if err != nil {
				t.Error(err)
				continue
			}
			if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, b[d.Digest]) {
				t.Errorf("%s: %v", d.Digest, err)
			}
			r.Close()
		}
	}
	if _, err := c.Resolve(t.Context(), host+"/group/app:none",
		amd64); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
}

func BenchmarkFetch(b *testing.B) {
	s := newServer(b, false)
	data := make([]byte, 64<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	bl := blobs{}
	d := bl.add("application/octet-stream", data)
	s.tag("a:1", d, bl)
	src, err := newClient(b, "").Source(s.host + "/a:1")
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 256<<10)
	for name, open := range map[string]func(context.Context,
		ocispec.Descriptor) (io.ReadCloser, error){"checked": src.Fetch, "plain": src.Open} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(d.Size)
			b.ReportAllocs()
			for b.Loop() {
				r, err := open(b.Context(), d)
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = r.Read(buf)
				}
				if err != io.EOF {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}
