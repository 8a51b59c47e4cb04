package registry

import (
	"net/http"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestLocate asks for blobs that a repository has, that another one has, and that none has. No
// bytes are sent, and no upload is left open.
func TestLocate(t *testing.T) {
	s := newServer(t, false)
	content := []byte("a blob")
	d := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	s.blobs[d.Digest] = content
	s.repos["to"] = map[digest.Digest]bool{}
	s.repos["base"] = map[digest.Digest]bool{d.Digest: true}
	lost := ocispec.Descriptor{Digest: digest.FromString("lost"), Size: 4}
	longer := d
	longer.Size++
	from := func(repo string) PushOptions {
		return PushOptions{From: func(digest.Digest) []string { return []string{s.host + repo} }}
	}
	for _, tt := range []struct {
		name string
		repo string
		o    PushOptions
		d    ocispec.Descriptor
		want bool
	}{
		{"nowhere", "/to", from("/base"), lost, false},
		{"unknown where", "/to", PushOptions{}, d, false},
		{"another size in another repository", "/to", from("/base"), longer, false},
		{"in another repository", "/to", from("/base"), d, true},
		{"there", "/base", PushOptions{}, d, true},
		{"another size", "/base", PushOptions{}, longer, false},
		{"no digest", "/base", PushOptions{}, ocispec.Descriptor{}, false},
	} {
		delete(s.repos["to"], d.Digest)
		p, err := newClient(t, "").Pusher(s.host+tt.repo, tt.o)
		if err != nil {
			t.Fatal(err)
		}
		s.requests()
		got, err := p.Locate(t.Context(), tt.d)
		if got != tt.want || (err != nil) != (tt.d.Digest == "") {
			t.Errorf("%s: %v, error %v; %q", tt.name, got, err, s.requests())
		}
		if n := s.count("PUT"); n > 0 || s.left() > 0 {
			t.Errorf("%s: %d blobs were sent, %d uploads are open", tt.name, n, s.left())
		}
		// A push sends nothing then, and everything otherwise.
		if tt.d.Digest != d.Digest || tt.d.Size != d.Size {
			continue
		}
		s.requests()
		if err := p.Blob(t.Context(), blobs{d.Digest: content}, d); err != nil {
			t.Errorf("%s: Blob: %v", tt.name, err)
		}
		if sent := s.count("PUT") > 0; sent == tt.want {
			t.Errorf("%s: Blob has sent it: %v", tt.name, sent)
		}
		if tt.want && len(s.requests()) > 0 {
			t.Errorf("%s: Blob has asked again", tt.name)
		}
		delete(s.repos["to"], d.Digest)
	}

	// An error of the server is one of Locate.
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodHead {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	p, err := newClient(t, "").Pusher(s.host+"/base", PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := p.Locate(t.Context(), d); ok || err == nil {
		t.Errorf("a server that refuses: %v, error %v", ok, err)
	}
}
