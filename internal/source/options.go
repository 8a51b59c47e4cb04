package source

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/giturl"
	digest "github.com/opencontainers/go-digest"
)

// Options are the options of Open. The zero value works for a directory.
type Options struct {
	// Stdin is read for the context "-" and for the Dockerfile "-". nil: both are errors.
	Stdin io.Reader
	// TempDir returns the directory in which archives, downloads and repositories are unpacked. It
	// is called when a directory is needed; nil: the system's directory for temporary files.
	TempDir func() (string, error)
	// Index is the place of the index of a local directory's files.
	Index IndexPlace
	// Dockerfile is the value of -f: "", a path on this machine, "-", or an http URL. In a
	// context from elsewhere it is a path in the context.
	Dockerfile string
	// Own is the directory of the builder's state, which contexts that are directories do not
	// contain.
	Own OwnState
	// NoIgnore disables ignore files.
	NoIgnore bool
	// HTTP and Git are the options for contexts at URLs.
	HTTP HTTPOptions
	Git  GitOptions
	// Fetched are the options for a context from elsewhere.
	Fetched FetchedOptions
}

// FetchedOptions are the options for a context that is not a directory of this machine. With the
// zero value it is used as in docker build.
type FetchedOptions struct {
	// Repository is the git repository that is the context, whatever the context's name is; nil:
	// the name tells what the context is.
	Repository *giturl.URL
	// Authorization is the Authorization header for the host of Repository; "": the one of
	// GitOptions.
	Authorization string
	// Subdir is the directory of an archive that is the context; "" is all of it.
	Subdir string
	// AsDirectory reads ignore files, and looks for the Dockerfile on this machine before it looks
	// for it in the context, as for a context that is a directory of this machine.
	AsDirectory bool
}

// IndexPlace is the place of the indexes that are kept between builds.
type IndexPlace struct {
	Dir  string         // "": no index is kept
	Temp atomicfile.Own // for writing an index
}

// TreeOptions are the options of NewTree. The zero value works.
type TreeOptions struct {
	// Ignore has the lines of an ignore file, in the form of ReadIgnore's result, and IgnoreName
	// its name for messages.
	Ignore     []string
	IgnoreName string
	// IndexFile is the file for digests, which is kept between builds; "": digests are kept only in
	// memory.
	IndexFile string
	// IndexTemp has the options for writing the file.
	IndexTemp atomicfile.Own
	// TempDir returns the directory for private copies of files that change while they are read;
	// nil: the system's directory for temporary files.
	TempDir func() (string, error)
	// Own is the directory of the builder's state, which is not in the tree.
	Own OwnState
	// Immutable is set if the files do not change while the tree is open. Then even files that
	// have just been written are read only once.
	Immutable bool
}

// HTTPOptions are the options of HTTP. The zero value works.
type HTTPOptions struct {
	// TempDir returns the directory in which files are stored; nil: the system's directory for
	// temporary files.
	TempDir func() (string, error)
	// Checksum is the digest that the content must have; "": any.
	Checksum digest.Digest
	// Store stores information from responses of servers, so that the key of unchanged content is
	// known without a download; nil: nothing is stored.
	Store Metadata
	// Client makes the requests; nil: one that sends no credentials along redirects to other
	// servers.
	Client *http.Client
	// Silence is the time after which a download ends with an error if the server sends nothing,
	// or less than 64 KiB; 0: 100 s.
	Silence time.Duration
	// limit returns the largest size of a file that begins with head, 0 for any; nil: any.
	limit func(head []byte) int
	// Authorization returns the Authorization header for a host, "" for none; nil: no host has
	// one.
	Authorization func(ctx context.Context, host string) string
}

// Metadata stores small values by name between builds. It is safe for concurrent use. If a value is
// lost, one file is downloaded again.
type Metadata interface {
	// Load returns the value that was last stored under name, or nil.
	Load(name string) []byte
	// Store stores value under name. Names are file names of lower case letters, digits and "-".
	Store(ctx context.Context, name string, value []byte) error
}

// GitOptions are the options of Git. The zero value works.
type GitOptions struct {
	// TempDir returns the directory in which repositories are fetched and checked out; nil: the
	// system's directory for temporary files.
	TempDir func() (string, error)
	// Git is the git program; "": git in PATH.
	Git string
	// KeepGitDir keeps the .git directory, as ADD --keep-git-dir does. It is also kept if the
	// URL has keep-git-dir.
	KeepGitDir bool
	// Checksum is the commit to which the reference must refer, or a prefix of it; "": any commit.
	Checksum string
	// CommitTime sets the times of the files to the commit's time instead of the time of the
	// checkout, unless the URL has mtime=checkout.
	CommitTime bool
	// SSH are the keys for SSH servers.
	SSH SSHKeys
	// Silence is the time after which a server that has sent nothing is given up; 0: 100 s. It is
	// always 100 s for HTTP.
	Silence time.Duration
	// Authorization returns the Authorization header for a host, "" for none; nil: no host has
	// one.
	Authorization func(ctx context.Context, host string) string
}

// SSHKeys determine which keys git offers to SSH servers. The zero value offers none: an address
// can come from a Dockerfile or a repository that has no right to use the user's keys.
type SSHKeys struct {
	// Agent is the socket of an agent whose keys are offered to all servers; "": none.
	Agent string
	// User adds the keys that ssh offers for the user who runs this program, those of the agent of
	// SSH_AUTH_SOCK and of the files in ~/.ssh. They are used only if the address of the repository
	// itself is that of an SSH server, for it and its submodules. It is set for an address that the
	// user has named.
	User bool
}
