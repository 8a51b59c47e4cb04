package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/filedata"
	"github.com/layerbuild/layerbuild/internal/mount"
)

// Each directory of a chain makes a mount of it slower: 500 steps that each write a file took 3.3
// ms of CPU each at the start and 11.6 ms at the end. So snapshots of a long chain are merged: the
// topmost of them gets one more directory, which has the same files as the directories of all of
// them together. Mounts use it in their place. A merge changes no file that exists, and no snapshot
// depends on it.

// mergeAfter is the number of snapshots after which a chain is merged. At most so many directories
// are mounted that are not merged.
const mergeAfter = 64

// minMerged returns the least number of snapshots that are merged.
func minMerged(after int) int { return max(2, after/2) }

// mergedDir is the directory, in that of a snapshot, that holds the files of the snapshot and of
// some of its ancestors. It has an Info of its own, whose Parent is the next ancestor.
const mergedDir = "merged"

// The limits of one merge. Snapshots with more are left as they are: a merge copies.
const (
	maxMergedEntries = 20_000
	maxMergedBytes   = 64 << 20
)

// errNotMergeable is returned for a snapshot that is not merged with others.
var errNotMergeable = errors.New("the snapshot is not merged with others")

// MergeNeeded reports whether the chain of a snapshot is so long that Merge makes its mounts
// faster. The snapshot must be in use by the caller: MergeNeeded only knows snapshots that were
// looked up or committed.
func (s *Store) MergeNeeded(id ID) bool {
	if s.mergeAfter == 0 || s.drv.name() != mount.Overlay {
		return false
	}
	n := s.remembered(id)
	return n != nil && len(n.unmerged()) >= s.mergeAfter
}

// Merge merges the topmost snapshots of a chain, so that later mounts of the chain have fewer
// directories. It does nothing if MergeNeeded is false or if the snapshots are large. Active
// snapshots and mounts do not change. No other Merge may run on the Store at the same time.
func (s *Store) Merge(ctx context.Context, id ID) error {
	if _, err := s.lookup(ctx, id); err != nil || !s.MergeNeeded(id) {
		return err
	}
	if err := s.merge(ctx, s.remembered(id)); err != nil {
		return fmt.Errorf("merge the chain of snapshot %s: %w", id, err)
	}
	return nil
}

// Merged reports whether a snapshot has a merged directory.
func (s *Store) Merged(id ID) bool {
	var st unix.Stat_t
	return unix.Lstat(filepath.Join(s.dir(id), mergedDir), &st) == nil
}

// unmerged returns n and its ancestors down to the first that is merged with others or cannot be.
func (n *node) unmerged() []*node {
	var run []*node
	for ; n != nil && n.merged.Load() == nil && !n.unmergeable.Load(); n = n.parent {
		run = append(run, n)
	}
	return run
}

func (s *Store) merge(ctx context.Context, top *node) error {
	run := top.unmerged()
	m := merger{ctx: ctx, marks: overlayMarks(s.user)}
	for i, n := range run {
		err := m.scan(s.fs(n.info.ID))
		if errors.Is(err, errNotMergeable) {
			n.unmergeable.Store(true)
			run = run[:i]
			break
		}
		if err != nil {
			return err
		}
	}
	if len(run) < minMerged(s.mergeAfter) {
		return nil
	}
	below := run[len(run)-1].parent
	work, err := s.newWorkDir()
	if err != nil {
		return err
	}
	if err := s.fillMerged(&m, work, run, below); err != nil {
		return errors.Join(err, work.remove())
	}
	return s.publishMerged(ctx, work, top)
}

// fillMerged makes the files of a merged directory and its Info.
func (s *Store) fillMerged(m *merger, work *workDir, run []*node, below *node) error {
	dirs := make([]string, len(run))
	for i, n := range run {
		dirs[len(run)-1-i] = s.fs(n.info.ID)
	}
	if err := m.merge(filepath.Join(work.path, fsDir), dirs, s.chain(below)); err != nil {
		return err
	}
	var parent ID
	if below != nil {
		parent = below.info.ID
	}
	return writeInfo(work.path, s.newInfo("", parent))
}

// publishMerged moves a merged directory into that of its topmost snapshot.
func (s *Store) publishMerged(ctx context.Context, work *workDir, top *node) error {
	won, err := s.placeMerged(ctx, work, top)
	if err == nil && won {
		work.release()
		return nil
	}
	return errors.Join(err, work.remove())
}

// placeMerged is publishMerged without the removal of work. It returns false if work is then to be
// removed: another process has merged the same chain, or work is now a damaged directory.
func (s *Store) placeMerged(ctx context.Context, work *workDir, top *node) (bool, error) {
	release, err := s.lock(ctx, true)
	if err != nil {
		return false, err
	}
	defer release()
	if m := s.readMerged(top); m != nil {
		top.merged.Store(m)
		return false, nil
	}
	// A merged directory that is there cannot be in use: the machine stopped before it was synced.
	to := filepath.Join(s.dir(top.info.ID), mergedDir)
	err = unix.Renameat2(unix.AT_FDCWD, work.path, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err == unix.EEXIST {
		err = unix.Renameat2(unix.AT_FDCWD, work.path, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
		if err == nil {
			top.merged.Store(s.readMerged(top))
			return false, nil // the old one is to be removed
		}
	}
	if err != nil {
		return false, &os.LinkError{Op: "rename", Old: work.path, New: to, Err: err}
	}
	top.merged.Store(s.readMerged(top))
	return true, nil
}

// readMerged returns the node of the merged directory of n; nil if there is none, or if it may not
// have been written to the disk before the machine stopped.
func (s *Store) readMerged(n *node) *node {
	dir := filepath.Join(s.dir(n.info.ID), mergedDir)
	info, err := readInfo(dir)
	if err != nil || s.suspect(info) {
		return nil
	}
	for below := n.parent; ; below = below.parent {
		switch {
		case below == nil && info.Parent == "",
			below != nil && below.info.ID == info.Parent:
			return &node{info: info, parent: below}
		case below == nil:
			return nil
		}
	}
}

// marks are the names of the xattrs of an overlay.
type marks struct{ prefix, opaque string }

func overlayMarks(user bool) marks {
	prefix := dirfd.OverlayXattrs
	if user {
		prefix = dirfd.OverlayUserXattrs
	}
	return marks{prefix, prefix + "opaque"}
}

// private reports whether an xattr only has a meaning in the file in which overlayfs has set it
// (Documentation/filesystems/overlayfs.rst, and fs/overlayfs/overlayfs.h of Linux 6.18).
func (m marks) private(name string) bool {
	rest, ok := strings.CutPrefix(name, m.prefix)
	if !ok {
		return false
	}
	switch rest {
	case "opaque", "origin", "impure", "nlink", "uuid", "upper":
		return true
	}
	return false
}

// merger merges the upper directories of overlays.
type merger struct {
	ctx     context.Context
	marks   marks
	copy    *copier
	entries int
	bytes   int64
}

// scan adds the tree dir to the entries and bytes that will be copied. It returns errNotMergeable
// for a tree that is too large, and for one whose copy a command could distinguish from it: with
// hard links, whose number would change where one of them is replaced or removed.
func (m *merger) scan(dir string) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	list, err := m.xattrs(place{fd: fd})
	if err != nil {
		return err
	}
	// The kernel ignores a mark of the root directory, and a merge does not.
	if isOpaque(list, m.marks) {
		return errNotMergeable
	}
	return m.scanDir(fd, 0)
}

// maxMergedDepth limits the depth of trees that are merged, and so the number of descriptors.
const maxMergedDepth = 64

func (m *merger) scanDir(fd, depth int) error {
	if depth > maxMergedDepth {
		return errNotMergeable
	}
	var names dirfd.Names
	for {
		more, err := names.ReadSome(fd, batch)
		if err != nil {
			return os.NewSyscallError("getdents", err)
		}
		for _, d := range names.Entries {
			if err := m.scanEntry(fd, string(names.Name(d)), depth); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

func (m *merger) scanEntry(dir int, name string, depth int) error {
	if err := context.Cause(m.ctx); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "fstatat", Path: name, Err: err}
	}
	m.entries++
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir {
		m.bytes += st.Blocks * 512
	}
	if m.entries > maxMergedEntries || m.bytes > maxMergedBytes || !isDir && st.Nlink > 1 &&
		!isWhiteout(&st) {
		return errNotMergeable
	}
	if !isDir {
		return nil
	}
	sub, err := openSubdir(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	if _, err := m.xattrs(place{fd: sub}); err != nil {
		return err
	}
	return m.scanDir(sub, depth+1)
}

// xattrs returns all xattrs of a file. It returns errNotMergeable for marks that a layer of this
// program does not have.
func (m *merger) xattrs(of place) ([]dirfd.Xattr, error) {
	list, err := of.xattrs(func([]byte) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("read xattrs: %w", err)
	}
	for _, x := range list {
		switch x.Name {
		case m.marks.opaque:
			if string(x.Value) != "y" {
				return nil, errNotMergeable
			}
		case m.marks.prefix + "redirect", m.marks.prefix + "metacopy", m.marks.prefix + "whiteout":
			return nil, errNotMergeable
		}
	}
	return list, nil
}

func isOpaque(list []dirfd.Xattr, marks marks) bool {
	for _, x := range list {
		if x.Name == marks.opaque {
			return true
		}
	}
	return false
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func openSubdir(dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|
		unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// merge merges dirs, lowest first, into the new directory to. below are the directories of the
// chain under them, topmost first.
func (m *merger) merge(to string, dirs, below []string) error {
	if err := unix.Mkdir(to, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: to, Err: err}
	}
	root, err := openDir(to)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	m.copy = &copier{root: root, links: map[uint64]string{}, xattrs: m.copyXattrs,
		data: filedata.Copier{Ended: func() error { return context.Cause(m.ctx) }}}
	for _, dir := range dirs {
		if err := m.add(root, dir); err != nil {
			return fmt.Errorf("add %s: %w", dir, err)
		}
	}
	return m.dropWhiteouts(root, below)
}

func (m *merger) add(root int, dir string) error {
	src, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	return m.directory(src, root, &st, false)
}

// directory adds the directory src, whose status is st, to the directory dst. hides is set if the
// result hides the directories of the same name in the chain below.
func (m *merger) directory(src, dst int, st *unix.Stat_t, hides bool) error {
	had, err := m.reset(dst)
	if err != nil {
		return err
	}
	var names dirfd.Names
	if err := names.Read(src); err != nil {
		return os.NewSyscallError("getdents", err)
	}
	for _, d := range names.Entries {
		if err := m.entry(src, dst, string(names.Name(d))); err != nil {
			return err
		}
	}
	if err := copyAttributesBy(src, dst, st, m.copyXattrs); err != nil {
		return err
	}
	if !had && !hides {
		return nil
	}
	return m.setOpaque(dst, st)
}

// setOpaque marks a directory, without changing its times.
func (m *merger) setOpaque(dst int, st *unix.Stat_t) error {
	if err := unix.Fsetxattr(dst, m.marks.opaque, []byte("y"), 0); err != nil {
		return os.NewSyscallError("fsetxattr", err)
	}
	return setTimes(dst, st)
}

// reset removes what the entries that are added to a directory would inherit from it: its default
// ACL. It also makes it writable. had reports whether the directory was opaque.
func (m *merger) reset(dst int) (had bool, err error) {
	if err := unix.Fchmod(dst, 0o700); err != nil {
		return false, os.NewSyscallError("fchmod", err)
	}
	list, err := m.xattrs(place{fd: dst})
	if err != nil {
		return false, err
	}
	for _, x := range list {
		if err := unix.Fremovexattr(dst, x.Name); err != nil && err != unix.ENODATA &&
			!strings.HasPrefix(x.Name, "security.") {
			return false, fmt.Errorf("remove xattr %s: %w", x.Name, err)
		}
	}
	return isOpaque(list, m.marks), nil
}

func (m *merger) entry(src, dst int, name string) error {
	if err := context.Cause(m.ctx); err != nil {
		return err
	}
	e := &entry{name: name}
	if err := unix.Fstatat(src, name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "fstatat", Path: name, Err: err}
	}
	var old unix.Stat_t
	err := unix.Fstatat(dst, name, &old, unix.AT_SYMLINK_NOFOLLOW)
	exists := err == nil
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "fstatat", Path: name, Err: err}
	}
	if e.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return m.subdir(src, dst, e, exists, exists && old.Mode&unix.S_IFMT == unix.S_IFDIR)
	}
	if exists {
		if err := removeTree(dst, name); err != nil {
			return err
		}
	}
	if isWhiteout(&e.st) {
		if err := unix.Mknodat(dst, name, unix.S_IFCHR, 0); err != nil {
			return &os.PathError{Op: "mknod", Path: name, Err: err}
		}
		return nil
	}
	return m.copy.other(src, dst, e, "")
}

// subdir adds a directory. exists reports whether dst has the name, isDir whether it is a directory
// there.
func (m *merger) subdir(src, dst int, e *entry, exists, isDir bool) error {
	in, err := openSubdir(src, e.name)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	list, err := m.xattrs(place{fd: in})
	if err != nil {
		return err
	}
	opaque := isOpaque(list, m.marks)
	if exists && (opaque || !isDir) {
		if err := removeTree(dst, e.name); err != nil {
			return err
		}
		exists = false
		// overlayfs looks no further below a whiteout or a file (ovl_lookup)
		opaque = true
	}
	if !exists {
		if err := unix.Mkdirat(dst, e.name, 0o700); err != nil {
			return &os.PathError{Op: "mkdir", Path: e.name, Err: err}
		}
	}
	out, err := openSubdir(dst, e.name)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	if err := m.directory(in, out, &e.st, opaque); err != nil {
		return fmt.Errorf("%q: %w", e.name, err)
	}
	return nil
}

// copyXattrs copies all xattrs but those that have a meaning only in the file from.
func (m *merger) copyXattrs(from, to place) error {
	return copyXattrsIf(from, to, func(name []byte) bool { return !m.marks.private(string(name)) })
}

// dropWhiteouts removes the whiteouts of directories that overlayfs does not merge with others. In
// these it would list them as names that cannot be opened (ovl_dir_is_real).
func (m *merger) dropWhiteouts(dir int, below []string) error {
	var names dirfd.Names
	if err := names.Read(dir); err != nil {
		return os.NewSyscallError("getdents", err)
	}
	for _, d := range names.Entries {
		name := string(names.Name(d))
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "fstatat", Path: name, Err: err}
		}
		var err error
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = m.dropIn(dir, name, below)
		case isWhiteout(&st) && len(below) == 0:
			err = dropKeepingTimes(dir, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropIn is dropWhiteouts for a subdirectory. below are the directories below dir.
func (m *merger) dropIn(dir int, name string, below []string) error {
	sub, err := openSubdir(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	list, err := m.xattrs(place{fd: sub})
	if err != nil {
		return err
	}
	var merged []string
	if !isOpaque(list, m.marks) {
		if merged, err = m.mergedWith(below, name); err != nil {
			return err
		}
	}
	return m.dropWhiteouts(sub, merged)
}

// mergedWith returns the directories of that name in the directories below that overlayfs shows
// together with one of that name above them.
func (m *merger) mergedWith(below []string, name string) ([]string, error) {
	var all []string
	for _, dir := range below {
		path := filepath.Join(dir, name)
		if len(path) >= unix.PathMax {
			return nil, errNotMergeable
		}
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			break
		}
		all = append(all, path)
		list, err := place{path: path}.xattrs(func(n []byte) bool {
			return string(n) == m.marks.opaque
		})
		if err != nil {
			return nil, fmt.Errorf("read xattrs: %w", err)
		}
		if len(list) > 0 {
			break
		}
	}
	return all, nil
}

func dropKeepingTimes(dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := unlink(dir, name, 0); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return setTimes(dir, &st)
}
