package registry

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDenied compares the remedies for places that deny access.
func TestDenied(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "registries.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	answer := &Error{Method: "GET", URL: "u", Status: http.StatusForbidden}
	for _, tt := range []struct {
		name  string
		login Login
		want  string
	}{
		{"quay.io/a/b", Login{}, "there are no credentials for quay.io: log in with 'layerbuild " +
			"login quay.io'"},
		{"a/b", Login{}, "there are no credentials for docker.io: log in with 'layerbuild login " +
			"docker.io'"},
		{"quay.io/a/b", Login{Username: "me", Password: "x"}, "quay.io refuses the password of " +
			"me, or that user may not do this: log in with 'layerbuild login quay.io'"},
		{"app:v1", Login{Username: "me", Password: "x"}, "only Docker can push to " +
			"docker.io/library/: give a name with a user or a registry, such as USER/app:v1"},
	} {
		c := New(Options{Login: tt.login, AuthFile: empty, Config: conf})
		p, err := c.Pusher(tt.name, PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		err = p.denied(t.Context(), answer)
		if got := strings.TrimPrefix(err.Error(), answer.Error()+"; "); got != tt.want ||
			!errors.Is(err, ErrDenied) {
			t.Errorf("%s, user %q: %q, want %q", tt.name, tt.login.Username, got, tt.want)
		}
		c.Close()
	}
}
