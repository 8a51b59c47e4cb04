package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/registry"
)

// translate parses a command line of kaniko and returns the flags of build for it.
func translate(t *testing.T, vars map[string]string, args ...string) *buildFlags {
	t.Helper()
	var f executorFlags
	fs := newFlagSet(executorVerb())
	f.define(fs)
	f.others.define(fs, executorOthers[:])
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	e := &env{stdin: os.Stdin, stderr: os.Stderr,
		getenv: func(name string) string { return vars[name] }}
	b, _, err := f.build(e)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return b
}

// inContext changes to a directory with a context, and returns flags that name it.
func inContext(t *testing.T) []string {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.Mkdir("context", 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{"-c", "context", "-d", "r.example/team/app:v1"}
}

func TestKanikoGit(t *testing.T) {
	inContext(t)
	const sha = "0123456789abcdef0123456789abcdef01234567"
	basic := map[string]string{"token:": "dG9rZW46", "me:pw": "bWU6cHc="}
	for _, tt := range []struct {
		vars, flags string
		want        string // remote, reference, commit, directory, header
	}{
		{"", "git://h/u/r", "https://h/u/r    "},
		{"GIT_PULL_METHOD=http", "git://h:1/u/r.git#v1", "http://h:1/u/r.git v1   "},
		{"GIT_PULL_METHOD=ftp", "git://h/r#refs/heads/b#" + sha,
			"https://h/r refs/heads/b " + sha + "  "},
		{"", "git://token@h/r", "https://h/r    token:"},
		{"", "git://me:pw@h/r", "https://h/r    me:pw"},
		{"GIT_TOKEN=token", "git://me:pw@h/r", "https://h/r    token:"},
		{"GIT_USERNAME=me GIT_PASSWORD=pw", "git://x@h/r", "https://h/r    me:pw"},
		{"", "git://h/r --git branch=b --context-sub-path a/../b/", "https://h/r b  b "},
		{"", "git://h/r#v1 --git branch=b", "https://h/r b   "},
		{"", "git://h/r#" + sha + " --git branch=b", "https://h/r " + sha + "   "},
	} {
		vars := map[string]string{}
		for s := range strings.FieldsSeq(tt.vars) {
			name, value, _ := strings.Cut(s, "=")
			vars[name] = value
		}
		b := translate(t, vars, append(strings.Fields("--no-push -c "+tt.flags), "-v=info")...)
		u, header := b.fetched.Repository, b.fetched.Authorization
		for plain, encoded := range basic {
			header = strings.Replace(header, "Basic "+encoded, plain, 1)
		}
		got := fmt.Sprint(u.Remote, " ", u.Ref, " ", u.Commit, " ", u.Subdir, " ", header)
		if got != tt.want || !*u.KeepGitDir || *u.Submodules || !b.fetched.AsDirectory ||
			u.FetchByCommit != (u.Commit != "") {
			t.Errorf("%s %s: got %q, %+v, want %q", tt.vars, tt.flags, got, u, tt.want)
		}
	}
	b := translate(t, nil, "--no-push", "-c=git://h/r", "--git=recurse-submodules=true")
	if !*b.fetched.Repository.Submodules {
		t.Error("submodules are not fetched")
	}
}

func TestKanikoRegistries(t *testing.T) {
	flags := inContext(t)
	if err := os.WriteFile("pem", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		vars  map[string]string
		flags string
		want  registry.Options
	}{
		{nil, "", registry.Options{}},
		{nil, "--insecure", registry.Options{InsecureHosts: []string{"r.example", "r.example"}}},
		{nil, "--skip-tls-verify --cache-repo=c.example/x",
			registry.Options{InsecureHosts: []string{"r.example", "c.example"}}},
		{nil, "--insecure --cache-repo=oci:dir",
			registry.Options{InsecureHosts: []string{"r.example"}}},
		{nil, "--insecure-pull", registry.Options{InsecurePull: true}},
		{nil, "--skip-tls-verify-pull", registry.Options{InsecurePull: true}},
		{nil, "--insecure-registry=a:1 --skip-tls-verify-registry=index.docker.io",
			registry.Options{InsecureHosts: []string{"a:1", "docker.io"}}},
		{map[string]string{mirrorVariable: "m2.example", mapVariable: "q.example=n2.example"},
			"--registry-mirror=m1.example/p --registry-map=index.docker.io=n0.example;" +
				"q.example=n1.example/q --skip-default-registry-fallback",
			registry.Options{OnlyMirrors: true, Mirrors: []registry.Mirror{
				{Prefix: "docker.io", Location: "n0.example"},
				{Prefix: "q.example", Location: "n1.example/q"},
				{Prefix: "q.example", Location: "n2.example"},
				{Prefix: "docker.io", Location: "m1.example/p"},
				{Prefix: "docker.io", Location: "m2.example"}}}},
		{nil, "--registry-certificate=a.example=pem --registry-client-cert=b.example=pem,pem",
			registry.Options{Certificates: []registry.Certificate{
				{Host: "a.example", Authorities: "pem"},
				{Host: "b.example", Client: "pem", Key: "pem"}}}},
	} {
		args := append(strings.Fields(tt.flags), flags...)
		got := translate(t, tt.vars, args...).registry.base
		got.DockerConfig = ""
		if diff := cmp.Diff(got, tt.want); diff != "" {
			t.Errorf("%s:\n%s", tt.flags, diff)
		}
	}
}

func TestKanikoCache(t *testing.T) {
	flags := inContext(t)
	const to = ",mode=max,ignore-error=true"
	for _, tt := range []struct{ flags, from, to, ttl string }{
		{"", "", "", ""},
		{"--cache-repo=c.example/x", "", "", ""},
		{"--cache", "type=registry,ref=r.example/team/app/cache:team-app",
			"type=registry,ref=r.example/team/app/cache:team-app" + to, "336h0m0s"},
		{"--cache=true --no-push-cache --cache-ttl=6h",
			"type=registry,ref=r.example/team/app/cache:team-app", "", "6h0m0s"},
		{"--cache --cache-repo=c.example/x --target=a/b --custom-platform=linux/arm/v7",
			"type=registry,ref=c.example/x:team-app-a-b-linux-arm-v7",
			"type=registry,ref=c.example/x:team-app-a-b-linux-arm-v7" + to, "336h0m0s"},
		{"--cache --cache-repo=oci:a,b --target=" + strings.Repeat("x", 200),
			`type=local,"src=a,b",tag=` + strings.Repeat("x", 128),
			`type=local,"dest=a,b",tag=` + strings.Repeat("x", 128) + to, "336h0m0s"},
	} {
		b := translate(t, nil, append(strings.Fields(tt.flags), flags...)...)
		from, to := strings.Join(b.cacheFrom, " "), strings.Join(b.cacheTo, " ")
		ttl := b.cacheTTL.String()
		cached := strings.Contains(tt.flags+" ", "--cache ") ||
			strings.Contains(tt.flags, "--cache=true")
		if from != tt.from || to != tt.to || ttl != tt.ttl || b.noCache == cached {
			t.Errorf("%s: got %q, %q, %s, %t, want %q, %q, %s", tt.flags, from, to, ttl, b.noCache,
				tt.from, tt.to, tt.ttl)
		}
		if b.pull != "always" {
			t.Errorf("%s: base images are looked up %q, want always", tt.flags, b.pull)
		}
		if got := try(t, map[string]string{"HOME": t.TempDir()}, append([]string{"executor",
			"--root=s"}, append(strings.Fields(tt.flags), flags...)...)...); got.err != nil {
			t.Errorf("%s: %v", tt.flags, got.err)
		}
	}
}

func TestKanikoNames(t *testing.T) {
	f := executorFlags{destinations: []string{"app", "r.example:5000/a:v1", "docker.io/me/b"}}
	const d = "sha256:" + hex64
	for withTag, want := range map[bool]string{
		false: "index.docker.io/library/app@" + d + "\nr.example:5000/a@" + d +
			"\nindex.docker.io/me/b@" + d + "\n",
		true: "index.docker.io/library/app:latest@" + d + "\nr.example:5000/a:v1@" + d +
			"\nindex.docker.io/me/b:latest@" + d + "\n",
	} {
		if got := f.names(d, withTag); got != want {
			t.Errorf("names(%t) = %q, want %q", withTag, got, want)
		}
	}
	for in, want := range map[string]string{"git://token@h/r": "git://xxxxx@h/r",
		"https://a:b@h/r@x": "https://xxxxx@h/r@x", "git://h/r@x": "git://h/r@x",
		"a@b/c": "a@b/c", "tar://": "tar://"} {
		if got := withoutUser(in); got != want {
			t.Errorf("withoutUser(%q) = %q, want %q", in, got, want)
		}
	}
	if !isExecutor(filepath.Join("/kaniko", "executor")) || isExecutor("/usr/bin/layerbuild") {
		t.Error("the name of the program is not recognized")
	}
}
