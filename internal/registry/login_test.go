package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseServer(t *testing.T) {
	for _, test := range []struct {
		in   string
		want Server
		err  bool
	}{
		{in: "", want: Server{Domain: "docker.io"}},
		{in: "docker.io", want: Server{Domain: "docker.io"}},
		{in: "https://index.docker.io/v1/", want: Server{Domain: "docker.io"}},
		{in: "registry-1.docker.io", want: Server{Domain: "docker.io"}},
		{in: "ghcr.io/", want: Server{Domain: "ghcr.io"}},
		{in: "host", want: Server{Domain: "host"}},
		{in: "localhost:5000", want: Server{Domain: "localhost:5000"}},
		{in: "[::1]:5000", want: Server{Domain: "[::1]:5000"}},
		{in: "http://host:5000/v2/", want: Server{Domain: "host:5000"}},
		{in: "quay.io/team/app", want: Server{"quay.io", "team/app"}},
		{in: "/", err: true}, {in: "a b", err: true}, {in: "a/B", err: true},
		{in: "host:x", err: true}, {in: "user@host", err: true}, {in: "-a", err: true},
		{in: "a//b", err: true}, {in: "ftp://a", err: true}, {in: "a/b:tag", err: true},
	} {
		got, err := ParseServer(test.in)
		if got != test.want || (err != nil) != test.err {
			t.Errorf("ParseServer(%q) = %+v, %v, want %+v", test.in, got, err, test.want)
		}
	}
}

func FuzzParseServer(f *testing.F) {
	for _, s := range []string{"", "docker.io", "https://a/v1/", "quay.io/a/b", "[::1]:1", "a:1/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		server, err := ParseServer(s)
		if err != nil {
			return
		}
		if again, err := ParseServer(server.String()); err != nil || again != server {
			t.Errorf("ParseServer(%q) = %+v, and of its text %+v, %v", s, server, again, err)
		}
	})
}

// helper installs a credential helper that keeps credentials in files.
func helper(t *testing.T, name string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
cd %s || exit 1
case $1 in
store) cat >new; name=$(sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' new | tr / _); mv new "$name" ;;
get) name=$(tr / _); cat "$name" 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;
erase) name=$(tr / _); rm "$name" 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;
esac
`, dir)
	bin := t.TempDir()
	path := filepath.Join(bin, helperProgram+name)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return dir
}

func TestLoginFile(t *testing.T) {
	me := Login{"me", "sec:ret"}
	const auth = `{"auth":"bWU6c2VjOnJldA=="}`
	hub, host := Server{Domain: "docker.io"}, Server{Domain: "a.b:5"}
	for _, test := range []struct {
		name, before, after string
		parts               bool
		server              Server
	}{
		{name: "new", server: host, after: `{"auths":{"a.b:5":` + auth + `}}`},
		{name: "hub", server: hub, after: `{"auths":{"https://index.docker.io/v1/":` + auth + `}}`},
		{name: "hub in podman's", server: hub, parts: true,
			after: `{"auths":{"docker.io":` + auth + `}}`},
		{name: "path", server: Server{"q.io", "a/b"}, parts: true,
			after: `{"auths":{"q.io/a/b":` + auth + `}}`},
		{name: "others are kept", server: host,
			before: `{"auths":{"x":{"auth":"eDp5"},"a.b:5":{"identitytoken":"t"}},"proxies":{"d":{}}}`,
			after:  `{"auths":{"a.b:5":` + auth + `,"x":{"auth":"eDp5"}},"proxies":{"d":{}}}`},
		{name: "old spelling", server: host, before: `{"auths":{"https://a.b:5/v1/":{}}}`,
			after: `{"auths":{"a.b:5":` + auth + `}}`},
		{name: "a part of the registry is kept", server: host, parts: true,
			before: `{"auths":{"a.b:5/c":{"auth":"eDp5"}}}`,
			after:  `{"auths":{"a.b:5":` + auth + `,"a.b:5/c":{"auth":"eDp5"}}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sub", "config.json")
			if test.before != "" {
				os.Mkdir(filepath.Dir(path), 0o755)
				if err := os.WriteFile(path, []byte(test.before), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f := LoginFile{path, test.parts}
			if program, err := f.Login(t.Context(), test.server, me); err != nil || program != "" {
				t.Fatalf("Login: %q, %v", program, err)
			}
			compareJSON(t, path, test.after)
			if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("the file has the mode %v, want 0600 (%v)", fi.Mode(), err)
			}
			if !f.Has(t.Context(), test.server) {
				t.Error("Has = false after Login")
			}
			for _, want := range []bool{true, false} {
				got, err := f.Logout(t.Context(), test.server)
				if err != nil || got != want {
					t.Errorf("Logout = %t, %v, want %t", got, err, want)
				}
			}
			if f.Has(t.Context(), test.server) {
				t.Error("Has = true after Logout")
			}
		})
	}
	docker := LoginFile{Path: filepath.Join(t.TempDir(), "config.json")}
	if _, err := docker.Login(t.Context(), Server{"a", "b"}, me); !errors.Is(err, ErrWholeRegistry) {
		t.Errorf("login to a path in docker's file: %v", err)
	}
}

func compareJSON(t *testing.T, path, want string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got, expected any
	if err := errors.Join(json.Unmarshal(data, &got),
		json.Unmarshal([]byte(want), &expected)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(expected, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func TestLoginHelper(t *testing.T) {
	kept := helper(t, "test")
	path := filepath.Join(t.TempDir(), "config.json")
	f := LoginFile{Path: path}
	server := Server{Domain: "a.b"}
	for _, conf := range []string{`{"credsStore":"test"}`, `{"credHelpers":{"a.b":"test"}}`} {
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		program, err := f.Login(t.Context(), server, Login{"me", "se\"cret"})
		if err != nil || program != "docker-credential-test" {
			t.Fatalf("Login: %q, %v", program, err)
		}
		compareJSON(t, path, conf[:len(conf)-1]+`,"auths":{"a.b":{}}}`)
		cred, err := askHelper(t.Context(), program, "a.b")
		if err != nil || cred != (credential{username: "me", password: "se\"cret"}) {
			t.Errorf("the helper has %+v, %v", cred, err)
		}
		if got, err := f.Logout(t.Context(), server); !got || err != nil {
			t.Errorf("Logout = %t, %v", got, err)
		}
		if list, _ := os.ReadDir(kept); len(list) > 0 {
			t.Errorf("the helper still has %v", list)
		}
		if got, err := f.Logout(t.Context(), server); got || err != nil {
			t.Errorf("a second Logout = %t, %v", got, err)
		}
		if _, err := f.Login(t.Context(), server, Login{"me", "secret"}); err != nil {
			t.Fatal(err)
		}
		all, err := f.LogoutAll(t.Context())
		if d := cmp.Diff([]string{"a.b"}, all); d != "" || err != nil {
			t.Errorf("LogoutAll: %v\n%s", err, d)
		}
		if list, _ := os.ReadDir(kept); len(list) > 0 {
			t.Errorf("the helper still has %v after LogoutAll", list)
		}
	}
	if err := os.WriteFile(path, []byte(`{"credsStore":"missing"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Login(t.Context(), server, Login{"me", "x"}); err == nil ||
		!strings.Contains(err.Error(), "docker-credential-missing store") {
		t.Errorf("a missing helper: %v", err)
	}
	compareJSON(t, path, `{"credsStore":"missing"}`)
}

// htpasswd has the user me with the password secret.
const htpasswd = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"

// TestCheckLogin logs in to the reference implementation of registries.
func TestCheckLogin(t *testing.T) {
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	dir := t.TempDir()
	users := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(users, []byte(htpasswd), 0o600); err != nil {
		t.Fatal(err)
	}
	host := serveRegistry(t, bin, "auth:\n  htpasswd:\n    realm: test\n    path: "+users+"\n")
	for _, test := range []struct {
		login  Login
		denied bool
	}{{Login{"me", "secret"}, false}, {Login{"me", "wrong"}, true}, {Login{"you", "secret"}, true},
		{Login{}, true}} {
		c := New(Options{DockerConfig: dir, Login: test.login, Backoff: time.Millisecond})
		err := c.CheckLogin(t.Context(), Server{Domain: host})
		if errors.Is(err, ErrDenied) != test.denied || !test.denied && err != nil {
			t.Errorf("CheckLogin as %+v: %v, want denied %t", test.login, err, test.denied)
		}
		c.Close()
	}
}

// serveRegistry starts a docker-registry, and returns its address.
func serveRegistry(t *testing.T, bin, more string) (host string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	l.Close()
	dir := t.TempDir()
	conf := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    "+
		"rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n%s",
		filepath.Join(dir, "data"), host, more)
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", path)
	// the registry reads settings from REGISTRY_… variables
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("docker-registry: %s", out.String())
		}
	})
	for i := 0; ; i++ {
		conn, err := net.Dial("tcp", host)
		if err == nil {
			conn.Close()
			return host
		}
		if i > 200 {
			t.Fatal("docker-registry does not start")
		}
		time.Sleep(50 * time.Millisecond)
	}
}
