package registrytest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/opencontainers/go-digest"
)

// Registry is a running registry.
type Registry struct {
	Host string // "127.0.0.1:port"

	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	separate  bool
	holds     map[string]bool     // by repository + "@" + digest of a blob
	manifests map[string]manifest // by repository + ":" + tag or "@" + digest
	log       []string
	user      string
	password  string
	// by a part of "METHOD path": how many more requests to answer with 503
	faults  map[string]int
	uploads map[string][]byte
}

type manifest struct {
	mediaType string
	raw       []byte
}

// Start starts a registry on loopback. Close it at the end.
func Start() (*Registry, func()) {
	r := &Registry{
		blobs: map[digest.Digest][]byte{}, manifests: map[string]manifest{},
		holds: map[string]bool{}, faults: map[string]int{}, uploads: map[string][]byte{},
	}
	srv := httptest.NewServer(r)
	r.Host = strings.TrimPrefix(srv.URL, "http://")
	return r, srv.Close
}

// New starts a registry that ends with the test.
func New(t testing.TB) *Registry {
	r, stop := Start()
	t.Cleanup(stop)
	return r
}

// Add puts an image into a repository under a tag: Add("library/busybox", "latest", made).
func (r *Registry) Add(repo, tag string, made *imagetest.Made) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d, raw := range made.Blobs {
		r.blobs[d] = raw
		r.holds[repo+"@"+d.String()] = true
	}
	d := made.Descriptor
	r.put(repo, tag, manifest{d.MediaType, made.Blobs[d.Digest]})
}

func (r *Registry) put(repo, tag string, m manifest) {
	r.manifests[repo+"@"+digest.FromBytes(m.raw).String()] = m
	if tag != "" {
		r.manifests[repo+":"+tag] = m
	}
}

// Log lists the requests since the last call: "GET /v2/library/busybox/manifests/latest 200".
func (r *Registry) Log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := r.log
	r.log = nil
	return log
}

// Auth makes the registry require a user and password from now on.
func (r *Registry) Auth(user, password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user, r.password = user, password
}

// Separate makes a blob unknown in repositories to which it was neither pushed nor mounted, as in
// other registries. Otherwise all repositories have all blobs.
func (r *Registry) Separate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.separate = true
}

// Forget removes the blobs of a repository, as a garbage collection that knows no manifests would.
// It has an effect only after Separate.
func (r *Registry) Forget(repo string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.holds, func(k string, _ bool) bool { return strings.HasPrefix(k, repo+"@") })
}

// has reports whether a repository has a blob.
func (r *Registry) has(repo string, d digest.Digest) bool {
	_, ok := r.blobs[d]
	return ok && (!r.separate || r.holds[repo+"@"+d.String()])
}

// Fail answers the next n requests whose "METHOD path" contains part with 503.
func (r *Registry) Fail(part string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[part] = n
}

var route = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs|tags)/([^/]*/?[^/]*)$`)

// ServeHTTP answers one request.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	code, header, answer := r.answer(req, body)
	r.log = append(r.log, fmt.Sprintf("%s %s %d", req.Method, req.URL.Path, code))
	for k, v := range header {
		w.Header().Set(k, v)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
	w.WriteHeader(code)
	if req.Method != http.MethodHead {
		w.Write(answer)
	}
}

type headers map[string]string

func (r *Registry) answer(req *http.Request, body []byte) (int, headers, []byte) {
	what := req.Method + " " + req.URL.Path
	for part, n := range r.faults {
		if n > 0 && strings.Contains(what, part) {
			r.faults[part]--
			return http.StatusServiceUnavailable, nil, nil
		}
	}
	if r.user != "" {
		if u, p, ok := req.BasicAuth(); !ok || u != r.user || p != r.password {
			return failure(http.StatusUnauthorized, "UNAUTHORIZED",
				headers{"WWW-Authenticate": `Basic realm="registrytest"`})
		}
	}
	if strings.TrimSuffix(req.URL.Path, "/") == "/v2" {
		return http.StatusOK, headers{"Content-Type": "application/json"}, []byte("{}")
	}
	m := route.FindStringSubmatch(req.URL.Path)
	if m == nil {
		return failure(http.StatusNotFound, "NAME_UNKNOWN", nil)
	}
	switch {
	case m[2] == "manifests":
		return r.manifest(req, m[1], m[3], body)
	case m[2] == "tags":
		return r.tags(m[1])
	case strings.HasPrefix(m[3], "uploads/"):
		return r.upload(req, m[1], strings.TrimPrefix(m[3], "uploads/"), body)
	}
	return r.blob(m[1], m[3])
}

func (r *Registry) manifest(req *http.Request, repo, ref string,
	body []byte) (int, headers, []byte) {
	sep := ":"
	if strings.HasPrefix(ref, "sha256:") {
		sep = "@"
	}
	if req.Method == http.MethodPut {
		m := manifest{req.Header.Get("Content-Type"), body}
		for _, d := range refs(body) {
			if !r.has(repo, d) {
				if _, ok := r.manifests[repo+"@"+d.String()]; !ok {
					return failure(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", nil)
				}
			}
		}
		tag := ref
		if sep == "@" {
			tag = ""
		}
		r.put(repo, tag, m)
		d := digest.FromBytes(body).String()
		return http.StatusCreated, headers{"Location": "/v2/" + repo + "/manifests/" + d,
			"Docker-Content-Digest": d}, nil
	}
	m, ok := r.manifests[repo+sep+ref]
	if !ok {
		return failure(http.StatusNotFound, "MANIFEST_UNKNOWN", nil)
	}
	if req.Method == http.MethodDelete {
		if sep == ":" { // as in docker-registry, which deletes by digest only
			return failure(http.StatusBadRequest, "DIGEST_INVALID", nil)
		}
		maps.DeleteFunc(r.manifests, func(k string, o manifest) bool {
			return k == repo+"@"+ref || strings.HasPrefix(k, repo+":") &&
				digest.FromBytes(o.raw) == digest.Digest(ref)
		})
		return http.StatusAccepted, nil, nil
	}
	return http.StatusOK, headers{"Content-Type": m.mediaType,
		"Docker-Content-Digest": digest.FromBytes(m.raw).String()}, m.raw
}

// refs returns the digests to which a manifest or index refers.
func refs(raw []byte) []digest.Digest {
	var doc struct {
		Config    *struct{ Digest digest.Digest }
		Layers    []struct{ Digest digest.Digest }
		Manifests []struct{ Digest digest.Digest }
	}
	if json.Unmarshal(raw, &doc) != nil {
		return nil
	}
	var all []digest.Digest
	if doc.Config != nil {
		all = append(all, doc.Config.Digest)
	}
	for _, l := range append(doc.Layers, doc.Manifests...) {
		all = append(all, l.Digest)
	}
	return all
}

func (r *Registry) tags(repo string) (int, headers, []byte) {
	var tags []string
	for k := range r.manifests {
		if tag, ok := strings.CutPrefix(k, repo+":"); ok {
			tags = append(tags, tag)
		}
	}
	raw, err := json.Marshal(map[string]any{"name": repo, "tags": tags})
	if err != nil {
		panic(err)
	}
	return http.StatusOK, headers{"Content-Type": "application/json"}, raw
}

func (r *Registry) blob(repo, ref string) (int, headers, []byte) {
	if !r.has(repo, digest.Digest(ref)) {
		return failure(http.StatusNotFound, "BLOB_UNKNOWN", nil)
	}
	raw := r.blobs[digest.Digest(ref)]
	return http.StatusOK, headers{"Content-Type": "application/octet-stream",
		"Docker-Content-Digest": ref}, raw
}

// upload handles the three ways to push a blob: mount, one POST or PUT, and PATCHes with a PUT at
// the end.
func (r *Registry) upload(req *http.Request, repo, id string, body []byte) (int, headers, []byte) {
	q := req.URL.Query()
	want := digest.Digest(q.Get("digest"))
	switch req.Method {
	case http.MethodPost:
		if d := digest.Digest(q.Get("mount")); d != "" {
			if r.has(q.Get("from"), d) {
				r.holds[repo+"@"+d.String()] = true
				return http.StatusCreated, headers{"Location": "/v2/" + repo +
					"/blobs/" + d.String()}, nil
			}
		}
		if want == "" {
			id = fmt.Sprint("u", len(r.uploads))
			r.uploads[id] = nil
			return http.StatusAccepted, headers{"Location": "/v2/" + repo + "/blobs/uploads/" + id,
				"Docker-Upload-UUID": id}, nil
		}
	case http.MethodPatch:
		r.uploads[id] = append(r.uploads[id], body...)
		return http.StatusAccepted, headers{"Location": req.URL.Path,
			"Range": fmt.Sprintf("0-%d", max(len(r.uploads[id])-1, 0))}, nil
	case http.MethodPut:
	default:
		return failure(http.StatusMethodNotAllowed, "UNSUPPORTED", nil)
	}
	all := append(r.uploads[id], body...)
	if digest.FromBytes(all) != want {
		return failure(http.StatusBadRequest, "DIGEST_INVALID", nil)
	}
	r.blobs[want] = all
	r.holds[repo+"@"+want.String()] = true
	return http.StatusCreated, headers{"Location": "/v2/" + repo + "/blobs/" + want.String(),
		"Docker-Content-Digest": want.String()}, nil
}

func failure(code int, name string, h headers) (int, headers, []byte) {
	if h == nil {
		h = headers{}
	}
	h["Content-Type"] = "application/json"
	return code, h, []byte(`{"errors":[{"code":"` + name + `","message":"` +
		strings.ToLower(name) + `"}]}`)
}
