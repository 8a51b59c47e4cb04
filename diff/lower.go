package diff

import (
	"bytes"
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// lowerDir is a directory of one layer that is part of a merged directory.
type lowerDir struct {
	fd       int  // -1: opened for each use
	layer    int  // index of the layer; 0 is the uppermost
	whitened bool // its whiteouts may be files with an attribute (Linux 6.7, overlay.opaque=x)
	root     *layerRoot
	at       *location
}

// layerRoot is the directory of a whole layer.
type layerRoot struct {
	path string
	// limit is the first descriptor number that is not kept open. With hundreds of layers, a
	// descriptor for each layer of each directory of the path could exceed the process's limit.
	limit int
}

// location is the path of a directory below its layer's root; nil is the root.
type location struct {
	parent *location
	name   []byte // ends with a NUL
}

// openLayers opens the roots of layers, top first. The caller closes them.
func openLayers(dirs []string) (merged, error) {
	roots := make([]layerRoot, len(dirs))
	m := make(merged, 0, len(dirs))
	limit := keptDescriptors()
	for i, dir := range dirs {
		roots[i] = layerRoot{path: dir, limit: limit}
		fd, err := openRoot(dir)
		if err != nil {
			m.close()
			return nil, err
		}
		m = append(m, lowerDir{fd: roots[i].keep(fd), layer: i, root: &roots[i]})
	}
	return m, nil
}

// keptDescriptors returns the lowest descriptor number that is not kept open. It leaves one half of
// the process's limit for other uses. New descriptors get the lowest free number, so this bounds
// all seals together.
func keptDescriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, math.MaxInt32) / 2)
}

// keep returns fd, or closes it and returns -1 if too many files are open.
func (r *layerRoot) keep(fd int) int {
	if fd < r.limit {
		return fd
	}
	unix.Close(fd)
	return -1
}

// open returns a descriptor of the directory. The caller passes it to release.
func (d lowerDir) open() (int, error) {
	if d.fd >= 0 {
		return d.fd, nil
	}
	fd, err := openRoot(d.root.path)
	if err != nil {
		return -1, err
	}
	var way []*location
	for at := d.at; at != nil; at = at.parent {
		way = append(way, at)
	}
	for _, at := range slices.Backward(way) {
		sub, err := dirfd.OpenDir(fd, at.name)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = sub
	}
	return fd, nil
}

func (d lowerDir) release(fd int) {
	if fd != d.fd && fd >= 0 {
		unix.Close(fd)
	}
}

// attributes returns the attributes that a layer has for the directory, and its status in st.
func (d lowerDir) attributes(st *dirfd.Stat) ([]dirfd.Xattr, error) {
	fd, err := d.open()
	if err != nil {
		return nil, err
	}
	defer d.release(fd)
	if err := dirfd.Fstat(fd, st); err != nil {
		return nil, err
	}
	return dirfd.Xattrs(fd, dirfd.InLayer)
}

// merged is a directory of an overlay: the directories that it is merged from, top first, down to
// the last one that is visible. A plain directory consists of a single layer. Sockets, and names
// that begin with .wh., are treated as missing, since a layer cannot hold them (a socket belongs to
// a process; .wh. marks a removed name in a layer).
type merged []lowerDir

func (m merged) close() {
	for _, d := range m {
		if d.fd >= 0 {
			unix.Close(d.fd)
		}
	}
}

// marks recognizes overlay's extended attributes. Its zero value is for plain trees, which have
// none.
type marks struct{ prefix string }

func marksOf(t Tree) marks {
	switch {
	case t.Full:
		return marks{}
	case t.UserXattr:
		return marks{dirfd.OverlayUserXattrs}
	}
	return marks{dirfd.OverlayXattrs}
}

func (k marks) metacopy() string { return k.prefix + "metacopy" }

// has reports whether an attribute of a directory is one of overlay's marks that this package
// interprets.
func (k marks) has(name []byte) bool {
	if k.prefix == "" {
		return false
	}
	suffix, ok := bytes.CutPrefix(name, []byte(k.prefix))
	return ok && (string(suffix) == "opaque" || string(suffix) == "redirect")
}

// opaque reads a directory's opaque attribute: hides is set for the plain mark, and whitened if
// whiteouts in the directory may be files.
func (k marks) opaque(fd int) (hides, whitened bool) {
	if k.prefix == "" {
		return false, false
	}
	var value [8]byte
	if n, err := unix.Fgetxattr(fd, k.prefix+"opaque", value[:]); err == nil && n == 1 {
		return value[0] == 'y', value[0] == 'x'
	}
	return false, false
}

// whiteout reports whether a file of a directory, which is open as fd, is overlay's mark for a
// removed name, in either form.
func (k marks) whiteout(d lowerDir, fd int, name []byte, st *dirfd.Stat) bool {
	if dirfd.IsWhiteout(st) {
		return true
	}
	if !d.whitened || dirfd.Type(st) != unix.S_IFREG || st.Size != 0 {
		return false
	}
	_, err := unix.Lgetxattr(dirfd.FDPath(fd)+"/"+strings.TrimRight(string(name), "\x00"),
		k.prefix+"whiteout", nil)
	return err == nil
}

func reserved(name []byte) bool { return bytes.HasPrefix(name, []byte(unpack.WhiteoutPrefix)) }

// lookup looks up a name (ending with a NUL) in a merged directory, and returns the directory that
// has the file.
func (m merged) lookup(k marks, name []byte, st *dirfd.Stat) (in lowerDir, found bool, err error) {
	if reserved(name) {
		return in, false, nil
	}
	for _, d := range m {
		switch found, err := d.lookup(k, name, st); {
		case err == unix.ENOENT:
			continue
		case err != nil:
			return in, false, err
		default:
			return d, found, nil
		}
	}
	return in, false, nil
}

// lookup reports whether the file of that name exists. It returns ENOENT if the layer has no entry
// with that name.
func (d lowerDir) lookup(k marks, name []byte, st *dirfd.Stat) (found bool, err error) {
	fd, err := d.open()
	if err != nil {
		return false, err
	}
	defer d.release(fd)
	if err := dirfd.Lstat(fd, name, st); err != nil {
		return false, err
	}
	return !k.whiteout(d, fd, name, st) && dirfd.Type(st) != unix.S_IFSOCK, nil
}

// enter opens the merged directory of that name. It returns an empty one if there is none. The
// caller closes it.
func (m merged) enter(k marks, name []byte) (merged, error) {
	var sub merged
	var at *location
	for _, d := range m {
		fd, err := d.sub(name)
		if err == unix.ENOENT {
			continue
		}
		if err == unix.ENOTDIR || err == unix.ELOOP {
			break // a file or a whiteout hides the layers below
		}
		if err != nil {
			sub.close()
			return nil, err
		}
		if at == nil || at.parent != d.at {
			at = &location{parent: d.at, name: bytes.Clone(name)}
		}
		hides, whitened := k.opaque(fd)
		sub = append(sub, lowerDir{fd: d.root.keep(fd), layer: d.layer, whitened: whitened,
			root: d.root, at: at})
		if hides {
			break
		}
	}
	return sub, nil
}

// sub opens the subdirectory of that name.
func (d lowerDir) sub(name []byte) (int, error) {
	dir, err := d.open()
	if err != nil {
		return -1, err
	}
	defer d.release(dir)
	return dirfd.OpenDir(dir, name)
}

// names returns the sorted names in a merged directory.
func (m merged) names(k marks) ([]string, error) {
	var list []string
	seen := map[string]struct{}{}
	for i, d := range m {
		// Use a separate descriptor: reading a directory changes the offset.
		fd, err := d.sub([]byte(".\x00"))
		if err != nil {
			return nil, err
		}
		var n dirfd.Names
		if err := n.Read(fd); err != nil {
			unix.Close(fd)
			return nil, err
		}
		for _, e := range n.Entries {
			if _, ok := seen[string(n.Name(e))]; ok {
				continue
			}
			name := string(n.Name(e))
			if i+1 < len(m) {
				seen[name] = struct{}{}
			}
			if gone, err := k.absent(d, fd, &n, e); err != nil {
				unix.Close(fd)
				return nil, err
			} else if !gone {
				list = append(list, name)
			}
		}
		unix.Close(fd)
	}
	slices.Sort(list)
	return list, nil
}

// absent reports whether a name that is listed in a directory, which is open as fd, does not exist
// in the merged directory: it is a whiteout, a socket or a reserved name.
func (k marks) absent(d lowerDir, fd int, n *dirfd.Names, e dirfd.Dirent) (bool, error) {
	if reserved(n.Name(e)) || e.Type == unix.DT_SOCK {
		return true, nil
	}
	if e.Type != unix.DT_CHR && e.Type != unix.DT_UNKNOWN &&
		!(e.Type == unix.DT_REG && d.whitened) {
		return false, nil
	}
	var st dirfd.Stat
	if err := dirfd.Lstat(fd, n.CName(e), &st); err != nil {
		return false, err
	}
	return k.whiteout(d, fd, n.CName(e), &st) || dirfd.Type(&st) == unix.S_IFSOCK, nil
}

// place is a file that was looked up by its path. The caller closes it.
type place struct {
	dir   merged
	in    lowerDir
	name  []byte
	st    dirfd.Stat
	found bool
}

func (p *place) close() { p.dir.close() }

// find looks up a path from a merged root. The walk does not use it: it keeps its directories open.
func (m merged) find(k marks, path string) (p place, err error) {
	dir, owned := m, false
	for {
		part, rest, more := strings.Cut(path, "/")
		name := []byte(part + "\x00")
		if !more {
			p.name = name
			p.in, p.found, err = dir.lookup(k, name, &p.st)
			if owned {
				p.dir = dir
			}
			return p, err
		}
		next, err := dir.enter(k, name)
		if owned {
			dir.close()
		}
		if err != nil || len(next) == 0 {
			next.close()
			return p, err
		}
		dir, owned, path = next, true, rest
	}
}
