package registry

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
)

func TestNextPage(t *testing.T) {
	for _, tt := range []struct{ link, want string }{
		{"", ""},
		{`</v2/r/tags/list?last=b&n=2>; rel="next"`, "/v2/r/tags/list?last=b&n=2"},
		{`</v2/r/tags/list?last=b&n=2>; rel=next`, "/v2/r/tags/list?last=b&n=2"},
		{`<https://evil.example/v2/other/tags/list?last=b>; rel="next"`,
			"/v2/r/tags/list?last=b"},
		{`<?last=b>;rel="next"`, "/v2/r/tags/list?last=b"},
		{`</v2/r/tags/list?last=b>; rel="prev"`, ""},
		{`</v2/r/tags/list?last=b`, ""},
		{"<\x7f>; rel=next", ""},
	} {
		if got := nextPage(tt.link, "r"); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.link, got, tt.want)
		}
	}
}

// TestTagsOfRepository lists tags over pages, and deletes one.
func TestTagsOfRepository(t *testing.T) {
	d := digest.FromString("a manifest")
	refuse, deleted, repeat := false, "", false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case r.URL.Path == "/v2/none/tags/list":
			http.NotFound(w, r)
		case r.URL.Path == "/v2/r/tags/list" && r.URL.Query().Get("last") == "":
			w.Header().Set("Link", `</v2/r/tags/list?last=b&n=2>; rel="next"`)
			fmt.Fprint(w, `{"name":"r","tags":["a","b"]}`)
		case r.URL.Path == "/v2/r/tags/list":
			if repeat {
				w.Header().Set("Link", `</v2/r/tags/list?last=b&n=2>; rel="next"`)
			}
			fmt.Fprint(w, `{"name":"r","tags":["c"]}`)
		case r.Method == http.MethodHead && r.URL.Path == "/v2/r/manifests/a":
			w.Header().Set("Docker-Content-Digest", d.String())
		case r.Method == http.MethodDelete && refuse:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case r.Method == http.MethodDelete:
			deleted = r.URL.Path
			w.WriteHeader(http.StatusAccepted)
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	pusher := func(repo string) *Pusher {
		p, err := newClient(t, "").Pusher(host+"/"+repo, PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	list := func(repo string) (tags []string, err error) {
		err = pusher(repo).Tags(t.Context(), func(tag string) error {
			tags = append(tags, tag)
			return nil
		})
		return tags, err
	}
	if tags, err := list("r"); err != nil || !slices.Equal(tags, []string{"a", "b", "c"}) {
		t.Errorf("tags %q, error %v", tags, err)
	}
	if tags, err := list("none"); err != nil || tags != nil {
		t.Errorf("of a missing repository: tags %q, error %v", tags, err)
	}
	repeat = true
	if _, err := list("r"); err == nil {
		t.Error("a server that repeats a page: no error")
	}
	p := pusher("r")
	if err := p.Untag(t.Context(), "a"); err != nil || deleted != "/v2/r/manifests/"+d.String() {
		t.Errorf("Untag: error %v, deleted %q", err, deleted)
	}
	if err := p.Untag(t.Context(), "z"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Untag of a missing tag: %v", err)
	}
	refuse = true
	if err := p.Untag(t.Context(), "a"); !errors.Is(err, ErrNoDelete) {
		t.Errorf("Untag that is refused: %v", err)
	}
}
