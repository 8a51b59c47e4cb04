package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/giturl"
)

// remoteRepo is a repository with a history that is served over http.
type remoteRepo struct {
	t    *testing.T
	dir  string // the work tree
	root string // the served directory
	URL  string
}

func needGit(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
}

// newRemoteRepo serves repositories by git http-backend if smart, otherwise as plain files, which
// is the least capable kind of server: it serves neither single commits nor shallow clones.
func newRemoteRepo(t *testing.T, smart bool) *remoteRepo {
	needGit(t)
	r := &remoteRepo{t: t, root: t.TempDir()}
	var handler http.Handler = http.FileServer(http.Dir(r.root))
	if smart {
		out, err := exec.Command("git", "--exec-path").Output()
		backend := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
		if _, statErr := os.Stat(backend); err != nil || statErr != nil {
			t.Skip("git http-backend is not installed")
		}
		handler = &cgi.Handler{Path: backend,
			Env: []string{"GIT_PROJECT_ROOT=" + r.root, "GIT_HTTP_EXPORT_ALL=1",
				"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	}
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	r.dir = filepath.Join(r.root, "r.git")
	r.URL = srv.URL + "/r.git"
	if !smart {
		r.URL = srv.URL + "/r.git/.git"
	}
	r.make(r.dir)
	return r
}

func (r *remoteRepo) make(dir string) {
	r.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.run(dir, "init", "-q", "-b", "main")
}

func (r *remoteRepo) run(dir string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_ALLOW_PROTOCOL=file:http",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a",
		"GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit makes files and a commit, and returns its name.
func (r *remoteRepo) commit(dir, text string) string {
	r.t.Helper()
	if err := fstree.Make(dir, text); err != nil {
		r.t.Fatal(err)
	}
	r.run(dir, "add", "-A")
	r.run(dir, "commit", "-q", "-m", "x", "--allow-empty")
	r.run(dir, "update-server-info")
	return r.run(dir, "rev-parse", "HEAD")
}

// fetch fetches the repository at url, and returns it and the listing of its tree.
func (r *remoteRepo) fetch(url string, o GitOptions) (*Repository, string) {
	r.t.Helper()
	o.TempDir = below(r.t.TempDir())
	repo, err := Git(r.t.Context(), url, o)
	if err != nil {
		r.t.Fatalf("Git(%q): %v", url, err)
	}
	f, err := repo.Fetch(r.t.Context())
	if err != nil {
		r.t.Fatalf("Fetch(%q): %v", url, err)
	}
	defer f.Close()
	out, err := fstree.Print(f.Dir.Name(), fstree.Show{})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(f.Items) != 1 || !f.Items[0].Contents || f.Items[0].Path != "." {
		r.t.Errorf("Fetch(%q) items = %+v", url, f.Items)
	}
	return repo, out
}

func TestGit(t *testing.T) {
	for _, smart := range []bool{true, false} {
		t.Run(map[bool]string{true: "smart", false: "dumb"}[smart], func(t *testing.T) {
			t.Parallel()
			r := newRemoteRepo(t, smart)
			one := r.commit(r.dir, "file f 0644 one\nfile x 0755 run\nlink l -> f\ndir d\nfile d/e 0644 below\nlink dl -> d\n")
			r.run(r.dir, "tag", "light")
			r.run(r.dir, "tag", "-a", "-m", "t", "heavy")
			r.run(r.dir, "checkout", "-q", "-b", "other")
			two := r.commit(r.dir, "file f 0644 two\n")
			r.run(r.dir, "checkout", "-q", "main")
			r.commit(r.dir, "file g 0644 new\n")
			r.run(r.dir, "update-server-info")

			const oneTree = "dir d 0755\nfile d/e 0644 below\nlink dl -> d\nfile f 0644 one\nlink l -> f\nfile x 0755 run\n"
			mainTree := strings.Replace(oneTree, "link l", "file g 0644 new\nlink l", 1)
			tests := []struct{ suffix, want, commit string }{
				{"", mainTree, ""},
				{"#main", mainTree, ""},
				{"#refs/heads/main", mainTree, ""},
				{"?branch=other", strings.Replace(oneTree, "0644 one", "0644 two", 1), two},
				{"#light", oneTree, one},
				{"#heavy", oneTree, one},
				{"?tag=heavy", oneTree, one},
				{"#refs/tags/heavy", oneTree, one},
				{"#" + one, oneTree, one},
				{"?commit=" + one[:8] + "#light", oneTree, one},
				{"?commit=" + two + "&fetch-by-commit",
					strings.Replace(oneTree, "0644 one", "0644 two", 1), two},
				{"#:d", "file e 0644 below\n", ""},
				{"?subdir=d&ref=light", "file e 0644 below\n", one},
			}
			keys := map[string]bool{}
			for _, tt := range tests {
				repo, got := r.fetch(r.URL+tt.suffix, GitOptions{})
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tt.suffix, diff)
				}
				if tt.commit != "" && repo.Commit != tt.commit {
					t.Errorf("%s: commit %s, want %s", tt.suffix, repo.Commit, tt.commit)
				}
				keys[repo.Key().String()] = true
			}
			// main, one, two, and the directory in main and in one.
			if len(keys) != 5 {
				t.Errorf("%d keys, want 5", len(keys))
			}
		})
	}
}

func TestGitErrors(t *testing.T) {
	r := newRemoteRepo(t, true)
	one := r.commit(r.dir, "file f 0644 one\nlink l -> .\n")
	for suffix, want := range map[string]string{
		"#none":                       `the repository does not contain ref "none"`,
		"?commit=ffff":                "expected checksum to match ffff, got " + one + " at refs/heads/main",
		"?commit=xyz":                 `invalid checksum "xyz", expected hex commit hash`,
		"#" + strings.Repeat("0", 40): "0000000000",
		"#:none": `directory "none" in commit ` + one +
			": no such file or directory",
		"#:f": `directory "f" in commit ` + one + ": not a directory",
		"#:l": `directory "l" in commit ` + one +
			": too many levels of symbolic links",
		"?commit=abcd&fetch-by-commit=1": "fetch-by-commit needs a full commit hash",
	} {
		temp := t.TempDir()
		err := func() error {
			repo, err := Git(t.Context(), r.URL+suffix, GitOptions{TempDir: below(temp)})
			if err != nil {
				return err
			}
			_, err = repo.Fetch(t.Context())
			return err
		}()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error = %v, want %s", suffix, err, want)
		}
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("%s left behind: %v", suffix, left)
		}
	}
	if _, err := Git(t.Context(), "http://127.0.0.1:1/r.git", GitOptions{}); err == nil {
		t.Error("no server, no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Git(ctx, r.URL, GitOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want canceled", err)
	}
	if _, err := Git(t.Context(), r.URL, GitOptions{Git: "no-such-git"}); err == nil ||
		!strings.Contains(err.Error(), "is not installed") {
		t.Errorf("error = %v, want not installed", err)
	}
}

func TestGitKeepGitDir(t *testing.T) {
	r := newRemoteRepo(t, true)
	r.commit(r.dir, "file f 0644 old\n")
	one := r.commit(r.dir, "file f 0644 one\n")
	r.run(r.dir, "tag", "-a", "-m", "t", "v1")
	for _, url := range []string{r.URL, r.URL + "#v1", r.URL + "#" + one,
		r.URL + "?keep-git-dir=1"} {
		repo, err := Git(t.Context(), strings.Replace(url, "http://", "http://me:pass@", 1),
			GitOptions{TempDir: below(t.TempDir()), KeepGitDir: true})
		if err != nil {
			t.Fatal(err)
		}
		f, err := repo.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := r.run(f.Dir.Name(), "-c", "safe.directory=*", "rev-parse", "HEAD"); got != one {
			t.Errorf("%s: HEAD = %s, want %s", url, got, one)
		}
		if got := r.run(f.Dir.Name(), "-c", "safe.directory=*", "status",
			"--porcelain"); got != "" {
			t.Errorf("%s: status = %q, want clean", url, got)
		}
		if got := r.run(f.Dir.Name(), "-c", "safe.directory=*", "log", "--format=%H"); got != one {
			t.Errorf("%s: log = %q, want the one commit", url, got)
		}
		if b, _ := os.ReadFile(filepath.Join(f.Dir.Name(),
			".git/config")); strings.Contains(string(b), "pass") ||
			!strings.Contains(string(b), "me@") {
			t.Errorf("%s: config = %s, want no password", url, b)
		}
		f.Close()
	}
}

func TestGitCommitTime(t *testing.T) {
	r := newRemoteRepo(t, true)
	r.commit(r.dir, "file f 0644 one\ndir d\nfile d/e 0644 e\nlink l -> f\n")
	repo, err := Git(t.Context(), r.URL, GitOptions{TempDir: below(t.TempDir()), CommitTime: true})
	if err != nil {
		t.Fatal(err)
	}
	f, err := repo.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range []string{".", "d", "d/e", "l"} {
		if info, err := os.Lstat(filepath.Join(f.Dir.Name(), name)); err != nil ||
			!info.ModTime().Equal(time.Unix(1700000000, 0)) {
			t.Errorf("%s: %v, %v, want the commit's time", name, info, err)
		}
	}
}

// TestGitSubmodules checks submodules, one of which has a submodule of its own, at commits that are
// not the last ones of their branches.
func TestGitSubmodules(t *testing.T) {
	for _, smart := range []bool{true, false} {
		t.Run(fmt.Sprintf("smart=%t", smart), func(t *testing.T) {
			r := newRemoteRepo(t, smart)
			add := func(to, name string) {
				dir := filepath.Join(r.root, name+".git")
				r.make(dir)
				r.commit(dir, "file "+name+" 0644 old\n")
				r.run(to, "submodule", "-q", "add",
					strings.Replace(r.URL, "r.git", name+".git", 1), name)
			}
			r.commit(r.dir, "file f 0644 one\n")
			add(r.dir, "one")
			add(filepath.Join(r.root, "one.git"), "two")
			r.commit(filepath.Join(r.root, "one.git"), "")
			r.run(filepath.Join(r.dir, "one"), "pull", "-q")
			r.commit(r.dir, "")
			for _, name := range []string{"one", "two"} {
				r.commit(filepath.Join(r.root, name+".git"), "file "+name+" 0644 new\n")
			}

			_, got := r.fetch(r.URL, GitOptions{})
			want := "dir one 0755\nfile one/.gitmodules 0644"
			if !strings.Contains(got, want) || !strings.Contains(got, "file one/one 0644 old\n") ||
				!strings.Contains(got, "file one/two/two 0644 old\n") ||
				strings.Contains(got, "one/.git ") || strings.Contains(got, "two/.git ") {
				t.Errorf("tree = %s, want both submodules and no trace of their repositories", got)
			}
			_, got = r.fetch(r.URL+"?submodules=0", GitOptions{})
			if strings.Contains(got, "one/one") {
				t.Errorf("tree = %s, want no submodule", got)
			}
		})
	}
}

// A repository must not use another repository of this machine.
func TestGitFileSubmodule(t *testing.T) {
	r := newRemoteRepo(t, true)
	private := t.TempDir()
	r.make(private)
	r.commit(private, "file s 0644 secret\n")
	r.commit(r.dir, "file f 0644 one\n")
	r.run(r.dir, "-c", "protocol.file.allow=always", "submodule", "-q", "add",
		"file://"+private, "mod")
	r.commit(r.dir, "")
	repo, err := Git(t.Context(), r.URL, GitOptions{TempDir: below(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	if f, err := repo.Fetch(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "transport 'file' not allowed") {
		if f != nil {
			f.Close()
		}
		t.Errorf("Fetch error = %v, want transport 'file' not allowed", err)
	}
}

// git gets neither the user's configuration nor the environment.
func TestGitEnvironment(t *testing.T) {
	needGit(t)
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"),
		[]byte("[core]\n\tprobe = seen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("GIT_DIR", "/nowhere")
	t.Setenv("GIT_ASKPASS", "/bin/false")
	r := &Repository{URL: &giturl.URL{Remote: "https://u:p@h.example/r.git"}, o: GitOptions{
		Authorization: func(_ context.Context, host string) string { return "Bearer " + host },
	}}
	g := r.git("")
	if out, err := g.run(t.Context(), "config", "--get-all", "core.probe"); err == nil {
		t.Errorf("git reads the user's configuration: %q", out)
	}
	out, err := g.run(t.Context(), "config", "--get", "http.https://h.example/.extraheader")
	if err != nil || out != "Authorization: Bearer h.example\n" {
		t.Errorf("header = %q, %v", out, err)
	}
	for _, e := range g.environ(t.Context()) {
		if strings.HasPrefix(e, "GIT_DIR=") || strings.HasPrefix(e, "GIT_ASKPASS=") {
			t.Errorf("git gets %s", e)
		}
	}
}
