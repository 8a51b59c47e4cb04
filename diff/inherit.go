package diff

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// Inherit adjusts an overlay directory, into which a layer was unpacked without the layers below
// (t.Lower), to the result of unpacking the layers in order. Directories that the layer implied get
// the owner, mode, attributes and time that they have in the layers below, unless an earlier entry
// of the layer removed those. A directory that the layer needed only for whiteouts and opaque marks
// is removed if the layers below do not have it or the layer hides it. A whiteout is also removed
// from a directory that the layers below do not have, or that the layer makes opaque: the kernel
// recognizes whiteouts only in merged directories (ovl_dir_is_real), and in others would list one
// as a name that cannot be opened.
//
// If a layer below has a link at the path of a directory that the layer implied, at the end or for
// some time, the error wraps ErrNeedsParent.
func Inherit(t Tree, a Applied) error {
	if len(a.Implied) == 0 && len(a.Replaced) == 0 && len(a.Whiteouts) == 0 {
		return nil
	}
	root, err := openRoot(t.Dir)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	i := inheritor{marks: marksOf(t), shows: map[string]bool{}}
	i.top = merged{{fd: root, layer: newState,
		root: &layerRoot{path: t.Dir, limit: keptDescriptors()}}}
	if i.old, err = openLayers(t.Lower); err != nil {
		return err
	}
	defer i.old.close()
	for _, path := range a.Whiteouts {
		if err := i.whiteout(root, path); err != nil {
			return fmt.Errorf("inherit %q: %w", path, err)
		}
	}
	for _, path := range a.Replaced {
		below, _, err := i.below(root, path)
		if err != nil {
			return fmt.Errorf("inherit %q: %w", path, err)
		}
		below.close()
	}
	// Unpack has sorted the directories by path: one comes before those in it.
	for _, d := range slices.Backward(a.Implied) {
		if err := i.directory(root, d); err != nil {
			return fmt.Errorf("inherit %q: %w", d.Path, err)
		}
	}
	return nil
}

type inheritor struct {
	marks marks
	top   merged // the overlay directory
	old   merged
	shows map[string]bool // by directory with whiteouts: whether it shows files of the layers below
}

func (i inheritor) directory(root int, d unpack.Implied) error {
	if d.Path == "." {
		if len(i.old) == 0 {
			return nil
		}
		fd, err := dirfd.OpenDir(root, []byte(".\x00"))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return inherit(fd, i.old[0])
	}
	if d.New && !d.Bare {
		return nil
	}
	below, hidden, err := i.below(root, d.Path)
	if err != nil {
		return err
	}
	defer below.close()
	if len(below) == 0 && !d.Bare {
		return nil
	}
	p, err := i.top.find(i.marks, d.Path)
	if err != nil {
		return err
	}
	defer p.close()
	if !p.found {
		return nil
	}
	fd, err := p.in.sub(p.name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if d.Bare && (len(below) == 0 || hidden == byParent) {
		return removeBare(fd, p)
	}
	return inherit(fd, below[0])
}

// whiteout removes a whiteout from a directory that shows no files of the layers below.
func (i inheritor) whiteout(root int, path string) error {
	dir, name := "", path
	if cut := strings.LastIndexByte(path, '/'); cut >= 0 {
		dir, name = path[:cut], path[cut+1:]
	}
	shows, known := i.shows[dir]
	if !known {
		var err error
		if shows, err = i.showsBelow(root, dir); err != nil {
			return err
		}
		i.shows[dir] = shows
	}
	if shows {
		return nil
	}
	p, err := i.top.find(i.marks, path)
	if err != nil || p.name == nil {
		return err
	}
	defer p.close()
	in := i.top[0]
	if len(p.dir) > 0 {
		in = p.dir[0]
	}
	fd, err := in.open()
	if err != nil {
		return err
	}
	defer in.release(fd)
	return removeWhiteout(fd, []byte(name+"\x00"))
}

// showsBelow reports whether a directory, "" for the root, shows files of the layers below.
func (i inheritor) showsBelow(root int, dir string) (bool, error) {
	if dir == "" {
		return len(i.old) > 0, nil
	}
	below, hidden, err := i.below(root, dir)
	defer below.close()
	if errors.Is(err, ErrNeedsParent) {
		return false, nil // the layers below have a link, which the layer's directory hides
	}
	return len(below) > 0 && hidden == "", err
}

// removeWhiteout removes a whiteout from a directory. It keeps a file that the layer has made with
// that name.
func removeWhiteout(dir int, name []byte) error {
	var st dirfd.Stat
	if err := dirfd.Lstat(dir, name, &st); err != nil || !dirfd.IsWhiteout(&st) {
		if err == unix.ENOENT {
			err = nil
		}
		return err
	}
	return removeName(dir, name, 0)
}

// removeName removes a name from a directory and restores the directory's time.
func removeName(dir int, name []byte, flags int) error {
	var of dirfd.Stat
	if err := dirfd.Fstat(dir, &of); err != nil {
		return err
	}
	if err := dirfd.Unlink(dir, name, flags); err != nil {
		return err
	}
	return dirfd.SetTime(dir, nil, of.Mtime.Sec, int64(of.Mtime.Nsec))
}

// The results of inheritor.below: which directory of the layer hides the files of the layers below.
const (
	byParent = "a directory above it"
	byItself = "the directory itself"
)

// below opens the directory that the layers below have for a path, even if the layer hides it.
func (i inheritor) below(root int, path string) (m merged, hidden string, err error) {
	parts := strings.Split(path, "/")
	at, own := slices.Clone(i.old), false
	for n, part := range parts {
		var st dirfd.Stat
		name := []byte(part + "\x00")
		_, found, err := at.lookup(i.marks, name, &st)
		var next merged
		if err == nil && found {
			if dirfd.Type(&st) == unix.S_IFLNK {
				err = ErrNeedsParent
			} else {
				next, err = at.enter(i.marks, name)
			}
		}
		if own {
			at.close()
		}
		if err != nil || len(next) == 0 {
			return nil, "", err
		}
		at, own = next, true
		if hidden != "" {
			hidden = byParent
			continue
		}
		fd, err := dirfd.OpenDir(root, []byte(strings.Join(parts[:n+1], "/")+"\x00"))
		if err == unix.ENOTDIR || err == unix.ELOOP || err == unix.ENOENT {
			hidden = byItself // a later entry of the layer took its place
			continue
		}
		if err != nil {
			at.close()
			return nil, "", err
		}
		if hides, _ := i.marks.opaque(fd); hides {
			hidden = byItself
		}
		unix.Close(fd)
	}
	return at, hidden, nil
}

// inherit copies owner, mode, attributes and time of the directory from to the directory fd.
func inherit(fd int, from lowerDir) error {
	var st dirfd.Stat
	xattrs, err := from.attributes(&st)
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	for _, x := range xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", x.Name, err)
		}
	}
	if err := unix.Fchmod(fd, uint32(st.Mode)&0o7777); err != nil {
		return err
	}
	return dirfd.SetTime(fd, nil, st.Mtime.Sec, int64(st.Mtime.Nsec))
}

// removeBare removes a directory that contains only whiteouts.
func removeBare(fd int, p place) error {
	var names dirfd.Names
	if err := names.Read(fd); err != nil {
		return err
	}
	for _, e := range names.Entries {
		if err := removeWhiteout(fd, names.CName(e)); err != nil {
			return err
		}
	}
	dir, err := p.in.open()
	if err != nil {
		return err
	}
	defer p.in.release(dir)
	return removeName(dir, p.name, unix.AT_REMOVEDIR)
}
