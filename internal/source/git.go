package source

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/giturl"
	"github.com/layerbuild/layerbuild/internal/safepath"
	"github.com/layerbuild/layerbuild/internal/subprocess"
)

// Repository is a commit of a git repository.
type Repository struct {
	// URL is the parsed URL.
	URL *giturl.URL
	// Commit is the full name of the commit to which the URL refers. For an annotated tag it is the
	// tagged commit.
	Commit string

	o      GitOptions
	ref    string // refs/heads/… or refs/tags/…, or the commit
	object string // the object to which ref refers: Commit, or the tag object
	keep   bool

	committed time.Time // the time of the commit; set by Fetch
}

// Git finds the commit to which a git URL refers.
func Git(ctx context.Context, address string, o GitOptions) (*Repository, error) {
	u, err := giturl.Parse(address)
	if err != nil {
		return nil, err
	}
	return openRepository(ctx, u, o)
}

func openRepository(ctx context.Context, u *giturl.URL, o GitOptions) (*Repository, error) {
	r := &Repository{URL: u, o: o, keep: o.KeepGitDir || u.KeepGitDir != nil && *u.KeepGitDir}
	want := o.Checksum
	if want != "" && u.Commit != "" && want != u.Commit {
		return nil, fmt.Errorf("git %s: the commit is given as %s and as %s",
			giturl.Redact(u.Remote), want, u.Commit)
	}
	if want == "" {
		want = u.Commit
	}
	if strings.Trim(want, hexDigits) != "" {
		return nil, fmt.Errorf("git %s: invalid checksum %q, expected hex commit hash",
			giturl.Redact(u.Remote), want)
	}
	switch {
	case isCommit(u.Ref):
		r.ref, r.object, r.Commit = u.Ref, u.Ref, u.Ref
	case u.FetchByCommit && !isCommit(want):
		return nil, fmt.Errorf("git %s: fetch-by-commit needs a full commit hash",
			giturl.Redact(u.Remote))
	case u.FetchByCommit:
		r.ref, r.object, r.Commit = want, want, want
	default:
		if err := r.resolve(ctx); err != nil {
			return nil, err
		}
	}
	if want != "" && !strings.HasPrefix(r.Commit, want) && !strings.HasPrefix(r.object, want) {
		return nil, fmt.Errorf("git %s: expected checksum to match %s, got %s at %s",
			giturl.Redact(u.Remote), want, r.Commit, r.ref)
	}
	return r, nil
}

const hexDigits = "0123456789abcdef"

// isCommit reports whether a reference is a full commit name, in either of git's hash formats.
func isCommit(ref string) bool {
	return (len(ref) == 40 || len(ref) == 64) && strings.Trim(ref, hexDigits) == ""
}

// resolve queries the remote for the object to which the reference refers.
func (r *Repository) resolve(ctx context.Context) error {
	g := r.git("")
	ref := r.URL.Ref
	if ref == "" {
		out, err := g.ask(ctx, "ls-remote", "--symref", "--", r.URL.Remote, "HEAD")
		if err != nil {
			return err
		}
		m := regexp.MustCompile(`(?m)^ref: (refs/heads/\S+)\s+HEAD$`).FindStringSubmatch(out)
		if m == nil {
			return fmt.Errorf("git %s: the repository has no default branch",
				giturl.Redact(r.URL.Remote))
		}
		ref = m[1]
	}
	out, err := g.ask(ctx, "ls-remote", "--", r.URL.Remote, ref, ref+"^{}")
	if err != nil {
		return err
	}
	found := map[string]string{}
	for line := range strings.Lines(out) {
		if object, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && isCommit(object) {
			found[name] = object
		}
	}
	// A branch takes precedence over a tag of the same name, as in git checkout.
	for _, name := range []string{
		"refs/" + strings.TrimPrefix(ref, "refs/"),
		"refs/heads/" + strings.TrimPrefix(ref, "refs/heads/"),
		"refs/tags/" + strings.TrimPrefix(ref, "refs/tags/"),
	} {
		if object := found[name]; object != "" {
			r.ref, r.object, r.Commit = name, object, object
			if commit := found[name+"^{}"]; commit != "" {
				r.Commit = commit
			}
			return nil
		}
	}
	return fmt.Errorf("git %s: the repository does not contain ref %q",
		giturl.Redact(r.URL.Remote), ref)
}

// Key returns a key for the commit and the options that select files of it.
func (r *Repository) Key() digest.Digest {
	key := []any{"git", r.Commit, r.URL.Subdir, r.submodules(), r.commitTime()}
	if r.keep {
		key = append(key, r.object, r.ref, giturl.Redact(r.URL.Remote))
	}
	b, err := json.Marshal(key)
	if err != nil {
		panic(err) // strings and booleans
	}
	return digest.FromBytes(b)
}

func (r *Repository) submodules() bool { return r.URL.Submodules == nil || *r.URL.Submodules }

func (r *Repository) commitTime() bool {
	return r.URL.MTime == "commit" || r.URL.MTime == "" && r.o.CommitTime
}

// Close does nothing: before Fetch there are no files.
func (r *Repository) Close() error { return nil }

// Fetch fetches the commit and checks it out.
func (r *Repository) Fetch(ctx context.Context) (_ *Fetched, err error) {
	f, err := newFetched(r.o.TempDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	tree, gitDir := filepath.Join(f.temp, "tree"), filepath.Join(f.temp, "git")
	keep := r.keep && r.URL.Subdir == ""
	if keep {
		gitDir = filepath.Join(tree, ".git")
	}
	// Files get the permissions that git sets with the usual umask, whatever the umask of this
	// process is.
	for _, dir := range []string{tree, gitDir} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
			return nil, err
		}
	}
	if err := r.checkout(ctx, tree, gitDir); err != nil {
		return nil, err
	}
	if keep {
		err = r.cleanGitDir(ctx, tree, gitDir)
	} else {
		err = removeGitFiles(tree)
	}
	if err != nil {
		return nil, err
	}
	if r.commitTime() {
		if err := r.setTimes(tree); err != nil {
			return nil, err
		}
	}
	if err := f.Dir.Close(); err != nil {
		return nil, err
	}
	if f.Dir, err = r.openSubdir(tree); err != nil {
		f.Dir, _ = os.Open(f.temp)
		return nil, err
	}
	f.Items, err = listAll(ctx, f.Dir)
	return f, err
}

// checkout fetches the commit, alone if the server permits it, and writes its files to tree.
func (r *Repository) checkout(ctx context.Context, tree, gitDir string) error {
	g := r.git(tree)
	g.gitDir = gitDir
	init := []string{"-c", "init.defaultBranch=master", "init", "-q", "--template="}
	if len(r.object) == 64 {
		init = append(init, "--object-format=sha256")
	}
	if _, err := g.run(ctx, init...); err != nil {
		return err
	}
	if _, err := g.run(ctx, "remote", "add", "--", "origin", r.URL.Remote); err != nil {
		return err
	}
	if err := r.fetch(ctx, g); err != nil {
		return err
	}
	if _, err := g.run(ctx, "checkout", "-q", "--force", "--detach",
		r.object+"^{commit}"); err != nil {
		return err
	}
	if commit, err := g.run(ctx, "rev-parse", "HEAD"); err != nil {
		return err
	} else if strings.TrimSpace(commit) != r.Commit && !isCommit(r.ref) {
		return fmt.Errorf("git %s: %s is of commit %s, not %s", giturl.Redact(r.URL.Remote), r.ref,
			strings.TrimSpace(commit), r.Commit)
	}
	if err := r.readCommitTime(ctx, g); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(tree, ".gitmodules")); err != nil || !r.submodules() {
		return nil
	}
	return updateSubmodules(ctx, g)
}

// updateSubmodules fetches the commits of submodules, alone if all servers permit it, and checks
// them out. A server of plain files (git's dumb HTTP) serves no shallow clones.
func updateSubmodules(ctx context.Context, g *git) error {
	update := []string{"submodule", "-q", "update", "--init", "--recursive"}
	_, err := g.ask(ctx, append(update, "--depth=1")...)
	if err == nil || ctx.Err() != nil || isSilent(err) {
		return err
	}
	_, err = g.ask(ctx, update...)
	return err
}

// fetch fetches r.object: alone if possible, otherwise with everything that the server has.
func (r *Repository) fetch(ctx context.Context, g *git) error {
	spec := r.object
	if !isCommit(r.ref) {
		spec = "+" + r.ref + ":" + r.ref
	}
	_, shallow := g.ask(ctx, "fetch", "-q", "--update-head-ok", "--depth=1", "--no-tags",
		"--", "origin", spec)
	if ctx.Err() != nil || isSilent(shallow) {
		return shallow
	}
	if shallow == nil && r.has(ctx, g) {
		return nil
	}
	// The server does not serve single commits or shallow clones, or the branch has moved since
	// it was resolved.
	if _, err := g.ask(ctx, "fetch", "-q", "--update-head-ok", "--no-tags", "--", "origin",
		r.object); isSilent(err) {
		return err
	} else if err == nil && r.has(ctx, g) {
		return nil
	}
	if _, err := g.ask(ctx, "fetch", "-q", "--update-head-ok", "--tags", "--", "origin",
		"+refs/heads/*:refs/remotes/origin/*"); err != nil {
		return errors.Join(shallow, err)
	}
	if !r.has(ctx, g) {
		return fmt.Errorf("git %s: there is no commit %s", giturl.Redact(r.URL.Remote), r.object)
	}
	return nil
}

func (r *Repository) has(ctx context.Context, g *git) bool {
	_, err := g.run(ctx, "cat-file", "-e", r.object+"^{commit}")
	return err == nil
}

// cleanGitDir removes files and settings from .git that depend on this machine or on the time.
func (r *Repository) cleanGitDir(ctx context.Context, tree, gitDir string) error {
	g := r.git(tree)
	g.gitDir = gitDir
	remote := r.URL.Remote
	if u, err := url.Parse(remote); err == nil && u.User != nil {
		u.User = url.User(u.User.Username())
		remote = u.String()
	}
	if _, err := g.run(ctx, "remote", "set-url", "--", "origin", remote); err != nil {
		return err
	}
	if _, err := g.run(ctx, "reflog", "expire", "--all", "--expire=now"); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(gitDir, "FETCH_HEAD")); err != nil &&
		!errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeGitFiles removes the files that connect submodules to their repositories, which are not
// copied.
func removeGitFiles(tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != ".git" {
			return err
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// setTimes sets the times of all files to the time of the commit.
func (r *Repository) setTimes(tree string) error {
	at := []unix.Timespec{{Sec: r.committed.Unix()}, {Sec: r.committed.Unix()}}
	var names []string
	if err := filepath.WalkDir(tree, func(name string, _ fs.DirEntry, err error) error {
		names = append(names, name)
		return err
	}); err != nil {
		return err
	}
	for _, name := range slices.Backward(names) {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, at, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "utimensat", Path: name, Err: err}
		}
	}
	return nil
}

// openSubdir opens the subdirectory that the URL selects. No part of its path may be a link.
func (r *Repository) openSubdir(tree string) (*os.File, error) {
	dir, err := os.Open(tree)
	if err != nil || r.URL.Subdir == "" {
		return dir, err
	}
	defer dir.Close()
	fd, err := safepath.NoLinks(int(dir.Fd()), r.URL.Subdir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("git %s: directory %q in commit %s: %w", giturl.Redact(r.URL.Remote),
			r.URL.Subdir, r.Commit, plain(err))
	}
	return os.NewFile(uintptr(fd), filepath.Join(tree, r.URL.Subdir)), nil
}

// git runs the git program without this machine's configuration and without prompts.
type git struct {
	o        GitOptions
	remote   string
	workTree string
	gitDir   string
}

func (r *Repository) git(workTree string) *git {
	return &git{o: r.o, remote: r.URL.Remote, workTree: workTree}
}

// run runs git for a command that asks no server.
func (g *git) run(ctx context.Context, args ...string) (string, error) {
	return g.runFor(ctx, 0, args)
}

// ask runs git for a command that asks servers. Once they have sent nothing for the time of
// GitOptions.Silence, it returns an error for which isSilent returns true.
func (g *git) ask(ctx context.Context, args ...string) (string, error) {
	return g.runFor(ctx, cmp.Or(g.o.Silence, gitSilence), args)
}

// runFor runs git, and with a limit other than 0 ends it once its servers have sent nothing for
// that time.
func (g *git) runFor(ctx context.Context, limit time.Duration, args []string) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	program := g.o.Git
	if program == "" {
		program = "git"
	}
	// A repository must not use this machine's repositories as submodules: the file protocol is
	// permitted only for the user's own URLs. A request by HTTP ends after 100 s without data from
	// the server, even if this program was killed: git does not end its child that waits for the
	// server.
	full := []string{"-c", "protocol.file.allow=user", "-c", "advice.detachedHead=false",
		"-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=100"}
	if g.gitDir != "" {
		full = append(full, "--git-dir", g.gitDir, "--work-tree", g.workTree)
	}
	cmd := subprocess.Command(ctx, program, append(full, args...)...)
	cmd.Dir = g.workTree
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = g.environ(ctx)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := withUmask(0o022, func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		if limit > 0 {
			stop := watch(cmd.Process.Pid, limit, func() { cancel(silentError{limit}) })
			defer stop()
		}
		return cmd.Wait()
	})
	switch {
	case err == nil:
		return stdout.String(), nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("git %s: %w", giturl.Redact(g.remote), context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("git %s: the program git is not installed",
			giturl.Redact(g.remote))
	}
	message := strings.TrimSpace(strings.ReplaceAll(stderr.String(), g.remote,
		giturl.Redact(g.remote)))
	if message == "" {
		message = err.Error()
	}
	if g.o.SSH == (SSHKeys{}) && strings.Contains(message, "Permission denied (") {
		message += "\nno key was offered to the server, because a build may use the SSH agent " +
			"only with --ssh default"
	}
	return "", fmt.Errorf("git %s: %s", args[0], message)
}

// environ returns the whole environment of git.
func (g *git) environ(ctx context.Context) []string {
	env := []string{
		"HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0",
	}
	env = append(env, g.sshEnviron()...)
	for _, name := range []string{
		"PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy",
		"no_proxy", "all_proxy",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO",
	} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	if g.o.Authorization == nil {
		return env
	}
	scope, host := authScope(g.remote)
	if header := g.o.Authorization(ctx, host); host != "" && header != "" {
		// Use the environment, because all users can read the arguments of a process.
		env = append(env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http."+scope+".extraheader",
			"GIT_CONFIG_VALUE_0=Authorization: "+header)
	}
	return env
}

// sshEnviron returns the variables that make git run ssh with the permitted keys only. ssh finds
// the user's files by the user's ID, whatever HOME is. It adds the keys of new servers to the first
// file of known servers, which is the user's for the user's own repositories only. It ends once the
// server has been silent for 100 s, even if this program was killed.
func (g *git) sshEnviron() []string {
	command := "GIT_SSH_COMMAND=ssh -F /dev/null -o BatchMode=yes" +
		" -o StrictHostKeyChecking=accept-new -o ConnectTimeout=100" +
		" -o ServerAliveInterval=20 -o ServerAliveCountMax=5"
	agent := g.o.SSH.Agent
	if g.o.SSH.User && giturl.IsSSH(g.remote) {
		agent = cmp.Or(agent, os.Getenv("SSH_AUTH_SOCK"))
	} else {
		command += " -o 'UserKnownHostsFile=/dev/null ~/.ssh/known_hosts ~/.ssh/known_hosts2'" +
			" -o IdentityFile=none"
		if agent == "" {
			command += " -o IdentityAgent=none -o PubkeyAuthentication=no"
		}
	}
	if agent == "" {
		return []string{command}
	}
	return []string{command, "SSH_AUTH_SOCK=" + agent}
}

// GitHost returns the host to which the Authorization header for a git repository is sent, with its
// port; "" if the address is not that of a repository over HTTP.
func GitHost(address string) string {
	u, err := giturl.Parse(address)
	if err != nil {
		return ""
	}
	_, host := authScope(u.Remote)
	return host
}

// authScope returns the prefix of the URLs to which a header for remote is sent (the URLs of its
// host), and the host.
func authScope(remote string) (scope, host string) {
	scheme, rest, ok := strings.Cut(remote, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return "", ""
	}
	host, _, _ = strings.Cut(rest, "/")
	host = host[strings.LastIndex(host, "@")+1:]
	return scheme + "://" + host + "/", host
}

// withUmask calls f with a different umask than the rest of the process, on a separate thread,
// which ends afterwards.
func withUmask(mask int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err == nil {
			unix.Umask(mask)
		}
		done <- f()
	}()
	return <-done
}
