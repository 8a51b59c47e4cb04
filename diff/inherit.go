package diff

import (
	"context"
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
func Inherit(ctx context.Context, t Tree, a Applied) error {
	if len(a.Implied) == 0 && len(a.Replaced) == 0 && len(a.Whiteouts) == 0 {
		return nil
	}
	root, err := openRoot(t.Dir)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	old, err := openLayers(t.Lower)
	if err != nil {
		return err
	}
	defer old.close()
	i := inheritor{marks: marksOf(t), at: []level{{below: old, own: merged{{fd: root,
		root: &layerRoot{path: t.Dir, limit: keptDescriptors()}}}}}}
	defer i.leave(1)
	each := func(path string, do func(string) error) error {
		err := context.Cause(ctx)
		if err == nil {
			err = do(path)
		}
		if err != nil {
			return fmt.Errorf("inherit %q: %w", path, err)
		}
		return nil
	}
	// The lists are sorted by path, so that directories stay open from one path to the next.
	for _, path := range a.Whiteouts {
		if err := each(path, i.whiteout); err != nil {
			return err
		}
	}
	for _, path := range a.Replaced {
		if err := each(path, i.replaced); err != nil {
			return err
		}
	}
	for _, d := range slices.Backward(a.Implied) { // before the directories that contain them
		if err := each(d.Path, func(string) error { return i.directory(d) }); err != nil {
			return err
		}
	}
	return nil
}

// inheritor walks through the directories of a layer and of those below it at the same time.
type inheritor struct {
	marks marks
	at    []level // the directories of a path, the root first
}

// level is a directory in a layer and in the layers below it.
type level struct {
	name   string
	own    merged // in the layer; empty if it has none
	below  merged // in the layers below, also if the layer hides it; empty if they have none
	link   bool   // the layers below have a link in place of it, or of a directory above it
	hidden hiding
}

// hiding tells whether a layer hides a directory of the layers below.
type hiding int

const (
	shown    hiding = iota
	byItself        // the layer's directory is opaque, or the layer has none in its place
	byParent        // the layer hides a directory above it
)

// enter goes to a directory; "" is the root. The result is valid until the next call.
func (i *inheritor) enter(path string) (*level, error) {
	n, rest := 1, path
	for ; n < len(i.at) && rest != ""; n++ {
		part, after, _ := strings.Cut(rest, "/")
		if part != i.at[n].name {
			break
		}
		rest = after
	}
	i.leave(n)
	for rest != "" {
		part, after, _ := strings.Cut(rest, "/")
		if err := i.step(part); err != nil {
			return nil, err
		}
		rest = after
	}
	return &i.at[len(i.at)-1], nil
}

// leave closes the directories from index n on.
func (i *inheritor) leave(n int) {
	for _, l := range i.at[min(n, len(i.at)):] {
		l.own.close()
		l.below.close()
	}
	i.at = i.at[:min(n, len(i.at))]
}

// step goes to a subdirectory.
func (i *inheritor) step(part string) (err error) {
	up, name := &i.at[len(i.at)-1], []byte(part+"\x00")
	l := level{name: part, link: up.link}
	defer func() {
		if err != nil {
			l.own.close()
			l.below.close()
		}
	}()
	var st dirfd.Stat
	_, found, err := up.below.lookup(i.marks, name, &st)
	if err != nil {
		return err
	}
	if found && dirfd.Type(&st) == unix.S_IFLNK {
		l.link = true
	} else if found {
		if l.below, err = up.below.enter(i.marks, name); err != nil {
			return err
		}
	}
	if l.own, err = up.own.enter(i.marks, name); err != nil {
		return err
	}
	switch {
	case up.hidden != shown:
		l.hidden = byParent
	case len(l.own) == 0:
		l.hidden = byItself
	default:
		fd, err := l.own[0].open()
		if err != nil {
			return err
		}
		if opaque, _ := i.marks.opaque(fd); opaque {
			l.hidden = byItself
		}
		l.own[0].release(fd)
	}
	i.at = append(i.at, l)
	return nil
}

// whiteout removes a whiteout from a directory that shows no files of the layers below.
func (i *inheritor) whiteout(path string) error {
	dir, name := "", path
	if cut := strings.LastIndexByte(path, '/'); cut >= 0 {
		dir, name = path[:cut], path[cut+1:]
	}
	l, err := i.enter(dir)
	if err != nil || len(l.below) > 0 && l.hidden == shown || len(l.own) == 0 {
		return err
	}
	fd, err := l.own[0].open()
	if err != nil {
		return err
	}
	defer l.own[0].release(fd)
	return removeWhiteout(fd, []byte(name+"\x00"))
}

// replaced returns an error if the layers below have a link at the path.
func (i *inheritor) replaced(path string) error {
	l, err := i.enter(path)
	if err == nil && l.link {
		err = ErrNeedsParent
	}
	return err
}

// directory adjusts a directory that the layer implied.
func (i *inheritor) directory(d unpack.Implied) error {
	if d.New && !d.Bare {
		return nil
	}
	if d.Path == "." {
		d.Path = ""
	}
	l, err := i.enter(d.Path)
	if err == nil && l.link {
		err = ErrNeedsParent
	}
	if err != nil || len(l.own) == 0 || len(l.below) == 0 && !d.Bare {
		return err
	}
	fd, err := l.own[0].open()
	if err != nil {
		return err
	}
	defer l.own[0].release(fd)
	if d.Bare && (len(l.below) == 0 || l.hidden == byParent) {
		return i.removeBare(fd)
	}
	return inherit(fd, l.below[0])
}

// removeBare removes the directory to which enter went, which contains only whiteouts.
func (i *inheritor) removeBare(fd int) error {
	var names dirfd.Names
	if err := names.Read(fd); err != nil {
		return err
	}
	for _, e := range names.Entries {
		if err := removeWhiteout(fd, names.CName(e)); err != nil {
			return err
		}
	}
	up := i.at[len(i.at)-2].own[0]
	dir, err := up.open()
	if err != nil {
		return err
	}
	defer up.release(dir)
	return removeName(dir, []byte(i.at[len(i.at)-1].name+"\x00"), unix.AT_REMOVEDIR)
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
