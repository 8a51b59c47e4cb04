package main

import (
	"slices"
	"testing"

	"github.com/layerbuild/layerbuild/internal/bake"
	"github.com/layerbuild/layerbuild/internal/source"
)

// TestBakeRemoteSecrets checks that the credentials for a repository are for its host only, and
// only for targets with a context there.
func TestBakeRemoteSecrets(t *testing.T) {
	e := &env{getenv: func(name string) string {
		return map[string]string{bakeTokenVariable: "token", bakeHeaderVariable: "header"}[name]
	}}
	both := []string{"id=GIT_AUTH_HEADER.h:80,env=" + bakeHeaderVariable,
		"id=GIT_AUTH_TOKEN.h:80,env=" + bakeTokenVariable}
	for _, tt := range []struct {
		address, context, named string
		want                    []string
	}{
		{"https://u@h:80/r.git#v1", "https://u@h:80/r.git#v1:d", "https://evil/r.git", both},
		{"https://h:80/r.git", "https://evil/r.git", "https://h:80/other.git", both},
		{"https://h:80/r.git", "https://h/r.git", "https://h.evil:80/r.git", nil},
		{"https://h:80/r.git", "https://h:80@evil/r.git", "https://h:80/r.tar", nil},
		{"https://h:80/r.git", ".", "git@h:80/r.git", nil},
		{"git@h:r.git", "git@h:r.git", "https://evil/r.git", nil},
		{"https://h:80/r.tar", "https://h:80/r.git", ".", nil},
	} {
		r := bakeRemote{address: tt.address, files: &source.Context{}}
		got := r.secrets(e, &bake.Target{Context: &tt.context,
			Contexts: map[string]string{"n": tt.named}})
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("%s with %s and %s: %q, want %q", tt.address, tt.context, tt.named, got,
				tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	r := &bakeRemote{address: "git@h:r.git#v1", directory: "cwd://"}
	for address, want := range map[string]bool{
		"git@h:r.git": true, "git@h:r.git#v2:dir": true, "git@h:other.git": false, "cwd://": false,
		"ssh://git@h/r.git": false,
	} {
		if got := r.names(address); got != want {
			t.Errorf("names(%q) = %v", address, got)
		}
	}
}
