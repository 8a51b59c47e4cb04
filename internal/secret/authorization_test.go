package secret

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestCredentialsAreSecretsByName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("t1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HEADER_OF_TEST", "Basic abc")
	warned := 0
	s := &Store{
		Warn: func(string) { warned++ },
		Secrets: []Secret{
			{ID: "HTTP_AUTH_TOKEN_one.example", File: file},
			{ID: "HTTP_AUTH_HEADER_two.example", Env: "HEADER_OF_TEST"},
			{ID: "HTTP_AUTH_TOKEN_gone.example", File: file + ".gone"},
			{ID: "GIT_AUTH_TOKEN", File: file},
			{ID: "GIT_AUTH_HEADER.two.example", Env: "HEADER_OF_TEST"},
		},
		Agents: []Agent{{ID: "other", Socket: "/o"}, {ID: "default", Socket: "/d"}},
	}
	for _, c := range []struct {
		what func(context.Context, string) string
		host string
		want string
	}{
		{s.HTTPAuthorization, "one.example", "Bearer t1"},
		{s.HTTPAuthorization, "two.example", "Basic abc"},
		{s.HTTPAuthorization, "three.example", ""},
		{s.HTTPAuthorization, "gone.example", ""},
		{s.GitAuthorization, "one.example", "basic eC1hY2Nlc3MtdG9rZW46dDE="},
		{s.GitAuthorization, "two.example", "Basic abc"},
	} {
		if got := c.what(t.Context(), c.host); got != c.want {
			t.Errorf("authorization for %s = %q, want %q", c.host, got, c.want)
		}
	}
	if warned != 1 {
		t.Errorf("%d warnings, want one, of the secret that cannot be read", warned)
	}
	if got, ok := s.Agent("default"); got != "/d" || !ok {
		t.Errorf("agent = %q, %v, want /d, true", got, ok)
	}
	if got, ok := s.Agent("none"); ok {
		t.Errorf("agent that does not exist = %q", got)
	}
}
