package diff

import (
	"context"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// walker writes the difference between two states of a tree, new and old. Its output depends only
// on the two states, and not on how a driver recorded the changes: therefore all drivers produce
// the same bytes.
type walker struct {
	// ctx is that of the call that the walker is made for. It is stored because the functions that
	// call each other for each directory pass it on only to check it.
	ctx  context.Context
	o    Options
	full bool
	// standIns is set if regular files may stand for device nodes.
	standIns bool
	marks    marks
	out      tarWriter

	external *External // nil once it is written
	root     int       // the new state, or an overlay's upper directory
	top      lowerDir  // the same as root, as a layer
	old      merged    // the old state's root
	path     []byte    // path of the current file
	pending  []pending
	names    []*dirfd.Names // one for each depth, reused
	skip     map[string]struct{}
	links    links
	target   []byte // buffer for a link's target
	pathBuf  []byte // buffer for a path
}

// pending is a directory above the current file that is not written yet. It is written if anything
// in it is: readers that make a missing parent guess its owner and mode.
type pending struct {
	end    int // length of its path
	st     dirfd.Stat
	xattrs []dirfd.Xattr
	left   unrecorded
}

func newWalker(ctx context.Context, t Tree, o Options) (*walker, error) {
	w := &walker{ctx: ctx, o: o, full: t.Full, standIns: t.StandIns, marks: marksOf(t),
		external: t.External, root: -1}
	w.out.table = o.Table
	if len(o.SkipPaths) > 0 {
		w.skip = map[string]struct{}{}
		for _, p := range o.SkipPaths {
			w.skip[p] = struct{}{}
		}
	}
	var err error
	if w.root, err = openRoot(t.Dir); err != nil {
		return nil, err
	}
	if w.old, err = openLayers(t.Lower); err != nil {
		w.close()
		return nil, err
	}
	w.top = lowerDir{fd: w.root, layer: newState,
		root: &layerRoot{path: t.Dir, limit: keptDescriptors()}}
	w.links.init()
	return w, nil
}

func openRoot(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", dir, err)
	}
	return fd, nil
}

func (w *walker) close() {
	if w.root >= 0 {
		unix.Close(w.root)
	}
	w.old.close()
}

// run writes the whole stream.
func (w *walker) run() (Stats, error) {
	err := w.rootEntry()
	if err == nil {
		err = w.directory(w.root, w.old, mark{})
	}
	if err == nil && w.external != nil {
		err = fmt.Errorf("%w: the directory %s does not exist", ErrExternal, w.external.Path)
	}
	if err == nil {
		err = w.out.end()
	}
	if err != nil {
		return Stats{}, fmt.Errorf("write layer: %q: %w", w.path, err)
	}
	return Stats{Entries: w.out.count, Size: w.out.size}, nil
}

// rootEntry writes an entry for the root if its owner, mode or attributes have changed. Its time is
// not compared, since it changes with every name made in the root. Other builders never write an
// entry for the root.
func (w *walker) rootEntry() error {
	var st dirfd.Stat
	xattrs, left, changed, err := w.rootChanged(&st)
	if err != nil || !changed {
		return err
	}
	if len(w.old) > 0 {
		if err := left.unlessOld(w.old[0], []byte(".\x00")); err != nil {
			return err
		}
	}
	w.warnAttributes(nil, left)
	h := w.describe([]byte("."), unpack.TypeDir, &st)
	h.xattrs = xattrs
	return w.out.header(&h)
}

func (w *walker) rootChanged(st *dirfd.Stat) (xattrs []dirfd.Xattr, left unrecorded,
	changed bool, err error) {
	if err := dirfd.Fstat(w.root, st); err != nil {
		return nil, nil, false, err
	}
	if xattrs, err = dirfd.Xattrs(w.root, left.written); err != nil {
		return nil, nil, false, err
	}
	old := dirfd.Stat{Mode: unix.S_IFDIR | 0o755}
	var oldXattrs []dirfd.Xattr
	if len(w.old) > 0 {
		if oldXattrs, err = w.old[0].attributes(&old); err != nil {
			return nil, nil, false, err
		}
	}
	same := st.Mode == old.Mode && st.Uid == old.Uid && st.Gid == old.Gid &&
		sameXattrs(xattrs, oldXattrs)
	return xattrs, left, !same, nil
}

// Unchanged reports whether t's two states can be seen to be the same without reading files,
// because the upper directory is empty. Most commands that only read files leave it empty. Seal
// then writes a layer without entries.
func Unchanged(ctx context.Context, t Tree) (bool, error) {
	if t.Full || t.External != nil {
		return false, nil
	}
	t.Lower = t.Lower[:min(1, len(t.Lower))] // the first has the root's attributes
	w, err := newWalker(ctx, t, Options{})
	if err != nil {
		return false, err
	}
	defer w.close()
	names := w.borrowNames()
	if err := names.Read(w.root); err != nil || len(names.Entries) > 0 {
		return false, err
	}
	var st dirfd.Stat
	_, _, changed, err := w.rootChanged(&st)
	return !changed && err == nil, err
}

// mark describes how a directory of the new state relates to the old state.
type mark struct {
	// hides is set if the directory hides the layers below, because it or a directory above it has
	// overlay's opaque mark. The package comment ("Opaque directories") has the reason why the mark
	// applies to everything below it.
	hides bool
	// whitened is set if regular files in it may be whiteouts (overlay.opaque=x, Linux 6.7). This
	// does not apply to directories below it.
	whitened bool
}

// directory writes the changes inside the open directory fd, which is w.path. old is the same
// directory in the old state; if old is empty, there was no such directory, and everything in fd is
// new.
//
// The order is fixed: the opaque mark or the whiteouts sorted by name, then the entries sorted by
// name, each directory followed by its contents.
func (w *walker) directory(fd int, old merged, m mark) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.external != nil && string(w.path) == w.external.Path {
		return w.writeExternal()
	}
	depth := len(w.names)
	names := w.borrowNames()
	defer func() { w.names = w.names[:depth] }()
	if err := names.Read(fd); err != nil {
		return err
	}
	names.Sort()
	absent, kept, err := w.present(fd, names, old, m)
	if err != nil {
		return err
	}
	if len(old) > 0 {
		opaque, removed, err := w.removed(old, names, absent, kept, m)
		if err != nil {
			return err
		}
		if opaque {
			old = nil
		}
		if err := w.whiteouts(opaque, removed); err != nil {
			return err
		}
	}
	end := len(w.path)
	for _, e := range names.Entries {
		if end > 0 {
			w.path = append(w.path, '/')
		}
		w.path = append(w.path, names.Name(e)...)
		if err := w.entry(fd, names.CName(e), old, m.hides); err != nil {
			return err
		}
		w.path = w.path[:end]
	}
	return nil
}

// borrowNames returns the list of names for one more depth.
func (w *walker) borrowNames() *dirfd.Names {
	n := len(w.names)
	if n < cap(w.names) {
		w.names = w.names[:n+1]
		if w.names[n] == nil {
			w.names[n] = new(dirfd.Names)
		}
	} else {
		w.names = append(w.names, new(dirfd.Names))
	}
	return w.names[n]
}

// present removes from names the entries that are not part of the new state, and returns them:
// absent has marks of removed names and names that a layer cannot hold, and kept has names that are
// treated as unchanged. It warns about names that a layer cannot hold, unless the old state has
// them too: with a driver that stores whole trees, each later state contains them again.
func (w *walker) present(fd int, names *dirfd.Names, old merged,
	m mark) (absent, kept []string, err error) {
	d := lowerDir{fd: fd, whitened: m.whitened}
	n := 0
	for _, e := range names.Entries {
		if w.skips(names.Name(e)) {
			kept = append(kept, string(names.Name(e)))
			continue
		}
		gone, err := w.marks.absent(d, fd, names, e)
		if err != nil {
			return nil, nil, err
		}
		if !gone {
			names.Entries[n] = e
			n++
			continue
		}
		if reserved(names.Name(e)) {
			if removed, err := w.removedMark(fd, names, e); err != nil {
				return nil, nil, err
			} else if removed {
				continue // the old state's layers do not contain the file
			}
			const marks = "left out: a layer marks a removed file by a name that begins with .wh."
			if err := w.warnUnlessOld(fd, names.CName(e), old, marks); err != nil {
				return nil, nil, err
			}
			continue
		}
		if w.full && e.Type == unix.DT_CHR {
			if err := w.warnUnlessOld(fd, names.CName(e), old,
				"left out: overlay marks a removed file by a character device 0:0"); err != nil {
				return nil, nil, err
			}
		}
		absent = append(absent, string(names.Name(e)))
	}
	names.Entries = names.Entries[:n]
	return absent, kept, nil
}

// removedMark reports whether an entry of an upper directory is overlay's mark for a removed name.
func (w *walker) removedMark(fd int, names *dirfd.Names, e dirfd.Dirent) (bool, error) {
	if w.full || e.Type != unix.DT_CHR {
		return false, nil
	}
	var st dirfd.Stat
	err := dirfd.Lstat(fd, names.CName(e), &st)
	return err == nil && dirfd.IsWhiteout(&st), err
}

func (w *walker) skips(name []byte) bool {
	if w.skip == nil {
		return false
	}
	w.pathBuf = append(w.pathBuf[:0], w.path...)
	if len(w.path) > 0 {
		w.pathBuf = append(w.pathBuf, '/')
	}
	w.pathBuf = append(w.pathBuf, name...)
	_, ok := w.skip[string(w.pathBuf)]
	return ok
}

// join returns the path of a name in the current directory.
func (w *walker) join(name []byte) []byte {
	if len(w.path) == 0 {
		return slices.Clone(name)
	}
	return slices.Concat(w.path, []byte("/"), name)
}

// warnUnlessOld warns about a name in the open directory dir, unless the old directory has the same
// file.
func (w *walker) warnUnlessOld(dir int, name []byte, old merged, problem string) error {
	if w.o.Warn == nil {
		return nil
	}
	if w.full && len(old) > 0 {
		var st, was dirfd.Stat
		if err := dirfd.Lstat(dir, name, &st); err != nil {
			return err
		}
		fd, err := old[0].open()
		if err != nil {
			return err
		}
		defer old[0].release(fd)
		err = dirfd.Lstat(fd, name, &was)
		if err == nil && w.sameStat(&st, &was) && st.Size == was.Size {
			return nil
		}
		if err != nil && err != unix.ENOENT {
			return err
		}
	}
	w.o.Warn(string(w.join(name[:len(name)-1])), problem)
	return nil
}

// unrecorded has the names of a file's attributes that a layer cannot hold.
type unrecorded []string

// written reports whether an attribute of a file that is written is in the layer.
func (u *unrecorded) written(name []byte) bool {
	if dirfd.Unrecorded(name) {
		*u = append(*u, string(name))
	}
	return dirfd.InLayer(name)
}

// unlessOld removes from u the attributes that the file of that name also has in the old state.
func (u *unrecorded) unlessOld(in lowerDir, name []byte) error {
	if len(*u) == 0 {
		return nil
	}
	fd, err := in.open()
	if err != nil {
		return err
	}
	defer in.release(fd)
	_, err = dirfd.XattrsAt(fd, name, func(x []byte) bool {
		*u = slices.DeleteFunc(*u, func(name string) bool { return name == string(x) })
		return false
	})
	return err
}

func (w *walker) warnAttributes(path []byte, left unrecorded) {
	for _, name := range left {
		w.warnAttribute(path, name)
	}
}

func (w *walker) warnAttribute(path []byte, name string) {
	if w.o.Warn == nil {
		return
	}
	if len(path) == 0 {
		path = []byte(".")
	}
	w.o.Warn(string(path), fmt.Sprintf(
		"the attribute %q is left out: a layer cannot hold a name with \"=\"", name))
}

// removed returns the names of the old directory that the new one does not have, and reports
// whether the directory is written as opaque.
//
// It is opaque if all of its old names were removed, and they were several or the directory has new
// ones. Otherwise each removed name has a whiteout. "rm -r d && mkdir d" and "rm d/*" leave the
// same state and therefore produce the same layer, whether or not overlay has marked the directory.
func (w *walker) removed(old merged, names *dirfd.Names, absent, kept []string,
	m mark) (opaque bool, removed []string, err error) {
	var before []string
	if w.full || m.hides {
		if before, err = old.names(w.marks); err != nil {
			return false, nil, err
		}
		for _, name := range before {
			_, there := names.Find([]byte(name))
			if !there && !slices.Contains(kept, name) && !w.skips([]byte(name)) {
				removed = append(removed, name)
			}
		}
	} else {
		var st dirfd.Stat
		for _, name := range absent {
			_, found, err := old.lookup(w.marks, []byte(name+"\x00"), &st)
			if err != nil {
				return false, nil, err
			}
			if found {
				removed = append(removed, name)
			}
		}
		// The directory can be opaque only if all of its old names are removed. List them only if
		// that is possible.
		if len(removed) == 0 || len(w.path) == 0 {
			return false, removed, nil
		}
		if before, err = old.names(w.marks); err != nil {
			return false, nil, err
		}
	}
	opaque = len(w.path) > 0 && len(removed) > 0 && len(removed) == len(before) &&
		(len(before) > 1 || len(names.Entries) > 0)
	return opaque, removed, nil
}

func (w *walker) whiteouts(opaque bool, removed []string) error {
	if opaque {
		return w.whiteout(unpack.OpaqueName)
	}
	for _, name := range removed {
		if err := w.whiteout(unpack.WhiteoutPrefix + name); err != nil {
			return err
		}
	}
	return nil
}

// whiteout writes an empty file as a whiteout, without owner, mode and time.
func (w *walker) whiteout(name string) error {
	if err := w.parents(); err != nil {
		return err
	}
	return w.out.header(&header{name: w.join([]byte(name)), kind: unpack.TypeFile})
}

// parents writes the directories above the current file that are not written yet.
func (w *walker) parents() error {
	for i := range w.pending {
		p := &w.pending[i]
		h := w.describe(w.path[:p.end], unpack.TypeDir, &p.st)
		h.xattrs = p.xattrs
		if err := w.out.header(&h); err != nil {
			return err
		}
		w.warnAttributes(w.path[:p.end], p.left)
	}
	w.pending = w.pending[:0]
	return nil
}

// time returns the time of an entry in the layer: whole seconds, as other builders write them, so
// that the state unpacked from a layer equals the state from which the layer was made. It is not
// later than the epoch.
func (w *walker) time(st *dirfd.Stat) int64 {
	sec := st.Mtime.Sec
	if w.o.Epoch != nil {
		sec = min(sec, *w.o.Epoch)
	}
	return sec
}

func (w *walker) describe(path []byte, kind byte, st *dirfd.Stat) header {
	return header{name: path, kind: kind, mode: uint32(st.Mode) & 0o7777, uid: st.Uid,
		gid: st.Gid, sec: w.time(st)}
}

// entry writes w.path, which is name in the open directory dir, if it has changed. hides is set if
// dir hides the layers below.
func (w *walker) entry(dir int, name []byte, old merged, hides bool) error {
	var st dirfd.Stat
	if err := dirfd.Lstat(dir, name, &st); err != nil {
		return err
	}
	if dirfd.Type(&st) == unix.S_IFDIR {
		return w.subdirectory(dir, name, &st, old, hides)
	}
	if st.Nlink > 1 {
		if first, known := w.links.seen(&st); known {
			return w.hardlink(first, &st)
		}
	}
	changed := true
	var in lowerDir
	found := false
	if len(old) > 0 {
		var was dirfd.Stat
		var err error
		if in, found, err = old.lookup(w.marks, name, &was); err != nil {
			return err
		}
		if found {
			if changed, err = w.changed(dir, name, &st, in, &was); err != nil {
				return err
			}
		}
	}
	if st.Nlink > 1 {
		w.links.remember(&st, w.path, changed)
	}
	if !changed {
		return nil
	}
	if err := w.parents(); err != nil {
		return err
	}
	left, err := w.file(dir, name, &st)
	if err == nil && found {
		err = left.unlessOld(in, name)
	}
	if err == nil {
		w.warnAttributes(w.path, left)
	}
	return err
}

func (w *walker) subdirectory(dir int, name []byte, st *dirfd.Stat, old merged, hides bool) error {
	fd, err := dirfd.OpenDir(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	m := mark{hides: hides}
	var left unrecorded
	xattrs, err := dirfd.Xattrs(fd, func(x []byte) bool {
		return left.written(x) || w.marks.has(x)
	})
	if err != nil {
		return err
	}
	xattrs = slices.DeleteFunc(xattrs, func(x dirfd.Xattr) bool {
		switch {
		case dirfd.InLayer([]byte(x.Name)):
			return false
		case x.Name == w.marks.prefix+"redirect":
			err = fmt.Errorf("the overlay was mounted with redirect_dir: %w", unix.EINVAL)
		default:
			m.hides = m.hides || string(x.Value) == "y"
			m.whitened = m.whitened || string(x.Value) == "x"
		}
		return true
	})
	if err != nil {
		return err
	}
	below, err := old.enter(w.marks, name)
	if err != nil {
		return err
	}
	defer below.close()
	changed := true
	if len(below) > 0 {
		var was dirfd.Stat
		before, err := below[0].attributes(&was)
		if err != nil {
			return err
		}
		changed = !w.sameStat(st, &was) || !sameXattrs(xattrs, before)
		if err := left.unlessOld(below[0], []byte(".\x00")); err != nil {
			return err
		}
	}
	w.pending = append(w.pending, pending{end: len(w.path), st: *st, xattrs: xattrs, left: left})
	if changed {
		if err := w.parents(); err != nil {
			return err
		}
	}
	waiting := len(w.pending)
	if err := w.directory(fd, below, m); err != nil {
		return err
	}
	if waiting > 0 && len(w.pending) == waiting {
		w.pending = w.pending[:waiting-1]
	}
	return nil
}

func (w *walker) hardlink(first string, st *dirfd.Stat) error {
	if first == "" {
		return nil // all names of the file are unchanged
	}
	if err := w.parents(); err != nil {
		return err
	}
	h := w.describe(w.path, unpack.TypeHardlink, st)
	h.link = []byte(first)
	return w.out.header(&h)
}

// file writes an entry that is not a directory. It returns the attributes that the layer cannot
// hold.
func (w *walker) file(dir int, name []byte, st *dirfd.Stat) (left unrecorded, err error) {
	h := w.describe(w.path, 0, st)
	switch dirfd.Type(st) {
	case unix.S_IFREG:
		return w.regular(dir, name, h, st)
	case unix.S_IFLNK:
		h.kind = unpack.TypeSymlink
		if h.link, err = w.readlink(dir, name, st); err != nil {
			return nil, err
		}
		return nil, w.out.header(&h)
	case unix.S_IFCHR:
		h.kind = unpack.TypeChar
	case unix.S_IFBLK:
		h.kind = unpack.TypeBlock
	case unix.S_IFIFO:
		h.kind = unpack.TypeFifo
	default:
		return nil, fmt.Errorf("unknown file type %o", st.Mode)
	}
	if h.kind != unpack.TypeFifo {
		h.maj, h.minor = st.Rdev_major, st.Rdev_minor
	}
	if h.xattrs, err = dirfd.XattrsAt(dir, name, left.written); err != nil {
		return nil, err
	}
	return left, w.out.header(&h)
}

func (w *walker) readlink(dir int, name []byte, st *dirfd.Stat) ([]byte, error) {
	if need := int(st.Size) + 1; len(w.target) < need {
		w.target = make([]byte, max(need, 256))
	}
	n, err := dirfd.Readlink(dir, name, w.target)
	return w.target[:n], err
}

// openFile opens a regular file to read it once. It uses O_NOATIME if that is allowed.
func openFile(dir int, name []byte) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := dirfd.Open(dir, name, flags|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		fd, err = dirfd.Open(dir, name, flags, 0)
	}
	return fd, err
}

func (w *walker) regular(dir int, name []byte, h header,
	st *dirfd.Stat) (left unrecorded, err error) {
	h.kind, h.size = unpack.TypeFile, int64(st.Size)
	fd, err := openFile(dir, name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	metacopy := false
	if h.xattrs, err = dirfd.Xattrs(fd, func(x []byte) bool {
		metacopy = metacopy || string(x) == w.marks.metacopy()
		return left.written(x) || w.counts(x)
	}); err != nil {
		return nil, err
	}
	if metacopy {
		return nil, fmt.Errorf("the overlay was mounted with metacopy: %w", unix.EINVAL)
	}
	if h.device() {
		return left, w.out.header(&h)
	}
	return left, w.content(fd, &h, st)
}

// counts reports whether an attribute of a regular file is part of its state.
func (w *walker) counts(name []byte) bool {
	return dirfd.InLayer(name) || w.standIns && string(name) == dirfd.DeviceMark
}

// device changes the header of a regular file that stands for a device node into that of the node,
// and reports whether the file stands for one.
func (h *header) device() bool {
	for i, x := range h.xattrs {
		d, ok := dirfd.DeviceOf(x)
		if !ok {
			continue
		}
		h.kind, h.size, h.maj, h.minor = unpack.TypeChar, 0, d.Major, d.Minor
		if d.Block {
			h.kind = unpack.TypeBlock
		}
		h.xattrs = slices.Delete(h.xattrs, i, i+1)
		return true
	}
	return false
}

// content writes a regular file's header and contents.
func (w *walker) content(fd int, h *header, st *dirfd.Stat) error {
	err := w.out.header(h)
	if err != nil {
		return err
	}
	if st.Blocks*512 < st.Size {
		err = w.sparse(fd, h.size)
	} else {
		err = w.copy(fd, h.size)
	}
	w.out.pad()
	return err
}

// copy writes n bytes of fd, which it reads directly into the stream's chunks.
func (w *walker) copy(fd int, n int64) error {
	for n > 0 {
		b, err := w.out.space()
		if err != nil {
			return err
		}
		got, err := dirfd.Read(fd, b[:min(n, int64(len(b)))])
		if err != nil {
			return err
		}
		if got == 0 {
			return fmt.Errorf("the file was truncated while it was read: %w", io.ErrUnexpectedEOF)
		}
		w.out.n += got
		n -= int64(got)
	}
	return nil
}

// sparse is like copy for a file with holes, which it does not read. It writes them as zeros, since
// every reader supports those.
func (w *walker) sparse(fd int, size int64) error {
	for at := int64(0); at < size; {
		data, end, err := dirfd.NextData(fd, at, size)
		if err != nil {
			return err
		}
		if err := w.out.zeros(data - at); err != nil {
			return err
		}
		if _, err := unix.Seek(fd, data, io.SeekStart); err != nil {
			return err
		}
		if err := w.copy(fd, end-data); err != nil {
			return err
		}
		at = end
	}
	return nil
}
