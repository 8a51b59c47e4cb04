package source

import (
	"io"
	"net/http"

	digest "github.com/opencontainers/go-digest"
)

// Options are how Open opens a build context. The zero value works for a directory.
type Options struct {
	// Stdin is read for the context "-" and for the Dockerfile "-". nil: both are errors.
	Stdin io.Reader
	// TempDir gives the directory in which archives, downloads and repositories are unpacked. It is asked when there is
	// one; nil is the system's.
	TempDir func() (string, error)
	// IndexDir is where the index of a local directory's files is kept between builds; "" keeps none.
	IndexDir string
	// Dockerfile is -f: "", a path on this machine, "-", or an http URL; in a context from elsewhere it is a path in it.
	Dockerfile string
	// Own is the directory of the builder's state, which is left out of contexts that are directories.
	Own OwnState
	// NoIgnore leaves ignore files unread.
	NoIgnore bool
	// HTTP and Git are how contexts from elsewhere are fetched.
	HTTP HTTPOptions
	Git  GitOptions
}

// TreeOptions are the options of NewTree. The zero value works.
type TreeOptions struct {
	// Ignore are the lines of an ignore file as ReadIgnore returns them, and IgnoreName is what it is called in messages.
	Ignore     []string
	IgnoreName string
	// IndexFile is where what is known of the files is kept between builds; "" keeps it in memory only.
	IndexFile string
	// TempDir gives the directory for private copies of files that are written to while they are read; nil is the system's.
	TempDir func() (string, error)
	// Own is the directory of the builder's state, which is not in the tree.
	Own OwnState
	// Immutable promises that the files do not change while the tree is open, so that even those which were written
	// this very moment need to be read only once.
	Immutable bool
}

// HTTPOptions are the options of HTTP. The zero value works.
type HTTPOptions struct {
	// TempDir gives the directory in which files are stored; nil is the system's.
	TempDir func() (string, error)
	// Checksum is what the content must have; "" accepts any.
	Checksum digest.Digest
	// Store keeps what servers said about URLs, so that unchanged content has a key without being downloaded again; nil keeps nothing.
	Store Metadata
	// Client makes the requests; nil is http.DefaultClient.
	Client *http.Client
	// Authorization returns the Authorization header for a host, "" for none; nil: none for all.
	Authorization func(host string) string
}

// Metadata keeps small values by name from one build to the next. It is safe for concurrent use. A value that is lost
// costs a download and nothing else.
type Metadata interface {
	// Load returns what was stored last under name, or nil.
	Load(name string) []byte
	// Store keeps value under name. Names are file names of lower case letters, digits and "-".
	Store(name string, value []byte) error
}

// GitOptions are the options of Git. The zero value works.
type GitOptions struct {
	// TempDir gives the directory in which repositories are fetched to and checked out; nil is the system's.
	TempDir func() (string, error)
	// Git is the git program; "" is git in PATH.
	Git string
	// KeepGitDir keeps the .git directory, as ADD --keep-git-dir does; the URL's own keep-git-dir adds to it.
	KeepGitDir bool
	// Checksum is the commit, or the beginning of it, that the reference must lead to; "" accepts any.
	Checksum string
	// CommitTime gives the files the commit's time instead of that of the checkout, unless the URL says mtime=checkout.
	CommitTime bool
	// SSHAuthSock is the agent's socket for ssh URLs; "" is SSH_AUTH_SOCK of the environment.
	SSHAuthSock string
	// Authorization returns the Authorization header for a host, "" for none; nil: none for all.
	Authorization func(host string) string
}
