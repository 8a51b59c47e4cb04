package copyfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/filedata"
	"github.com/layerbuild/layerbuild/internal/fileentry"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// smallFile is the size below which a file is only read and written.
const smallFile = 128 << 10

// copier copies files into a root directory. It does not resolve a path for each file: it keeps a
// stack of open directories, and every call uses a directory's descriptor and one name.
type copier struct {
	copy   *Copy
	opts   Options
	root   int
	own    *Owner // nil: keep the source's owner
	chmod  *modeChange
	result Result
	ended  func() error // the reason to stop, or nil
	data   filedata.Copier

	aclLost bool // warnACL has warned

	// top is the directory that the current item is copied into. links maps each of the item's
	// files that have several names to the path, below top, of the first name that was copied.
	top    int
	frozen int // Copy.Frozen, or -1
	links  map[inode]string
	what   string // path of the item, for messages
	dest   string // path of top, for messages
}

type inode struct{ dev, ino uint64 }

// frame is a directory that is being copied.
type frame struct {
	path     string // below the item's top
	src, dst int
	// directory to read mode, time and attributes from instead of src; -1: none
	frozen int
	st     unix.Stat_t // of src or frozen
	// the digested values, with which src is compared after its attributes have been copied; the
	// zero Entry if there are none or the directory is frozen
	digested fileentry.Entry
	now      unix.Stat_t // of dst when it was entered
	// path of the first directory on the way to this one that was removed from the source; nil:
	// none
	missing *string
	made    bool // dst was made by this copy
	acl     bool // new files in dst inherit an access control list
	on      onLeave
}

// onLeave determines the attributes that finishDir sets on a directory after copying its contents.
type onLeave int

const (
	keepAll onLeave = iota
	// keep owner and mode and set the source's time (the directory whose contents are copied)
	setTime
	setMode // set the mode (a parent directory of --parents that existed)
	setAll
)

// Run performs a Copy into the open directory root (O_PATH is enough), which is the root directory
// of the image: links are resolved in it. The umask must be 0. Run may change the working directory
// of the calling thread. The result is valid if Run returns an error too.
func Run(ctx context.Context, root int, a *Copy, o Options) (Result, error) {
	c := &copier{copy: a, opts: o, root: root, ended: ctx.Err, frozen: -1}
	err := c.run()
	return c.result, err
}

func (c *copier) run() error {
	if err := c.readFlags(); err != nil {
		return err
	}
	if c.copy.Frozen != nil {
		c.frozen = int(c.copy.Frozen.Fd())
	}
	for _, s := range c.copy.Sources {
		c.data = filedata.Copier{Small: smallFile, Ended: c.ended}
		src := int(s.Dir.Fd())
		for k := range s.Items {
			if err := c.item(src, &s.Items[k]); err != nil {
				return err
			}
		}
	}
	for i := range c.copy.Inline {
		if err := c.inline(&c.copy.Inline[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) readFlags() error {
	if !c.copy.KeepOwner {
		c.own = &Owner{}
	}
	if c.copy.Chown != "" {
		o, unknown, err := c.opts.LookupOwner(c.root, c.copy.Chown)
		if err != nil {
			return err
		}
		if unknown != "" {
			c.result.Warnings = append(c.result.Warnings,
				fmt.Sprintf("--chown=%s: the image has no user or group %s, 0 is used instead",
					c.copy.Chown, unknown))
		}
		c.own = &o
	}
	if c.copy.Chmod != "" {
		var err error
		if c.chmod, err = parseMode(c.copy.Chmod); err != nil {
			return err
		}
	}
	return nil
}

// item copies one item.
func (c *copier) item(src int, it *Item) error {
	c.what, c.links = it.Path, nil
	dir, name := src, "."
	if clean := path.Clean(it.Path); clean != "." {
		name = path.Base(clean)
		var err error
		if dir, err = safepath.NoLinks(src, path.Dir(clean),
			unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
			return c.fail("", err)
		}
		defer unix.Close(dir)
	}
	e := it.entry()
	from := name
	if e.Frozen != 0 {
		dir, from = c.frozen, frozenName(e)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, from, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return c.missing(e, "", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.tree(src, dir, from, it)
	}
	if !e.Same(fileentry.FromStat(&st)) {
		return &ChangedError{Path: c.source("")}
	}
	if c.copy.Unpack && st.Mode&unix.S_IFMT == unix.S_IFREG {
		if done, err := c.unpackFile(dir, from, e); done || err != nil {
			return err
		}
	}
	return c.single(src, dir, from, it, &st)
}

// entry returns the entry for Path itself, or the zero Entry if the list has none.
func (it *Item) entry() *fileentry.Entry {
	for i := range it.Entries {
		if it.Entries[i].Path == "." || it.Entries[i].Path == "" {
			return &it.Entries[i]
		}
	}
	return &fileentry.Entry{}
}

func frozenName(e *fileentry.Entry) string { return strconv.Itoa(int(e.Frozen)) }

// missing returns the error for a file that cannot be found at its source: a *ChangedError if the
// file existed when it was digested.
func (c *copier) missing(e *fileentry.Entry, name string, err error) error {
	switch unwrapped(err) {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENXIO:
		if e.Known() && e.Frozen == 0 {
			return &ChangedError{Path: c.source(name)}
		}
	}
	return c.fail(name, err)
}

// unwrapped returns the system call's error in an *os.PathError, and any other error unchanged.
func unwrapped(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

// single copies an item that is not a directory.
func (c *copier) single(src, dir int, name string, it *Item, st *unix.Stat_t) error {
	stack, base, err := c.target(src, it)
	if err != nil {
		c.closeAll(stack)
		return err
	}
	defer func() { c.closeAll(stack) }()
	last := &stack[len(stack)-1]
	c.top = stack[0].dst
	f := leaf{up: last, src: dir, name: name, as: base, at: join(last.path, base), alone: true}
	if err := c.leaf(&f, it.entry(), st); err != nil {
		return err
	}
	return c.leaveAll(stack)
}

// tree copies an item that is a directory.
func (c *copier) tree(src, dir int, name string, it *Item) error {
	from, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|
		unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return c.missing(&fileentry.Entry{MtimeNs: it.MtimeNs}, "", err)
	}
	stack, err := c.treeTarget(src, from, it)
	defer func() { c.closeAll(stack) }()
	if err != nil {
		unix.Close(from)
		return err
	}
	top := &stack[len(stack)-1]
	c.top = top.dst
	c.dest, top.path = c.destPath(top.path), ""
	switch {
	case c.copy.DestOnly:
		if c.result.Dest, err = c.describe(top); err != nil {
			err = c.fail("", err)
		}
	case it.Entries == nil:
		err = c.walk(top)
	default:
		stack, err = c.entries(stack, it.Entries)
	}
	if err != nil {
		return err
	}
	return c.leaveAll(stack)
}

// treeTarget returns the stack of directories down to the destination of the directory from. The
// last frame owns the descriptor from.
func (c *copier) treeTarget(src, from int, it *Item) ([]frame, error) {
	if it.Contents || it.Target == "" {
		stack, err := c.enterDest(path.Join(c.copy.Dest, it.Target))
		if err != nil {
			return stack, err
		}
		f := &stack[0]
		if err := unix.Fstat(from, &f.st); err != nil {
			return stack, c.fail("", err)
		}
		f.src = from
		f.on = setAll
		if it.Contents {
			f.on = setTime
		}
		if e := it.entry(); !it.Contents && e.Known() {
			if e.Mode != 0 && e.Mode != f.st.Mode {
				return stack, &ChangedError{Path: c.source("")}
			}
			f.digested = *e
		}
		if it.MtimeNs != 0 {
			f.st.Mtim = unix.NsecToTimespec(it.MtimeNs)
		}
		return stack, nil
	}
	stack, err := c.enterDest(c.copy.Dest)
	if err == nil {
		stack, err = c.enterTarget(stack, src, it)
	}
	if err != nil {
		return stack, err
	}
	f, _, err := c.enterFD(&stack[len(stack)-1], from, -1, path.Base(it.Target), &fileentry.Entry{})
	if err != nil {
		return stack, err
	}
	return append(stack, f), nil
}

// entries copies the listed entries into the last directory of the stack, and returns the stack
// with the directories that are still open.
func (c *copier) entries(stack []frame, list []fileentry.Entry) ([]frame, error) {
	bottom := len(stack)
	for i := range list {
		e := &list[i]
		if e.Path == "." || e.Path == "" {
			continue
		}
		slash := strings.LastIndexByte(e.Path, '/')
		dir, name := e.Path[:max(slash, 0)], e.Path[slash+1:]
		for len(stack) > bottom && !below(dir, stack[len(stack)-1].path) {
			if err := c.leave(&stack[len(stack)-1]); err != nil {
				return stack, err
			}
			stack = stack[:len(stack)-1]
		}
		// Enter directories that are not in the list although entries below them are.
		for stack[len(stack)-1].path != dir {
			up := &stack[len(stack)-1]
			rest := strings.TrimPrefix(dir[len(up.path):], "/")
			part, _, _ := strings.Cut(rest, "/")
			f, err := c.enter(up, part, &fileentry.Entry{})
			if err != nil {
				return stack, err
			}
			stack = append(stack, f)
		}
		f, isDir, err := c.entry(&stack[len(stack)-1], name, e.Path, e)
		if err != nil {
			return stack, err
		}
		if isDir {
			stack = append(stack, f)
		}
	}
	return stack, nil
}

// below reports whether dir is top or below it.
func below(dir, top string) bool {
	return top == "" || dir == top || len(dir) > len(top) && dir[len(top)] == '/' &&
		dir[:len(top)] == top
}

// walk copies everything below a directory.
func (c *copier) walk(up *frame) error {
	names, err := dirfd.List(up.src)
	if err != nil {
		return c.fail(up.path, err)
	}
	for _, name := range names {
		f, isDir, err := c.entry(up, name, join(up.path, name), &fileentry.Entry{})
		if err != nil {
			return err
		}
		if !isDir {
			continue
		}
		if err := c.walk(&f); err != nil {
			c.closeAll([]frame{f})
			return err
		}
		if err := c.leave(&f); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one entry. It makes and enters a directory, but does not copy its contents.
func (c *copier) entry(up *frame, name, at string,
	e *fileentry.Entry) (f frame, isDir bool, err error) {
	if err := c.ended(); err != nil {
		return f, false, err
	}
	src, from := up.src, name
	switch {
	case e.Frozen != 0:
		src, from = c.frozen, frozenName(e)
	case up.missing != nil:
		return f, false, &ChangedError{Path: c.source(*up.missing), Below: true}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(src, from, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return f, false, c.missing(e, at, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		f, err = c.enter(up, name, e)
		return f, true, err
	}
	if !e.Same(fileentry.FromStat(&st)) {
		return f, false, &ChangedError{Path: c.source(at)}
	}
	return f, false, c.leaf(&leaf{up: up, src: src, name: from, as: name, at: at}, e, &st)
}

// join is path.Join without cleaning.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// enter makes the directory name in the destination, like the source directory that e describes,
// and enters it.
func (c *copier) enter(up *frame, name string, e *fileentry.Entry) (frame, error) {
	at := join(up.path, name)
	frozen := -1
	if e.Frozen != 0 {
		var err error
		if frozen, err = openDirAt(c.frozen, frozenName(e)); err != nil {
			return frame{}, c.fail(at, err)
		}
	}
	src, err := openDirAt(up.src, name)
	if err != nil && frozen < 0 {
		if up.missing != nil {
			return frame{}, &ChangedError{Path: c.source(*up.missing), Below: true}
		}
		return frame{}, c.missing(e, at, err)
	}
	// If the directory has a private copy, the new files in it have private copies too. The
	// directory itself may have been removed.
	missing := up.missing
	if err != nil && missing == nil {
		missing = &at
	}
	f, _, err := c.enterFD(up, src, frozen, name, e)
	f.missing = missing
	return f, err
}

// openDirAt opens a directory without following a link. It returns -1 with an error.
func openDirAt(dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0)
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// enterFD makes a directory like frozen, or like src if frozen is -1, and enters it. It takes
// ownership of both descriptors, also if it fails. e has the digested values.
func (c *copier) enterFD(up *frame, src, frozen int, name string,
	e *fileentry.Entry) (f frame, made bool, err error) {
	f = frame{path: join(up.path, name), src: src, dst: -1, frozen: frozen, on: setAll}
	defer func() {
		if err != nil {
			c.closeAll([]frame{f})
		}
	}()
	if err := unix.Fstat(f.attributesFrom(), &f.st); err != nil {
		return f, false, c.fail(f.path, err)
	}
	if e.Known() && e.Frozen == 0 {
		if e.Mode != 0 && e.Mode != f.st.Mode {
			return f, false, &ChangedError{Path: c.source(f.path)}
		}
		f.digested = *e
	}
	if e.MtimeNs != 0 {
		f.st.Mtim = unix.NsecToTimespec(e.MtimeNs)
	}
	// Only root can enter the directory until leave sets its owner and mode.
	switch err := unix.Mkdirat(up.dst, name, 0o700); err {
	case nil:
		made, f.made = true, true
	case unix.EEXIST:
	default:
		return f, false, c.fail(f.path, err)
	}
	return f, made, c.openInto(up, &f, name)
}

func (c *copier) openInto(up, f *frame, name string) error {
	var err error
	f.dst, err = unix.Openat(up.dst, name,
		unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return fmt.Errorf("cannot copy to non-directory: %s", c.destPath(f.path))
	}
	if err != nil {
		return c.fail(f.path, err)
	}
	if err := unix.Fstat(f.dst, &f.now); err != nil {
		unix.Close(f.dst)
		f.dst = -1
		return c.fail(f.path, err)
	}
	f.acl = (!f.made || up.acl) && hasDefaultACL(f.dst)
	return nil
}

// attributesFrom returns the open directory whose mode, time and attributes are copied.
func (f *frame) attributesFrom() int {
	if f.frozen >= 0 {
		return f.frozen
	}
	return f.src
}

// destPath returns the destination path of a file, for messages.
func (c *copier) destPath(name string) string { return path.Join(c.dest, name) }

// fail adds the file's source path to an error.
func (c *copier) fail(name string, err error) error {
	return fmt.Errorf("copy %s: %w", c.source(name), unwrapped(err))
}

func (c *copier) source(name string) string { return path.Join(c.what, name) }

// leaveAll finishes and closes directories, the innermost first.
func (c *copier) leaveAll(stack []frame) error {
	for i := len(stack) - 1; i >= 0; i-- {
		if err := c.leave(&stack[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) leave(f *frame) error {
	err := c.finishDir(f)
	c.closeAll([]frame{*f})
	f.src, f.dst, f.frozen = -1, -1, -1
	if _, changed := err.(*ChangedError); err != nil && !changed {
		return c.fail(f.path, err)
	}
	return err
}

func (c *copier) closeAll(stack []frame) {
	for _, f := range stack {
		for _, fd := range []int{f.src, f.dst, f.frozen} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
}

func (c *copier) finishDir(f *frame) error {
	switch f.on {
	case keepAll:
		return nil
	case setTime:
		return dirfd.SetTime(f.dst, nil, f.st.Mtim.Sec, f.st.Mtim.Nsec)
	case setMode:
		return unix.Fchmod(f.dst, f.st.Mode&0o7777)
	}
	if err := c.chown(f.dst, f.path, &f.st, Owner{int(f.now.Uid), int(f.now.Gid)}); err != nil {
		return err
	}
	from := &frame{acl: f.made && f.acl} // it inherited its access control list from its parent
	attrs, err := c.attributes(from, f.attributesFrom(), f.dst)
	if err != nil {
		return err
	}
	if f.digested.Known() {
		var after unix.Stat_t
		if err := unix.Fstat(f.src, &after); err != nil {
			return err
		}
		if !sameDir(&f.digested, &after, attrs.any) {
			return &ChangedError{Path: c.source(f.path)}
		}
	}
	if mode := c.mode(&f.st); attrs.acl || mode != f.now.Mode&0o7777 {
		if err := unix.Fchmod(f.dst, mode); err != nil {
			return err
		}
	}
	return dirfd.SetTime(f.dst, nil, f.st.Mtim.Sec, f.st.Mtim.Nsec)
}

// mode returns the mode of the copy of a file.
func (c *copier) mode(st *unix.Stat_t) uint32 {
	if c.chmod == nil {
		return st.Mode & 0o7777
	}
	return c.chmod.apply(st.Mode&0o7777, st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

// wanted returns the owner of the copy of a file.
func (c *copier) wanted(st *unix.Stat_t) Owner {
	if c.own != nil {
		return *c.own
	}
	return Owner{int(st.Uid), int(st.Gid)}
}

// chown gives a file that has the owner now the owner that the copy wants.
func (c *copier) chown(fd int, name string, st *unix.Stat_t, now Owner) error {
	want := c.wanted(st)
	if want == now {
		return nil
	}
	return c.ownerError(c.destPath(name), want, unix.Fchown(fd, want.UID, want.GID))
}
