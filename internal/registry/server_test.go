package registry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestServer checks requests to a server that is not a registry: its errors, without the query of a
// signed address, and answers that are redirects.
func TestServer(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/file":
			w.Write([]byte("data"))
		case "/xml":
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte("<?xml?><Error><Code>NotAllowed</Code>" +
				"<Message>a &lt; b</Message></Error>"))
		case "/moved":
			http.Redirect(w, r, "/file", http.StatusTemporaryRedirect)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer srv.Close()
	c := New(Options{Backoff: time.Millisecond, AuthFile: "/dev/null"})
	defer c.Close()
	for _, tt := range []struct {
		url    string
		direct bool
		want   string // the content, or an error
	}{
		{srv.URL + "/file?secret=x", false, "data"},
		{srv.URL + "/moved", false, "data"},
		{srv.URL + "/moved", true, "/moved: 307 Temporary Redirect"},
		{srv.URL + "/xml?secret=x", false, "/xml: 403 Forbidden: notallowed: a < b"},
		{srv.URL + "/none", false, "404 Not Found"},
		{strings.Replace(srv.URL, "http:", "https:", 1) + "/file", false,
			"its address begins with http://"},
	} {
		_, data, err := c.Read(t.Context(), Request{URL: tt.url, Direct: tt.direct}, 4)
		if got := string(data); err == nil && got != tt.want ||
			err != nil && !strings.Contains(err.Error(), tt.want) ||
			err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %q, %v, want %q", tt.url, data, err, tt.want)
		}
	}
	_, _, err := c.Read(t.Context(), Request{URL: srv.URL + "/file?secret=x"}, 3)
	if err == nil || !strings.HasSuffix(err.Error(), "/file has more than 3 bytes") {
		t.Errorf("a document that is too large: %v", err)
	}
}
