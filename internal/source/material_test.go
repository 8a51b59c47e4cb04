package source

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWithoutUser checks what is removed from addresses.
func TestWithoutUser(t *testing.T) {
	for in, want := range map[string]string{
		"https://host/a.git#main":      "https://host/a.git#main",
		"https://token@host/a.git#b:c": "https://xxxxx@host/a.git#b:c",
		"https://u:p@host/":            "https://xxxxx:xxxxx@host/",
		"https://:p@host/":             "https://:xxxxx@host/",
		"ssh://git@host/a.git":         "ssh://git@host/a.git",
		"ssh://git:p@host/a.git":       "ssh://xxxxx:xxxxx@host/a.git",
		"git@host:a/b.git":             "git@host:a/b.git",
		"any text":                     "any text",
		"":                             "",
	} {
		if got := WithoutUser(in); got != want {
			t.Errorf("WithoutUser(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestRevision checks a directory in a repository, and one outside.
func TestRevision(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a",
			"-c", "user.email=a@b", "-c", "init.defaultBranch=main"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	git("init", "-q")
	if commit, remote := Revision(t.Context(), dir); commit != "" || remote != "" {
		t.Errorf("a repository without a commit: %q, %q", commit, remote)
	}
	git("commit", "-q", "--allow-empty", "-m", "x")
	commit, remote := Revision(t.Context(), dir)
	if !isCommit(commit) || remote != "" {
		t.Errorf("without a remote: %q, %q", commit, remote)
	}
	git("remote", "add", "origin", "https://token@host/r.git")
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, remote := Revision(t.Context(), sub); got != commit ||
		remote != "https://xxxxx@host/r.git" {
		t.Errorf("below the top: %q, %q", got, remote)
	}
	t.Setenv("PATH", "")
	if commit, _ := Revision(t.Context(), dir); commit != "" {
		t.Errorf("without git: %q", commit)
	}
}

// TestRevisionWaits checks that a fifo in a repository does not stop a build.
func TestRevisionWaits(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", dir).CombinedOutput(); err != nil {
		t.Skipf("git is needed: %v\n%s", err, out)
	}
	head := filepath.Join(dir, ".git", "HEAD")
	if err := os.Remove(head); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(head, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func(d time.Duration) { revisionTime = d }(revisionTime)
	revisionTime = 300 * time.Millisecond
	if commit, remote := Revision(t.Context(), dir); commit != "" || remote != "" {
		t.Errorf("commit %q, remote %q", commit, remote)
	}
}
