package source

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/subprocess"
	digest "github.com/opencontainers/go-digest"
)

// Material is content from another machine, with the checksum that identifies it.
type Material struct {
	// URL is the address without a password. That of a git repository has the reference after #.
	URL string
	// Commit is the commit of a git repository, and Digest the digest of a download.
	Commit string
	Digest digest.Digest
}

// Material returns the URL and the digest of the file.
func (d *Download) Material() Material {
	return Material{URL: WithoutUser(d.url.String()), Digest: d.Digest}
}

// Material returns the URL of the repository and the commit.
func (r *Repository) Material() Material {
	address := WithoutUser(r.URL.Remote)
	if r.URL.Ref != "" {
		address += "#" + r.URL.Ref
	}
	return Material{URL: address, Commit: r.Commit}
}

// WithoutUser replaces the user and the password in an http or https URL, because either can be a
// token. Other addresses are returned unchanged: the user of an ssh address is no secret. The
// result is BuildKit's, so that both name a material in the same way.
func WithoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	_, secret := u.User.Password()
	if !secret && u.Scheme != "http" && u.Scheme != "https" {
		return address
	}
	const mask = "xxxxx"
	switch {
	case !secret:
		u.User = url.User(mask)
	case u.User.Username() == "":
		u.User = url.UserPassword("", mask)
	default:
		u.User = url.UserPassword(mask, mask)
	}
	return u.String()
}

// Material returns the repository or the download of which the context is made. It returns false
// for a context from this machine.
func (c *Context) Material() (Material, bool) { return valueOf(c.material) }

// DockerfileMaterial returns the download that is the Dockerfile. It returns false for a Dockerfile
// from the context or from this machine.
func (c *Context) DockerfileMaterial() (Material, bool) { return valueOf(c.fileFrom) }

func valueOf(m *Material) (Material, bool) {
	if m == nil {
		return Material{}, false
	}
	return *m, true
}

// LocalDir returns the directory of this machine that is the context; "" for another context.
func (c *Context) LocalDir() string {
	if c.dir == nil || c.fetched != nil {
		return ""
	}
	return c.dir.Name()
}

// revisionTime limits the time for which git may read a repository.
var revisionTime = 10 * time.Second

// Revision returns the commit and the URL of the git repository that a directory belongs to. They
// are "" if it belongs to none, or if git cannot tell.
func Revision(ctx context.Context, dir string) (commit, remote string) {
	// git waits for a fifo in the place of one of its files.
	ctx, cancel := context.WithTimeout(ctx, revisionTime)
	defer cancel()
	git := func(args ...string) string {
		var out strings.Builder
		cmd := subprocess.Command(ctx, "git", append([]string{"-C", dir, "--no-optional-locks"},
			args...)...)
		cmd.Stdout = &out
		if subprocess.Run(ctx, cmd) != nil {
			return ""
		}
		return strings.TrimSpace(out.String())
	}
	if commit = git("rev-parse", "--verify", "HEAD"); !isCommit(commit) {
		return "", ""
	}
	return commit, WithoutUser(git("remote", "get-url", "origin"))
}
