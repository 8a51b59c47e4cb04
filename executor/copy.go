package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/safepath"
)

// copier copies files into this thread's root directory. It does not resolve a path for each file:
// it keeps a stack of open directories, and every call uses a directory's descriptor and one name.
type copier struct {
	spec   *Spec
	c      *Copy
	root   int
	own    *owner // nil: keep the source's owner
	chmod  *modeChange
	unpack Unpacker
	result *Result
	ended  func() error // the reason to stop, or nil
	data   dataCopier

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
	// the values that were digested, against which src is compared when its attributes have been
	// copied; the zero Entry if there are none or the directory is frozen
	digested Entry
	now      unix.Stat_t // of dst when it was entered
	// path of the first directory on the way here that was removed from the source; nil: none
	gone *string
	made bool // dst was made by this copy
	acl  bool // new files in dst inherit an access control list
	on   onLeave
}

// onLeave is what finishDir sets on a directory once its contents have been copied.
type onLeave int

const (
	keepAll onLeave = iota
	// keep owner and mode and set the source's time (the directory whose contents are copied)
	setTime
	setMode // set the mode (a parent directory of --parents that existed)
	setAllOfIt
)

// runCopy performs a Copy, in its own mount namespace. dirs are the descriptors of the sources'
// directories, followed by that of Copy.Frozen if it is set.
func runCopy(ctx context.Context, s *Spec, a *Copy, dirs []int, unpack Unpacker,
	result *Result) error {
	if err := enterRoot(s.Root); err != nil {
		return err
	}
	unix.Umask(0)
	c := &copier{spec: s, c: a, unpack: unpack, result: result, ended: ctx.Err, frozen: -1}
	if len(dirs) > len(a.Sources) {
		c.frozen = dirs[len(a.Sources)]
	}
	var err error
	if c.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	defer unix.Close(c.root)
	if err := c.readFlags(); err != nil {
		return err
	}
	for i, s := range a.Sources {
		c.data = dataCopier{ended: ctx.Err}
		for k := range s.Items {
			if err := c.item(dirs[i], &s.Items[k]); err != nil {
				return err
			}
		}
	}
	for i := range a.Inline {
		if err := c.inline(&a.Inline[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) readFlags() error {
	if !c.c.KeepOwner {
		c.own = &owner{}
	}
	if c.c.Chown != "" {
		o, unknown, err := lookupOwner(c.root, c.c.Chown)
		if err != nil {
			return err
		}
		if unknown != "" {
			c.result.Warnings = append(c.result.Warnings,
				fmt.Sprintf("--chown=%s: the image has no user or group %s, 0 is used instead",
					c.c.Chown, unknown))
		}
		c.own = &o
	}
	if c.c.Chmod != "" {
		var err error
		if c.chmod, err = parseMode(c.c.Chmod); err != nil {
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
	e := it.itself()
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
	if !e.same(&st) {
		return &ChangedError{Path: c.source("")}
	}
	if c.c.Unpack && st.Mode&unix.S_IFMT == unix.S_IFREG {
		if done, err := c.unpackFile(dir, from, e); done || err != nil {
			return err
		}
	}
	return c.single(src, dir, from, it, &st)
}

// itself returns the entry of the item's own file or directory, or the zero Entry if the list has
// none.
func (it *Item) itself() *Entry {
	for i := range it.Entries {
		if it.Entries[i].Path == "." || it.Entries[i].Path == "" {
			return &it.Entries[i]
		}
	}
	return &Entry{}
}

func frozenName(e *Entry) string { return strconv.Itoa(int(e.Frozen)) }

// missing returns the error for a file that cannot be found at its source: a *ChangedError if the
// file existed when it was digested.
func (c *copier) missing(e *Entry, name string, err error) error {
	switch unwrapped(err) {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENXIO:
		if e.known() && e.Frozen == 0 {
			return &ChangedError{Path: c.source(name)}
		}
	}
	return c.fail(name, err)
}

// unwrapped returns the system call's error of an *os.PathError, and any other error as it is.
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
	if err := c.leaf(&f, it.itself(), st); err != nil {
		return err
	}
	return c.leaveAll(stack)
}

// target returns the directory and the name that an item that is not a directory is copied to. It
// makes the directory if it is missing.
func (c *copier) target(src int, it *Item) (stack []frame, base string, err error) {
	if it.Target != "" {
		stack, err = c.enterDest(c.c.Dest)
		if err != nil {
			return nil, "", err
		}
		stack, err = c.enterTarget(stack, src, it)
		return stack, path.Base(it.Target), err
	}
	dest, base := c.c.Dest, it.Name
	if base == "" {
		base = path.Base(path.Clean(it.Path))
	}
	if !c.isDir(dest) {
		var parent int
		if parent, base, err = c.resolveLast(dest); err != nil {
			return nil, "", err
		}
		defer unix.Close(parent)
		f, err := c.openDest(parent, path.Dir(path.Clean(dest)))
		return []frame{f}, base, err
	}
	stack, err = c.enterDest(dest)
	return stack, base, err
}

// isDir reports whether a destination is a directory, either by its spelling (it ends in a slash,
// "." or "..") or because a directory exists there.
func (c *copier) isDir(dest string) bool {
	switch path.Base("x" + dest) {
	case ".", "..":
		return true
	}
	if strings.HasSuffix(dest, "/") {
		return true
	}
	fd, err := openIn(c.root, dest, unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// resolveLast resolves a path in the root, including links in its last part, until the last part is
// not a link. It makes missing parents. The caller closes the returned directory.
func (c *copier) resolveLast(dest string) (parent int, base string, err error) {
	for range safepath.MaxLinks {
		var parentName string
		parentName, base = path.Split(strings.TrimRight(dest, "/"))
		if parent, err = c.mkdirAll(parentName, c.parentMode()); err != nil {
			return -1, "", err
		}
		var buf [unix.PathMax]byte
		n, err := unix.Readlinkat(parent, base, buf[:])
		if err != nil {
			return parent, base, nil
		}
		unix.Close(parent)
		if target := string(buf[:n]); path.IsAbs(target) {
			dest = target
		} else {
			dest = parentName + "/" + target
		}
	}
	return -1, "", safepath.InRootError(dest, unix.ELOOP)
}

// mkdirAll makes a directory of the destination with its parents. mode is the mode of what is made.
func (c *copier) mkdirAll(name string, mode uint32) (int, error) {
	fd, err := safepath.MkdirAll(c.root, name, mode, func(parent int, base string) error {
		own := c.own
		if own == nil {
			own = &owner{}
		}
		if mode != 0o755 && c.isMountPoint(parent, base) {
			// not a link: this copy has just made it
			if err := unix.Fchmodat(parent, base, 0o755, 0); err != nil {
				return err
			}
		}
		return c.made(parent, base, *own)
	})
	if errors.Is(err, unix.ENOTDIR) {
		return -1, fmt.Errorf("cannot copy to non-directory: %s", path.Join("/", name))
	}
	if err != nil {
		return -1, safepath.InRootError(name, err)
	}
	return fd, nil
}

// isMountPoint reports whether a directory is a mount point that every command sees in the root
// (fillMountPoints). A command sees it with the mode 0755, and it is in no layer. A copy that makes
// it therefore uses that mode, also with --chmod.
func (c *copier) isMountPoint(parent int, base string) bool {
	if !slices.Contains(pointNames, base) {
		return false
	}
	var st, root unix.Stat_t
	return unix.Fstat(parent, &st) == nil && unix.Fstat(c.root, &root) == nil &&
		st.Dev == root.Dev && st.Ino == root.Ino
}

// parentMode returns the mode of the destination's missing parent directories.
func (c *copier) parentMode() uint32 {
	if c.chmod != nil && c.chmod.clauses == nil {
		return c.chmod.octal
	}
	return 0o755
}

// made sets the owner and time of a new directory.
func (c *copier) made(parent int, base string, own owner) error {
	if own != (owner{}) {
		err := unix.Fchownat(parent, base, own.uid, own.gid, unix.AT_SYMLINK_NOFOLLOW)
		if err := c.ownerError(base, own, err); err != nil {
			return err
		}
	}
	if c.spec.Epoch != nil {
		t := unix.NsecToTimespec(*c.spec.Epoch * 1e9)
		return unix.UtimesNanoAt(parent, base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// ownerError returns the error for a failed chown. If the user namespace has a single id, it counts
// the file in the result and returns nil.
func (c *copier) ownerError(name string, own owner, err error) error {
	if err == nil {
		return nil
	}
	if c.spec.SingleID && (err == unix.EINVAL || err == unix.EPERM) {
		if c.result.OwnersLost == 0 {
			c.result.FirstOwner = fmt.Sprintf("%s: %d:%d", name, own.uid, own.gid)
		}
		c.result.OwnersLost++
		return nil
	}
	if err == unix.EINVAL && c.spec.UserNS {
		return fmt.Errorf("set the owner %d:%d: there is no such id in this user namespace (/etc/subuid and /etc/subgid list the ids that a user may use)", own.uid, own.gid)
	}
	return fmt.Errorf("set the owner %d:%d: %w", own.uid, own.gid, err)
}

// enterDest makes the destination directory if it is missing, and opens it.
func (c *copier) enterDest(name string) ([]frame, error) {
	at, err := c.mkdirAll(name, c.parentMode())
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	f, err := c.openDest(at, name)
	if err != nil {
		return nil, err
	}
	return []frame{f}, nil
}

// openDest opens the directory at again, for reading, so that its attributes can be read and set.
func (c *copier) openDest(at int, name string) (frame, error) {
	c.dest = path.Join("/", name)
	f := frame{src: -1, dst: -1, frozen: -1}
	var err error
	if f.dst, err = unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC,
		0); err != nil {
		return f, safepath.InRootError(name, err)
	}
	if err := unix.Fstat(f.dst, &f.now); err != nil {
		unix.Close(f.dst)
		return f, safepath.InRootError(name, err)
	}
	f.acl = hasDefaultACL(f.dst)
	return f, nil
}

// enterTarget makes and enters the directories in an item's target name. A directory that exists at
// the source is made like that one.
func (c *copier) enterTarget(stack []frame, src int, it *Item) ([]frame, error) {
	dir := path.Dir(path.Clean(it.Target))
	if dir == "." {
		return stack, nil
	}
	prefix, same := strings.CutSuffix(path.Clean(it.Path), path.Clean(it.Target))
	at := ""
	for _, part := range strings.Split(dir, "/") {
		at = path.Join(at, part)
		var err error
		if same {
			stack, err = c.enterParent(stack, src, path.Join(prefix, at), part)
		} else {
			stack, err = c.enterPlain(stack, part)
		}
		if err != nil {
			return stack, err
		}
	}
	return stack, nil
}

func (c *copier) enterParent(stack []frame, src int, name, part string) ([]frame, error) {
	dir, err := safepath.NoLinks(src, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return c.enterPlain(stack, part)
	}
	if err != nil {
		return stack, c.fail("", err)
	}
	f, made, err := c.enterFD(&stack[len(stack)-1], dir, -1, part, &Entry{})
	if err != nil {
		return stack, err
	}
	if !made {
		f.on = setMode
	}
	return append(stack, f), nil
}

// enterPlain makes a directory with the mode, owner and time of the destination's missing parents,
// and enters it.
func (c *copier) enterPlain(stack []frame, part string) ([]frame, error) {
	up := &stack[len(stack)-1]
	f := frame{src: -1, frozen: -1, path: path.Join(up.path, part)}
	err := unix.Mkdirat(up.dst, part, c.parentMode())
	if err == nil {
		own := owner{}
		if c.own != nil {
			own = *c.own
		}
		err = c.made(up.dst, part, own)
	} else if err == unix.EEXIST {
		err = nil
	}
	if err != nil {
		return stack, c.fail(f.path, err)
	}
	if err := c.openInto(up, &f, part); err != nil {
		return stack, err
	}
	return append(stack, f), nil
}

// tree copies an item that is a directory.
func (c *copier) tree(src, dir int, name string, it *Item) error {
	from, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|
		unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return c.missing(&Entry{MtimeNs: it.MtimeNs}, "", err)
	}
	stack, err := c.treeTarget(src, from, it)
	defer func() { c.closeAll(stack) }()
	if err != nil {
		unix.Close(from)
		return err
	}
	top := &stack[len(stack)-1]
	c.top = top.dst
	c.dest, top.path = c.shown(top.path), ""
	switch {
	case c.c.DestOnly:
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

// treeTarget returns the stack of directories down to the one that from is copied to. The last
// frame owns the descriptor from.
func (c *copier) treeTarget(src, from int, it *Item) ([]frame, error) {
	if it.Contents || it.Target == "" {
		stack, err := c.enterDest(path.Join(c.c.Dest, it.Target))
		if err != nil {
			return stack, err
		}
		f := &stack[0]
		if err := unix.Fstat(from, &f.st); err != nil {
			return stack, c.fail("", err)
		}
		f.src = from
		f.on = setAllOfIt
		if it.Contents {
			f.on = setTime
		}
		if e := it.itself(); !it.Contents && e.known() {
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
	stack, err := c.enterDest(c.c.Dest)
	if err == nil {
		stack, err = c.enterTarget(stack, src, it)
	}
	if err != nil {
		return stack, err
	}
	f, _, err := c.enterFD(&stack[len(stack)-1], from, -1, path.Base(it.Target), &Entry{})
	if err != nil {
		return stack, err
	}
	return append(stack, f), nil
}

// entries copies the listed entries into the last directory of the stack, and returns the stack
// with the directories that are still open.
func (c *copier) entries(stack []frame, list []Entry) ([]frame, error) {
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
			f, err := c.enter(up, part, &Entry{})
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
	names, err := readNames(up.src)
	if err != nil {
		return c.fail(up.path, err)
	}
	for _, name := range names {
		f, isDir, err := c.entry(up, name, join(up.path, name), &Entry{})
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

func readNames(dir int) ([]string, error) {
	fd, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	if _, err := f.Seek(0, 0); err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// entry copies one entry. It makes and enters a directory, but does not copy its contents.
func (c *copier) entry(up *frame, name, at string, e *Entry) (f frame, isDir bool, err error) {
	if err := c.ended(); err != nil {
		return f, false, err
	}
	src, from := up.src, name
	switch {
	case e.Frozen != 0:
		src, from = c.frozen, frozenName(e)
	case up.gone != nil:
		return f, false, &ChangedError{Path: c.source(*up.gone), Below: true}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(src, from, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return f, false, c.missing(e, at, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		f, err = c.enter(up, name, e)
		return f, true, err
	}
	if !e.same(&st) {
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
func (c *copier) enter(up *frame, name string, e *Entry) (frame, error) {
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
		if up.gone != nil {
			return frame{}, &ChangedError{Path: c.source(*up.gone), Below: true}
		}
		return frame{}, c.missing(e, at, err)
	}
	// If the directory has a private copy, the new files in it have private copies too. The
	// directory itself may have been removed.
	gone := up.gone
	if err != nil && gone == nil {
		gone = &at
	}
	f, _, err := c.enterFD(up, src, frozen, name, e)
	f.gone = gone
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
// ownership of both descriptors, also if it fails. e has the values that were digested.
func (c *copier) enterFD(up *frame, src, frozen int, name string,
	e *Entry) (f frame, made bool, err error) {
	f = frame{path: join(up.path, name), src: src, dst: -1, frozen: frozen, on: setAllOfIt}
	defer func() {
		if err != nil {
			c.closeAll([]frame{f})
		}
	}()
	if err := unix.Fstat(f.like(), &f.st); err != nil {
		return f, false, c.fail(f.path, err)
	}
	if e.known() && e.Frozen == 0 {
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
		return fmt.Errorf("cannot copy to non-directory: %s", c.shown(f.path))
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

// like returns the open directory whose mode, time and attributes are copied.
func (f *frame) like() int {
	if f.frozen >= 0 {
		return f.frozen
	}
	return f.src
}

// shown returns the path of a file at the destination, for messages.
func (c *copier) shown(name string) string { return path.Join(c.dest, name) }

// fail adds the path of the source's file to an error.
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
		return setTimes(f.dst, f.st.Mtim)
	case setMode:
		return unix.Fchmod(f.dst, f.st.Mode&0o7777)
	}
	if err := c.give(f.dst, f.path, &f.st, owner{int(f.now.Uid), int(f.now.Gid)}); err != nil {
		return err
	}
	from := &frame{acl: f.made && f.acl} // it inherited its access control list from its parent
	attrs, err := c.attributes(from, f.like(), f.dst)
	if err != nil {
		return err
	}
	if f.digested.known() {
		var after unix.Stat_t
		if err := unix.Fstat(f.src, &after); err != nil {
			return err
		}
		if !f.digested.sameDir(&after, attrs.any) {
			return &ChangedError{Path: c.source(f.path)}
		}
	}
	if mode := c.mode(&f.st); attrs.acl || mode != f.now.Mode&0o7777 {
		if err := unix.Fchmod(f.dst, mode); err != nil {
			return err
		}
	}
	return setTimes(f.dst, f.st.Mtim)
}

// mode returns the mode of the copy of a file.
func (c *copier) mode(st *unix.Stat_t) uint32 {
	if c.chmod == nil {
		return st.Mode & 0o7777
	}
	return c.chmod.apply(st.Mode&0o7777, st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

// wanted returns the owner of the copy of a file.
func (c *copier) wanted(st *unix.Stat_t) owner {
	if c.own != nil {
		return *c.own
	}
	return owner{int(st.Uid), int(st.Gid)}
}

func (c *copier) give(fd int, name string, st *unix.Stat_t, now owner) error {
	want := c.wanted(st)
	if want == now {
		return nil
	}
	return c.ownerError(c.shown(name), want, unix.Fchown(fd, want.uid, want.gid))
}
