package diff

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/unpack/rawfs"
)

// Inherit gives directories of an overlay directory that its layer implied (Applied.Implied) the owner, mode,
// attributes and time that the layers below (t.Lower) have for them; where those have nothing and the layer only
// removes something, the directory goes. It is what unpacking the layers one upon another would have given, for
// layers that were unpacked beside each other.
//
// If a layer below has a link where the directory is, the error wraps ErrNeedsParent.
func Inherit(t Tree, implied []string) error {
	if len(implied) == 0 || len(t.Lower) == 0 {
		return nil
	}
	root, err := openRoot(t.Dir)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	i := inheritor{marks: marksOf(t)}
	for n, dir := range t.Lower {
		fd, err := openRoot(dir)
		if err != nil {
			i.old.close()
			return err
		}
		i.old = append(i.old, lowerDir{fd: fd, layer: n})
	}
	defer i.old.close()
	for _, path := range slices.Backward(slices.Sorted(slices.Values(implied))) {
		if err := i.directory(root, path); err != nil {
			return fmt.Errorf("inherit %q: %w", path, err)
		}
	}
	return nil
}

type inheritor struct {
	marks marks
	old   merged
}

func (i inheritor) directory(root int, path string) error {
	if path == "." {
		fd, err := rawfs.OpenDir(root, []byte(".\x00"))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return inherit(fd, i.old[0].fd)
	}
	below, hidden, err := i.below(root, path)
	if err != nil {
		return err
	}
	defer below.close()
	upper := merged{{fd: root}}
	p, err := upper.find(i.marks, path)
	if err != nil {
		return err
	}
	defer p.close()
	if !p.found {
		return nil
	}
	fd, err := rawfs.OpenDir(p.in.fd, p.name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(below) > 0 {
		return inherit(fd, below[0].fd)
	}
	if hidden {
		return nil
	}
	return i.removeIfVoid(fd, p)
}

// below opens what the layers below have for a path. hidden says that a directory of this layer hides it.
func (i inheritor) below(root int, path string) (m merged, hidden bool, err error) {
	parts := strings.Split(path, "/")
	at, own := slices.Clone(i.old), false
	for n, part := range parts {
		var st rawfs.Stat
		name := []byte(part + "\x00")
		_, found, err := at.lookup(i.marks, name, &st)
		var next merged
		if err == nil && found {
			if rawfs.Type(&st) == unix.S_IFLNK {
				err = ErrNeedsParent
			} else {
				next, err = at.enter(i.marks, name)
			}
		}
		if own {
			at.close()
		}
		if err != nil || len(next) == 0 {
			return nil, false, err
		}
		at, own = next, true
		fd, err := rawfs.OpenDir(root, []byte(strings.Join(parts[:n+1], "/")+"\x00"))
		if err != nil {
			at.close()
			return nil, false, err
		}
		hides, _ := i.marks.opaque(fd)
		unix.Close(fd)
		if hides {
			at.close()
			return nil, true, nil
		}
	}
	return at, false, nil
}

// inherit gives the directory fd what the directory from has.
func inherit(fd, from int) error {
	var st rawfs.Stat
	if err := rawfs.Fstat(from, &st); err != nil {
		return err
	}
	xattrs, err := rawfs.Xattrs(from, rawfs.InLayer)
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
	return rawfs.SetTime(fd, nil, st.Mtime.Sec, int64(st.Mtime.Nsec))
}

// removeIfVoid removes a directory in which there is nothing but whiteouts, which have nothing to hide.
func (i inheritor) removeIfVoid(fd int, p place) error {
	var names rawfs.Names
	if err := names.Read(fd); err != nil {
		return err
	}
	for _, e := range names.Entries {
		var st rawfs.Stat
		if err := rawfs.Lstat(fd, names.CName(e), &st); err != nil {
			return err
		}
		if !rawfs.IsWhiteout(&st) {
			return nil
		}
	}
	for _, e := range names.Entries {
		if err := rawfs.Unlink(fd, names.CName(e), 0); err != nil {
			return err
		}
	}
	return rawfs.Unlink(p.in.fd, p.name, unix.AT_REMOVEDIR)
}
