package build

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/layerbuild/layerbuild/internal/event"
)

func TestCredentialsAreSecretsByName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("t1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HEADER_OF_TEST", "Basic abc")
	warned := 0
	b := &builder{sink: func(event.Event) { warned++ }, opts: Options{Run: RunOptions{
		Secrets: []Secret{
			{ID: "HTTP_AUTH_TOKEN_one.example", File: file},
			{ID: "HTTP_AUTH_HEADER_two.example", Env: "HEADER_OF_TEST"},
			{ID: "HTTP_AUTH_TOKEN_gone.example", File: file + ".gone"},
			{ID: "GIT_AUTH_TOKEN", File: file},
			{ID: "GIT_AUTH_HEADER.two.example", Env: "HEADER_OF_TEST"},
		},
		SSH: []SSH{{ID: "other", Socket: "/o"}, {ID: "default", Socket: "/d"}},
	}}}
	for _, c := range []struct {
		what func(string) string
		host string
		want string
	}{
		{b.httpAuthorization, "one.example", "Bearer t1"},
		{b.httpAuthorization, "two.example", "Basic abc"},
		{b.httpAuthorization, "three.example", ""},
		{b.httpAuthorization, "gone.example", ""},
		{b.gitAuthorization, "one.example", "basic eC1hY2Nlc3MtdG9rZW46dDE="},
		{b.gitAuthorization, "two.example", "Basic abc"},
	} {
		if got := c.what(c.host); got != c.want {
			t.Errorf("authorization for %s = %q, want %q", c.host, got, c.want)
		}
	}
	if warned != 1 {
		t.Errorf("%d warnings, want one, of the secret that cannot be read", warned)
	}
	if got := b.agent(); got != "/d" {
		t.Errorf("agent = %q, want /d", got)
	}
}
