package giturl

import (
	"errors"
	"path"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	yes, no := true, false
	const sha = "0123456789abcdef0123456789abcdef01234567"
	tests := []struct {
		in      string
		want    *URL
		wantErr string // "not" for ErrNotGit
	}{
		{in: "https://h/r.git", want: &URL{Remote: "https://h/r.git"}},
		{in: "https://u:p@h:1/r.git#v1:a/../b/",
			want: &URL{Remote: "https://u:p@h:1/r.git", Ref: "v1", Subdir: "b"}},
		{in: "http://h/r.git#:sub", want: &URL{Remote: "http://h/r.git", Subdir: "sub"}},
		{in: "https://h/r.git#:../../x", want: &URL{Remote: "https://h/r.git", Subdir: "x"}},
		{in: "git://h/r#main", want: &URL{Remote: "git://h/r", Ref: "main"}},
		{in: "ssh://git@h/r", want: &URL{Remote: "ssh://git@h/r"}},
		{in: "git@h:u/r.git#main:d", want: &URL{Remote: "git@h:u/r.git",
			Ref: "main", Subdir: "d"}},
		{in: "git@h:u/r.git?ref=main&subdir=d",
			want: &URL{Remote: "git@h:u/r.git", Ref: "main", Subdir: "d"}},
		{in: "github.com/u/r", want: &URL{Remote: "https://github.com/u/r"}},
		{in: "github.com/u/r.git#main", want: &URL{Remote: "https://github.com/u/r.git",
			Ref: "main"}},
		{in: "https://h/r.git?commit=", wantErr: `git URL https://h/r.git?commit=: query "commit" has no value`},
		{in: "https://h/r.git?tag=v1", want: &URL{Remote: "https://h/r.git",
			Ref: "refs/tags/v1"}},
		{in: "https://h/r.git?branch=b", want: &URL{Remote: "https://h/r.git",
			Ref: "refs/heads/b"}},
		{in: "https://h/r.git?ref=a&commit=" + sha,
			want: &URL{Remote: "https://h/r.git", Ref: "a", Commit: sha}},
		{in: "https://h/r.git?checksum=abc",
			want: &URL{Remote: "https://h/r.git", Commit: "abc"}},
		{in: "https://h/r.git?keep-git-dir",
			want: &URL{Remote: "https://h/r.git", KeepGitDir: &yes}},
		{in: "https://h/r.git?keep-git-dir=0&submodules=false",
			want: &URL{Remote: "https://h/r.git", KeepGitDir: &no, Submodules: &no}},
		{in: "https://h/r.git?mtime=commit&fetch-by-commit=1",
			want: &URL{Remote: "https://h/r.git", MTime: "commit", FetchByCommit: true}},
		{in: "https://h/r", wantErr: "not"},
		{in: "https://h/r.git.txt", wantErr: "not"},
		{in: "file:///r.git", wantErr: "not"},
		{in: "ext::sh", wantErr: "not"},
		{in: "./r.git", wantErr: "not"},
		{in: "dir", wantErr: "not"},
		{in: "-", wantErr: "not"},
		{in: "https://h/r.git?ref=a#b",
			wantErr: `git URL https://h/r.git?ref=a#b: query "ref": ref conflicts: it is given as "b" ` +
				`and as "a"`},
		{in: "https://h/r.git?ref=a&ref=b",
			wantErr: `git URL https://h/r.git?ref=a&ref=b: query "ref" has several values`},
		{in: "https://h/r.git?ref=",
			wantErr: `git URL https://h/r.git?ref=: query "ref" has no value`},
		{in: "https://h/r.git?x=1", wantErr: `git URL https://h/r.git?x=1: unexpected query "x"`},
		{in: "https://h/r.git?tag=a&branch=b",
			wantErr: "git URL https://h/r.git?tag=a&branch=b: a tag and a branch cannot both be given"},
		{in: "https://h/r.git?mtime=now",
			wantErr: `git URL https://h/r.git?mtime=now: query "mtime": must be "checkout" or "commit"`},
		{in: "https://h/r.git?submodules=maybe",
			wantErr: `git URL https://h/r.git?submodules=maybe: query "submodules": "maybe" is neither true nor false`},
		{in: "https://h/r.git#--upload-pack=x",
			wantErr: "git URL https://h/r.git#--upload-pack=x: a name cannot begin with a dash"},
		{in: "https://u:secret@h/r.git?x=1",
			wantErr: `git URL https://u:xxxxx@h/r.git?x=1: unexpected query "x"`},
	}
	for _, tt := range tests {
		got, err := Parse(tt.in)
		switch {
		case tt.wantErr == "not":
			if !errors.Is(err, ErrNotGit) {
				t.Errorf("Parse(%q) = %+v, %v, want ErrNotGit", tt.in, got, err)
			}
		case tt.wantErr != "":
			if err == nil || errors.Is(err, ErrNotGit) || err.Error() != tt.wantErr {
				t.Errorf("Parse(%q) error = %v, want %s", tt.in, err, tt.wantErr)
			}
		case err != nil:
			t.Errorf("Parse(%q): %v", tt.in, err)
		default:
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", tt.in, diff)
			}
		}
	}
}

func TestIsSSH(t *testing.T) {
	for address, want := range map[string]bool{
		"git@h:r": true, "a_b@h:r.git?submodules=0#y": true, "ssh://h/r": true, "ssh://git@h:22/r.git#v": true,
		"https://git@h/r.git": false, "git://h/r": false, "github.com/u/r": false, "http://h/r": false,
		"dir": false, "git@h": false, "": false,
	} {
		if got := IsSSH(address); got != want {
			t.Errorf("IsSSH(%q) = %v", address, got)
		}
	}
}

func TestBelow(t *testing.T) {
	for _, tt := range []struct{ address, dir, want string }{
		{"https://h/r.git", "d", "https://h/r.git#:d"},
		{"https://h/r.git#main", "d/e", "https://h/r.git#main:d/e"},
		{"https://h/r.git#main:a", "d", "https://h/r.git#main:a/d"},
		{"https://h/r.git#main:a", "../d", "https://h/r.git#main:a/d"},
		{"https://h/r.git?tag=v1&subdir=a", "d", "https://h/r.git?tag=v1#:a/d"},
		{"https://h/r.git?subdir=a", "d", "https://h/r.git#:a/d"},
		{"https://u:p@h/r.git#m", "a b%", "https://u:p@h/r.git#m:a%20b%25"},
		{"git@h:r.git#m", "a b%", "git@h:r.git#m:a b%"},
		{"github.com/u/r", "d", "github.com/u/r#:d"},
	} {
		if got, err := Below(tt.address, tt.dir); got != tt.want || err != nil {
			t.Errorf("Below(%q, %q) = %q, %v, want %q", tt.address, tt.dir, got, err, tt.want)
		}
	}
	if _, err := Below("https://h/r.tar", "d"); !errors.Is(err, ErrNotGit) {
		t.Errorf("error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"https://h/r.git?ref=a#b:c", "git@h:r.git?tag=x", "github.com/a/b",
		"ssh://x", "http://%zz/r.git"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := Parse(s)
		if err != nil {
			return
		}
		if strings.HasPrefix(g.Ref, "-") || strings.HasPrefix(g.Remote, "-") || g.Remote == "" {
			t.Errorf("Parse(%q) = %+v: git would take it for an option", s, g)
		}
		below, err := Below(s, "a b/%23#?:/c")
		if err != nil {
			t.Fatalf("Below(%q): %v", s, err)
		}
		want := *g
		want.Subdir = path.Join(g.Subdir, "a b/%23#?:/c")
		if got, err := Parse(below); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("Below(%q) = %q: %+v, %v, want %+v", s, below, got, err, want)
		}
		if strings.HasPrefix(g.Subdir, "/") ||
			strings.HasPrefix(g.Subdir, "../") || g.Subdir == ".." {
			t.Errorf("Parse(%q): subdir %q leads out", s, g.Subdir)
		}
	})
}
