package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/pattern"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// Tree is a directory from which files are copied. It is safe for concurrent use; queries run one
// after the other, so that no file is read twice.
type Tree struct {
	dir        *os.File
	ignore     *pattern.Matcher
	ignoreName string
	lines      []string
	// turn holds a value while a goroutine uses index or freezer. It is a mutex, which is held for
	// a whole Match: a second query for the same files waits and finds their digests, instead of
	// reading them too. Match waits for it until its context ends. Changed and Close have no
	// context: what they wait for is a Match, which ends with its own.
	turn    chan struct{}
	index   *index
	freezer freezer
	own     ownDir
}

// NewTree returns the tree of an open directory. The directory belongs to the caller and must
// stay open as long as the tree. Files that the ignore patterns select are not in the tree.
func NewTree(dir *os.File, o TreeOptions) (*Tree, error) {
	if o.IgnoreName == "" {
		o.IgnoreName = ".dockerignore"
	}
	ignore, err := pattern.New(o.Ignore)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.IgnoreName, err)
	}
	t := &Tree{dir: dir, ignore: ignore, ignoreName: o.IgnoreName, lines: o.Ignore,
		turn: make(chan struct{}, 1)}
	t.freezer.tempDir = o.TempDir
	if t.own, err = openOwn(o.Own, t.fd()); err != nil {
		return nil, err
	}
	if t.index, err = openIndex(o, t.fd()); err != nil {
		return nil, errors.Join(err, t.own.close())
	}
	return t, nil
}

// Ignore returns the ignore patterns.
func (t *Tree) Ignore() []string { return t.lines }

// IgnoreName returns the name of the file of the ignore patterns.
func (t *Tree) IgnoreName() string { return t.ignoreName }

// Dir returns the directory to which the paths of Items are relative.
func (t *Tree) Dir() *os.File { return t.dir }

func (t *Tree) fd() int { return int(t.dir.Fd()) }

// Match returns the files that q names. It reads the files that it has not read before. For a
// missing source without wildcards it returns a *NotFoundError.
func (t *Tree) Match(ctx context.Context, q Query) (*Match, error) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-t.turn }()
	m, err := t.newMatching(ctx, q)
	if err != nil {
		return nil, err
	}
	t.freezer.begin()
	for _, p := range q.Patterns {
		if err := m.pattern(p); err != nil {
			return nil, err
		}
	}
	// If the index cannot be written, the next build is slower.
	_ = t.index.save()
	return m.result(), nil
}

// Close writes the digests that have not been written yet to the index file, if there is one.
func (t *Tree) Close() error {
	t.turn <- struct{}{}
	defer func() { <-t.turn }()
	return errors.Join(t.index.save(), t.index.forget(), t.freezer.close(), t.own.close())
}

// listAll lists the content of a directory without reading any file.
func listAll(ctx context.Context, dir *os.File) ([]Item, error) {
	t, err := NewTree(dir, TreeOptions{})
	if err != nil {
		return nil, err
	}
	return t.list(ctx)
}

// list lists the tree without reading any file.
func (t *Tree) list(ctx context.Context) ([]Item, error) {
	m, err := t.newMatching(ctx, Query{})
	if err != nil {
		return nil, err
	}
	m.list = true
	if err := m.literal(""); err != nil {
		return nil, err
	}
	return m.out.Items, nil
}

// place is the result of resolving a name: a path in the tree without links in it.
type place struct {
	path string // "." is the tree's directory
	mode uint32
	link string // the target of the last link, if it is dangling
}

// maxLinks is the largest number of links that are followed for one name.
const maxLinks = 255

// resolve follows the links in name as if the tree were the root directory. Ignored files are
// treated as missing. The file at the result may be replaced at any time, so it must be opened
// without following links.
func (t *Tree) resolve(name string) (place, error) {
	rest := strings.Split(name, "/")
	cur := place{path: ".", mode: unix.S_IFDIR}
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			cur.path, cur.mode = path.Dir(cur.path), unix.S_IFDIR
			continue
		case cur.mode&unix.S_IFMT != unix.S_IFDIR:
			return cur, t.missing(name, cur)
		}
		next := path.Join(cur.path, part)
		mode, text, err := t.lstat(next)
		if err == nil && cur.path == "." && t.own.holds(part) {
			err = errOwn
		}
		if err != nil {
			cur.path = next
			return cur, t.notThere(name, cur, err)
		}
		if mode&unix.S_IFMT != unix.S_IFLNK {
			cur.path, cur.mode = next, mode
			continue
		}
		if t.ignored(next) {
			return cur, t.missing(name, place{path: next})
		}
		if links++; links > maxLinks {
			return cur, &os.PathError{Op: "resolve", Path: name, Err: unix.ELOOP}
		}
		cur.link = text
		if path.IsAbs(text) {
			cur.path = "."
		}
		rest = append(strings.Split(text, "/"), rest...)
	}
	if cur.mode&unix.S_IFMT != unix.S_IFDIR && t.ignored(cur.path) {
		return cur, t.missing(name, cur)
	}
	return cur, nil
}

// errOwn is returned for a name in the program's own state, which is not in any tree.
var errOwn = errors.New("it is the state directory of this program")

// lstat returns the mode of the file at p, and the target if it is a link. It does not follow links
// in the path.
func (t *Tree) lstat(p string) (mode uint32, text string, err error) {
	fd, err := safepath.NoLinks(t.fd(), p, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, "", err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := dirfd.Fstat(fd, &st); err != nil {
		return 0, "", &os.PathError{Op: "stat", Path: p, Err: err}
	}
	if t.own.is(&st) {
		return 0, "", errOwn
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return uint32(st.Mode), "", nil
	}
	var buf [unix.PathMax]byte
	n, err := dirfd.Readlink(fd, dirfd.Empty, buf[:])
	if err != nil {
		return 0, "", &os.PathError{Op: "readlink", Path: p, Err: err}
	}
	return uint32(st.Mode), string(buf[:n]), nil
}

// ignored reports whether the ignore file excludes p.
func (t *Tree) ignored(p string) bool {
	if t.ignore == nil || p == "." {
		return false
	}
	gone, _ := t.ignore.Path(p)
	return gone
}

// notThere returns the error for a missing source if err is an error for a missing file.
func (t *Tree) notThere(name string, at place, err error) error {
	if errors.Is(err, errOwn) {
		return &NotFoundError{Path: path.Join("/", name), Own: true}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ENAMETOOLONG) {
		return t.missing(name, at)
	}
	return fmt.Errorf("look for %q: %w", name, plain(err))
}

// missing returns the error for a name that refers to a missing or excluded file.
func (t *Tree) missing(name string, at place) error {
	e := &NotFoundError{Path: path.Join("/", name), Link: at.link}
	if t.ignored(at.path) {
		e.IgnoredBy, e.Pattern = t.ignoreName, t.ignore.Decides(at.path)
	}
	return e
}

// plain removes the name of the system call from an error whose text already has the file's name.
func plain(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Names returns the names in a directory of the tree, sorted. Links are resolved in the tree.
func (t *Tree) Names(dir string) ([]string, error) {
	fd, err := safepath.InRoot(t.fd(), dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// Open opens a regular file of the tree. Links are resolved in the tree.
func (t *Tree) Open(name string) (*os.File, error) {
	fd, err := safepath.InRoot(t.fd(), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
