package diff

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/fileentry"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// externalWriter writes an External.
type externalWriter struct {
	*walker
	g     *External
	stack []externalDir
	first map[file]string // of files with several names: the path that has the content
	name  []byte          // storage for a name that ends with a NUL
}

// externalDir is an open directory of the External.
type externalDir struct {
	fd  int
	end int // length of its path in the walk
}

// writeExternal writes the files of w.external below w.path. It sets w.external to nil.
func (w *walker) writeExternal() error {
	g := &externalWriter{walker: w, g: w.external, first: map[file]string{}}
	w.external = nil
	if g.g.Begin != nil {
		if err := g.g.Begin(); err != nil {
			return err
		}
	}
	top := len(w.path)
	g.stack = []externalDir{{int(g.g.Dir.Fd()), top}}
	defer func() { g.leave(1); w.path = w.path[:top] }()
	before := ""
	for i := range g.g.Entries {
		e := &g.g.Entries[i]
		path := e.Path
		if path == "." || path == "" {
			continue
		}
		if comparePaths(before, path) >= 0 {
			return fmt.Errorf("%w: %q is not in order after %q", ErrExternal, path, before)
		}
		before = path
		name, err := g.enter(top, path)
		if err == nil {
			err = g.entry(name, e)
		}
		if err != nil {
			return g.external(err)
		}
	}
	return nil
}

// external turns an error of reading the External's files into an ErrExternal. It returns errors of
// the stream and of the context unchanged.
func (g *externalWriter) external(err error) error {
	if g.out.failed || g.ctx.Err() != nil || errors.Is(err, ErrExternal) {
		return err
	}
	return fmt.Errorf("%w: %q: %w", ErrExternal, g.path, err)
}

// comparePaths compares paths in the order of a walk, in which the contents of a directory come
// before the directory's next sibling.
func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		if x, y := a[i], b[i]; x != y {
			switch {
			case x == '/':
				return -1
			case y == '/':
				return 1
			}
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// enter opens the directories down to the one that contains path, and returns the last name.
// Directories that are not listed are written like listed ones.
func (g *externalWriter) enter(top int, path string) (name string, err error) {
	rest := path
	depth := 1
	for ; depth < len(g.stack); depth++ {
		part, more, ok := strings.Cut(rest, "/")
		up, here := g.stack[depth-1].end, g.stack[depth].end
		if !ok || string(bytes.TrimPrefix(g.path[up:here], []byte("/"))) != part {
			break
		}
		rest = more
	}
	g.leave(depth)
	for {
		part, more, ok := strings.Cut(rest, "/")
		if !ok {
			return part, nil
		}
		if err := g.entry(part, &fileentry.Entry{}); err != nil {
			return "", err
		}
		if len(g.stack) == depth {
			return "", fmt.Errorf("%w: %q is below a file that is not a directory", ErrExternal,
				path)
		}
		depth++
		rest = more
	}
}

// leave closes all but the first depth directories.
func (g *externalWriter) leave(depth int) {
	for _, d := range g.stack[depth:] {
		unix.Close(d.fd)
	}
	g.stack = g.stack[:depth]
	g.path = g.path[:g.stack[depth-1].end]
}

// entry writes one entry of the directory on top of the stack. If the entry is a directory, entry
// pushes it.
func (g *externalWriter) entry(name string, e *fileentry.Entry) error {
	dir := g.stack[len(g.stack)-1]
	g.path = g.path[:dir.end]
	if g.skips([]byte(name)) || reserved([]byte(name)) {
		return fmt.Errorf("%w: %q", ErrExternal, name)
	}
	if dir.end > 0 {
		g.path = append(g.path, '/')
	}
	g.path = append(g.path, name...)
	g.name = append(append(g.name[:0], name...), 0)
	// A regular file or a directory needs no stat first: fstat after opening is enough.
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return g.regular(dir.fd, e)
	case unix.S_IFDIR:
		return g.directory(dir.fd, e)
	}
	var st dirfd.Stat
	if err := dirfd.Lstat(dir.fd, g.name, &st); err != nil {
		return err
	}
	switch dirfd.Type(&st) {
	case unix.S_IFDIR:
		return g.directory(dir.fd, e)
	case unix.S_IFREG:
		return g.regular(dir.fd, e)
	case unix.S_IFLNK:
		if !e.Same(fileentry.FromStatx(&st)) {
			return g.changed()
		}
		st.Uid, st.Gid = g.g.Owner(st.Uid, st.Gid)
		if err := g.parents(); err != nil {
			return err
		}
		if _, err := g.file(dir.fd, g.name, &st); err != nil {
			return err
		}
		// The name may refer to another link since st was read.
		var after dirfd.Stat
		if err := dirfd.Lstat(dir.fd, g.name, &after); err != nil ||
			!e.Same(fileentry.FromStatx(&after)) {
			return g.changed()
		}
		return nil
	case unix.S_IFSOCK:
		return nil // layers contain no sockets
	}
	return fmt.Errorf("%w: %q is a special file", ErrExternal, g.path)
}

func (g *externalWriter) changed() error {
	return fmt.Errorf("%w: %q has changed", ErrExternal, g.path)
}

func (g *externalWriter) directory(parent int, e *fileentry.Entry) error {
	if err := g.ctx.Err(); err != nil {
		return err
	}
	fd, err := dirfd.OpenDir(parent, g.name)
	if err != nil {
		return err
	}
	g.stack = append(g.stack, externalDir{fd, len(g.path)})
	var st dirfd.Stat
	if err := dirfd.Fstat(fd, &st); err != nil {
		return err
	}
	// copyfs accepts a directory that only has other names. Here such a directory is an error: the
	// caller then copies the files.
	if !e.Same(fileentry.FromStatx(&st)) {
		return g.changed()
	}
	if e.MtimeNs != 0 {
		t := unix.NsecToTimespec(e.MtimeNs)
		st.Mtime = unix.StatxTimestamp{Sec: t.Sec, Nsec: uint32(t.Nsec)}
	}
	h := g.settled(unpack.TypeDir, &st)
	if h.xattrs, err = g.xattrs(fd); err != nil {
		return err
	}
	if hasACL(h.xattrs) {
		return fmt.Errorf("%w: %q has an access control list", ErrExternal, g.path)
	}
	var after dirfd.Stat
	if err := dirfd.Fstat(fd, &after); err != nil {
		return err
	}
	if !e.Same(fileentry.FromStatx(&after)) {
		return g.changed()
	}
	if err := g.parents(); err != nil {
		return err
	}
	return g.out.header(&h)
}

func (g *externalWriter) regular(dir int, e *fileentry.Entry) error {
	fd, err := openFile(dir, g.name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st dirfd.Stat
	if err := dirfd.Fstat(fd, &st); err != nil {
		return err
	}
	if dirfd.Type(&st) != unix.S_IFREG || !e.Same(fileentry.FromStatx(&st)) {
		return g.changed()
	}
	if err := g.parents(); err != nil {
		return err
	}
	if st.Nlink > 1 {
		if first, ok := g.first[fileOf(&st)]; ok {
			h := g.settled(unpack.TypeHardlink, &st)
			h.link = []byte(first)
			return g.out.header(&h)
		}
		g.first[fileOf(&st)] = string(g.path)
	}
	h := g.settled(unpack.TypeFile, &st)
	h.size = int64(st.Size)
	if h.xattrs, err = g.xattrs(fd); err != nil {
		return err
	}
	if hasACL(h.xattrs) {
		return fmt.Errorf("%w: %q has an access control list", ErrExternal, g.path)
	}
	if h.device() {
		return fmt.Errorf("%w: %q stands for a special file", ErrExternal, g.path)
	}
	if err := g.content(fd, &h, &st); err != nil {
		return err
	}
	var after dirfd.Stat
	if err := dirfd.Fstat(fd, &after); err != nil {
		return err
	}
	if after.Ino != st.Ino || after.Size != st.Size || after.Mtime != st.Mtime ||
		e.CtimeNs != 0 && after.Ctime != st.Ctime {
		return fmt.Errorf("%w: %q changed while it was read", ErrExternal, g.path)
	}
	return nil
}

// settled returns the header for the file at the walk's path, with the attributes that the file has
// in the new state.
func (g *externalWriter) settled(kind byte, st *dirfd.Stat) header {
	h := g.describe(g.path, kind, st)
	h.uid, h.gid = g.g.Owner(st.Uid, st.Gid)
	h.mode = g.g.Mode(h.mode, kind == unpack.TypeDir)
	return h
}

// xattrs returns the extended attributes of the copy. It returns ErrExternal for an attribute that
// a layer cannot hold, since the warning for it is given when the file is copied.
func (g *externalWriter) xattrs(fd int) ([]dirfd.Xattr, error) {
	unrecorded := false
	xattrs, err := dirfd.Xattrs(fd, func(name []byte) bool {
		unrecorded = unrecorded || dirfd.Unrecorded(name)
		return copied(name) || string(name) == dirfd.DeviceMark
	})
	if err == nil && unrecorded {
		err = fmt.Errorf("%w: %q has an attribute that a layer cannot hold", ErrExternal, g.path)
	}
	return xattrs, err
}

// copied reports whether an extended attribute is copied.
func copied(name []byte) bool { return dirfd.InLayer(name) }

// hasACL reports whether the attributes include an access control list. Setting the mode of a copy
// changes its list, and a user namespace may not map some of its users. Only the copy therefore has
// the list that the layer must contain.
func hasACL(list []dirfd.Xattr) bool {
	return slices.ContainsFunc(list, func(x dirfd.Xattr) bool {
		return strings.HasPrefix(x.Name, "system.posix_acl_")
	})
}
