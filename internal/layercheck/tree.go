package layercheck

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// Tree is a file system state in memory. The contents of listed files are not loaded; they are read
// when they are compared.
type Tree struct{ root *node }

// node is a file or directory. Several names of one file share a node.
type node struct {
	mode         uint32 // with the type
	uid, gid     uint32
	sec          int64 // of the last modification
	size         int64
	names        uint64 // lower bound of the number of its names
	major, minor uint32
	link         string            // of a symbolic link
	xattrs       map[string]string // the attributes that a layer can contain
	children     map[string]*node  // of a directory

	dir  *os.File // with path, the location of a listed regular file
	path string
	sum  [sha256.Size]byte // of the content of a regular file from a layer
}

func (n *node) kind() uint32 { return n.mode & unix.S_IFMT }
func (n *node) isDir() bool  { return n.kind() == unix.S_IFDIR }

// Empty returns the state of a new snapshot without a parent.
func Empty() *Tree {
	return &Tree{&node{mode: unix.S_IFDIR | 0o755, children: map[string]*node{}}}
}

// Clone returns a copy of t that Apply can change without changing t.
func (t *Tree) Clone() *Tree {
	return &Tree{t.root.clone(map[*node]*node{})}
}

func (n *node) clone(known map[*node]*node) *node {
	if c := known[n]; c != nil {
		return c
	}
	c := *n
	known[n] = &c
	if n.isDir() {
		c.children = make(map[string]*node, len(n.children))
		for name, child := range n.children {
			c.children[name] = child.clone(known)
		}
	}
	return &c
}

// List lists the files below the open directory dir, which must stay open as long as the tree is
// used. standIns is set if regular files may stand for device nodes (dirfd.DeviceMark); these are
// listed as device nodes.
func List(dir *os.File, standIns bool) (*Tree, error) {
	l := lister{dir: dir, standIns: standIns, files: map[file]*node{}}
	root, err := l.node(int(dir.Fd()), ".", ".")
	if err != nil {
		return nil, fmt.Errorf("list the file system: %w", err)
	}
	return &Tree{root}, nil
}

// file identifies a file that has several names.
type file struct{ dev, ino uint64 }

type lister struct {
	dir      *os.File
	standIns bool
	files    map[file]*node
}

// at returns a path of a name in an open directory that does not depend on the working directory.
func at(dir int, name string) string { return dirfd.FDPath(dir) + "/" + name }

// node lists the file name of the open directory dir. path is its path in the tree.
func (l *lister) node(dir int, name, path string) (*node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	n := &node{mode: st.Mode, uid: st.Uid, gid: st.Gid, sec: st.Mtim.Sec, names: uint64(st.Nlink),
		dir: l.dir, path: path}
	id := file{st.Dev, st.Ino}
	if !n.isDir() && st.Nlink > 1 {
		if known := l.files[id]; known != nil {
			return known, nil
		}
		l.files[id] = n
	}
	var err error
	switch n.kind() {
	case unix.S_IFDIR:
		if n.children, err = l.children(dir, name, path); err != nil {
			return nil, err
		}
	case unix.S_IFREG:
		n.size = st.Size
	case unix.S_IFLNK:
		if n.link, err = os.Readlink(at(dir, name)); err != nil {
			return nil, err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		n.major, n.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	if n.xattrs, err = xattrs(at(dir, name)); err == nil && l.standIns && n.kind() == unix.S_IFREG {
		err = n.standIn(at(dir, name))
	}
	return n, err
}

// standIn replaces the listing of a file that stands for a device node by that of the device node.
func (n *node) standIn(path string) error {
	value, err := sized(func(b []byte) (int, error) {
		return unix.Lgetxattr(path, dirfd.DeviceMark, b)
	})
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "getxattr", Path: path, Err: err}
	}
	d, ok := dirfd.DeviceOf(dirfd.Xattr{Name: dirfd.DeviceMark, Value: value})
	if !ok {
		return nil
	}
	kind := uint32(unix.S_IFCHR)
	if d.Block {
		kind = unix.S_IFBLK
	}
	n.mode, n.size, n.major, n.minor = kind|n.mode&0o7777, 0, d.Major, d.Minor
	return nil
}

func (l *lister) children(dir int, name, path string) (map[string]*node, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	entries, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	children := make(map[string]*node, len(entries))
	for _, base := range entries {
		if strings.HasPrefix(base, whiteoutPrefix) {
			continue
		}
		sub := base
		if path != "." {
			sub = path + "/" + base
		}
		n, err := l.node(fd, base, sub)
		if err != nil {
			return nil, err
		}
		// Layers contain no sockets. With drivers other than overlay, a step can make files that
		// look like overlay's whiteouts; layers do not contain them either.
		if n.kind() != unix.S_IFSOCK && !(n.kind() == unix.S_IFCHR &&
			n.major == 0 && n.minor == 0) {
			children[base] = n
		}
	}
	return children, nil
}

// xattrs returns the attributes of a file that a layer can contain.
func xattrs(path string) (map[string]string, error) {
	names, err := sized(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) || len(names) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	var found map[string]string
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		if !dirfd.InLayer(name) {
			continue
		}
		value, err := sized(func(b []byte) (int, error) {
			return unix.Lgetxattr(path, string(name), b)
		})
		if err != nil {
			return nil, &fs.PathError{Op: "getxattr", Path: path, Err: err}
		}
		if found == nil {
			found = map[string]string{}
		}
		found[string(name)] = string(value)
	}
	return found, nil
}

// sized calls read with an empty buffer, and then with a buffer of the size that it returned.
func sized(read func([]byte) (int, error)) ([]byte, error) {
	n, err := read(nil)
	if err != nil || n == 0 {
		return nil, err
	}
	b := make([]byte, n)
	n, err = read(b)
	return b[:max(n, 0)], err
}

// longest is the longest path that is passed to the kernel, whose limit is 4,095 bytes (PATH_MAX).
const longest = 2048

// Load reads the contents of all files, so that the listed directory can be closed.
func (t *Tree) Load() error { return t.root.load() }

func (n *node) load() error {
	for _, child := range n.children {
		if err := child.load(); err != nil {
			return err
		}
	}
	if n.kind() == unix.S_IFREG && n.dir != nil {
		sum, err := n.digest()
		if err != nil {
			return err
		}
		n.sum = sum
	}
	n.dir = nil
	return nil
}

// open opens a listed regular file.
func (n *node) open() (*os.File, error) {
	dir, path := int(n.dir.Fd()), n.path
	for len(path) > longest {
		cut := strings.LastIndexByte(path[:longest], '/')
		next, err := unix.Openat(dir, path[:cut],
			unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: n.path, Err: err}
		}
		defer unix.Close(next)
		dir, path = next, path[cut+1:]
	}
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC,
		0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: n.path, Err: err}
	}
	return os.NewFile(uintptr(fd), n.path), nil
}

// digest returns the digest of a regular file's content.
func (n *node) digest() ([sha256.Size]byte, error) {
	if n.dir == nil {
		return n.sum, nil
	}
	f, err := n.open()
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return [sha256.Size]byte(h.Sum(nil)), err
}

// sameContent reports whether two regular files of one size have the same content.
func sameContent(a, b *node) (bool, error) {
	if a.dir == nil || b.dir == nil {
		x, err := a.digest()
		if err != nil {
			return false, err
		}
		y, err := b.digest()
		return x == y, err
	}
	f, err := a.open()
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := b.open()
	if err != nil {
		return false, err
	}
	defer g.Close()
	return sameBytes(f, g, a.size)
}

// sameBytes compares two files. It does not read ranges that are holes in both.
func sameBytes(f, g *os.File, size int64) (bool, error) {
	var p, q [64 << 10]byte
	for off := int64(0); off < size; {
		off = min(dataFrom(f, off, size), dataFrom(g, off, size))
		n := min(int64(len(p)), size-off)
		for _, r := range []struct {
			f *os.File
			b []byte
		}{{f, p[:n]}, {g, q[:n]}} {
			if _, err := r.f.ReadAt(r.b, off); err != nil {
				return false, err
			}
		}
		if !bytes.Equal(p[:n], q[:n]) {
			return false, nil
		}
		off += n
	}
	return true, nil
}

// dataFrom returns the offset of a file's next data at or after off, or size if there are none.
func dataFrom(f *os.File, off, size int64) int64 {
	data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return size
	}
	if err != nil {
		return off // the file system does not report holes
	}
	return min(data, size)
}
