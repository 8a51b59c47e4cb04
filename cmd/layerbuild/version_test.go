package main

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestReleaseOf(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef01234567"
	const at = "2026-11-30T21:43:05Z"
	setting := func(key, value string) debug.BuildSetting {
		return debug.BuildSetting{Key: key, Value: value}
	}
	inGit := func(version, modified string) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version},
			Settings: []debug.BuildSetting{setting("vcs", "git"), setting("vcs.revision", hash),
				setting("vcs.time", at), setting("vcs.modified", modified)}}
	}
	withVersion := func(v string) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: v}}
	}
	tests := []struct {
		name   string
		info   *debug.BuildInfo
		linked release
		want   string
	}{
		{"nothing is known", nil, release{}, "devel"},
		{"outside of a repository", withVersion("(devel)"), release{}, "devel"},
		{"test binary", withVersion(""), release{}, "devel"},
		{"go install", withVersion("v1.2.3"), release{}, "v1.2.3"},
		{"tag", inGit("v1.2.3", "false"), release{}, "v1.2.3, commit 0123456789ab, " + at},
		{"changes", inGit("v1.2.3+dirty", "true"), release{},
			"v1.2.3+dirty, commit 0123456789ab with changes, " + at},
		{"linker", nil, release{Version: "v1.2.3", Commit: hash, Date: at},
			"v1.2.3, commit 0123456789ab, " + at},
		{"linker, version only", nil, release{Version: "1.2.3-1"}, "1.2.3-1"},
		{"linker, short commit", nil, release{Commit: "0123"}, "devel, commit 0123"},
		{"linker, date", nil, release{Date: at}, "devel, " + at},
		{"linker in a repository", inGit("v0.0.0-1", "true"), release{Version: "v1.2.3"},
			"v1.2.3, commit 0123456789ab with changes, " + at},
		{"linker in the repository of a distribution", inGit("v0.0.0-1", "true"),
			release{Version: "v1.2.3", Commit: "fedcba9876543210"}, "v1.2.3, commit fedcba987654"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := releaseOf(tt.info, tt.linked)
			var b strings.Builder
			if err := r.print(&b); err != nil {
				t.Fatal(err)
			}
			if got, want := b.String(), "layerbuild "+tt.want+"\n"; got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if r.Go != runtime.Version() || r.Platform != runtime.GOOS+"/"+runtime.GOARCH {
				t.Errorf("built by %s for %s, want this toolchain and platform", r.Go, r.Platform)
			}
		})
	}
}
