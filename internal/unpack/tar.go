package unpack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// Tar applies the uncompressed tar stream r to the open directory root. An entry replaces an
// existing file of its name, and of two entries with the same name the last one is used. A
// directory over a directory keeps its files. Names cannot refer to files outside the root, even
// with ".." or a leading "/". Missing parents are made with mode 0755 and owner 0:0, or
// Options.Owner.
//
// Tar ignores everything after the end-of-archive mark, but may have read some of it. Errors
// contain the entry's name.
func Tar(ctx context.Context, r io.Reader, root int, o Options) (Stats, error) {
	u := unpacker{
		ctx: ctx, o: o, rd: NewReader(r),
		dirs: map[string]*dirMeta{}, restored: map[[2]uint64]*dirMeta{},
		implied: map[string]Implied{}, seed: maphash.MakeSeed(),
		uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), umask: umask(),
	}
	if o.Whiteouts == Delete {
		u.made, u.purged = &hashSet{}, &hashSet{}
	}
	defer u.close()
	if err := u.begin(root); err != nil {
		return Stats{}, fmt.Errorf("unpack: %w", err)
	}
	if err := u.all(); err != nil {
		return u.stats, err
	}
	u.ended = true
	if err := u.finishDirs(); err != nil {
		return u.stats, err
	}
	return u.stats, nil
}

type unpacker struct {
	// ctx is that of Tar. An unpacker is the state of that one call, which checks it for each entry
	// and for each directory at the end.
	ctx      context.Context
	o        Options
	rd       *Reader
	uid, gid uint32 // owner of new files
	umask    uint32
	stack    []node                 // the open directories of path, root first
	path     []byte                 // path of the last directory of stack
	dirs     map[string]*dirMeta    // attributes of directories, to be set at the end
	restored map[[2]uint64]*dirMeta // the members of dirs with restore, by device and inode
	pending  int                    // bytes of names and attributes in dirs since the last flush
	ended    bool                   // the stream has been read to its end
	flushing bool
	flushed  bool               // directories not in dirs may have their attributes
	followed []string           // links through which directories in dirs were found
	implied  map[string]Implied // directories that the stream has not listed (yet)
	marked   bool               // with Overlay: a directory was made opaque
	names    int                // memory of the names in implied and in stats.Whiteouts
	made     *hashSet           // with Delete: names that the stream made, by nameHash
	purged   *hashSet           // with Delete: directories that have only files of the stream
	seed     maphash.Seed
	stats    Stats
	// Buffers for names: the entry's name, its last part, one part of a path, the target of a link.
	clean, base, part, tgt []byte
	links                  linkDir
}

// node is an open directory.
type node struct {
	fd     int
	end    int  // length of its path
	setgid bool // files that are made in it get its group
	acl    bool // files that are made in it get its default access list
	bare   bool // see Implied
	opaque bool // with Overlay: it or a directory above it is opaque
}

// dirMeta holds the attributes that a directory gets when all its files are made.
type dirMeta struct {
	mode      uint32
	uid, gid  uint32
	sec, nsec int64
	xattrs    []dirfd.Xattr
	implied   bool // the stream has no entry for the directory
	existed   bool // it existed before: attributes that the entry does not have are removed
	opaque    bool
	// the directory already has all attributes, but files were made in it since: only the time is
	// set again
	restore bool
}

// Limits of the data that are kept in memory until the end of a stream.
const (
	// maxPending is the number of directories that may wait for their attributes. If there are
	// more, all get them at once, and the time of a directory that is written into later is set
	// again.
	maxPending = 16_000
	// maxPendingBytes is the size of the names and attributes of these directories from which on
	// they get them. One directory may have a megabyte of attributes.
	maxPendingBytes = 16 << 20
	xattrMemory     = 64
	// maxNames limits the memory for the names of whiteouts, and of directories that the stream
	// omits although it has entries in them. Each needs some bytes in addition to its text.
	maxNames       = 64 << 20
	whiteoutMemory = 40
	impliedMemory  = 100
)

// keepName counts a name that is kept until the end of the stream, and needs so many bytes in
// addition to its text.
func (u *unpacker) keepName(name []byte, memory int) error {
	if u.names += memory + len(name); u.names <= cmp.Or(u.o.maxNames, maxNames) {
		return nil
	}
	return errors.New("too many whiteouts, or directories that have no entry of their own: their " +
		"names need more than 64 MiB of memory")
}

// nameHash identifies a name of the stream, which may have millions of names. Because the seed is
// random, collisions are too improbable to handle.
func (u *unpacker) nameHash(path string) uint64 { return maphash.String(u.seed, path) }

// umask returns the umask of the process. It reads /proc, because umask(2) would change the umask
// for all threads.
var umask = sync.OnceValue(func() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777
	}
	_, after, _ := strings.Cut(string(status), "\nUmask:\t")
	line, _, _ := strings.Cut(after, "\n")
	if n, err := strconv.ParseUint(line, 8, 32); err == nil && line != "" {
		return uint32(n)
	}
	return 0o777 // then every mode is set by chmod
})

func (u *unpacker) begin(root int) error {
	// Open the root again: the caller's descriptor may be O_PATH.
	fd, err := dirfd.OpenDir(root, []byte(".\x00"))
	if err != nil {
		return err
	}
	n, err := u.examine(fd)
	if err != nil {
		unix.Close(fd)
		return err
	}
	u.stack = append(u.stack, n)
	return u.restoreLater(fd, "")
}

// examine finds the attributes that files inherit when they are made in an existing directory.
func (u *unpacker) examine(fd int) (node, error) {
	var st dirfd.Stat
	if err := dirfd.Fstat(fd, &st); err != nil {
		return node{}, err
	}
	_, err := unix.Fgetxattr(fd, "system.posix_acl_default", nil)
	return node{fd: fd, end: len(u.path), setgid: st.Mode&unix.S_ISGID != 0, acl: err == nil}, nil
}

func (u *unpacker) all() error {
	for {
		if err := context.Cause(u.ctx); err != nil {
			return err
		}
		h, err := u.rd.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		u.stats.Entries++
		if err := u.entry(h); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
		if len(u.dirs) > cmp.Or(u.o.maxPending, maxPending) || u.pending > maxPendingBytes {
			if err := u.flush(); err != nil {
				return err
			}
		}
	}
}

// cleanName appends name to buf without leading slashes, empty parts and ".". It resolves ".." as
// text. "" is the root.
func cleanName(buf, name []byte) []byte {
	for len(name) > 0 {
		var part []byte
		if part, name = name, nil; bytes.IndexByte(part, '/') >= 0 {
			i := bytes.IndexByte(part, '/')
			part, name = part[:i], part[i+1:]
		}
		switch string(part) {
		case "", ".":
		case "..":
			buf = buf[:max(bytes.LastIndexByte(buf, '/'), 0)]
		default:
			if len(buf) > 0 {
				buf = append(buf, '/')
			}
			buf = append(buf, part...)
		}
	}
	return buf
}

func split(path []byte) (parent, base []byte) {
	if i := bytes.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return nil, path
}

func (u *unpacker) entry(h *Header) error {
	u.clean = cleanName(u.clean[:0], h.Name)
	path := u.clean
	if len(path) == 0 {
		return u.rootEntry(h)
	}
	parent, base := split(path)
	if len(u.followed) > 0 {
		if err := u.settle(parent, base); err != nil {
			return err
		}
	}
	u.base = append(append(u.base[:0], base...), 0)
	name := u.base
	if u.o.Whiteouts != Literal {
		handled, err := u.whiteout(parent, base)
		if handled || err != nil {
			return err
		}
	}
	if done, err := u.leftOut(h); done || err != nil {
		return err
	}
	dir, err := u.enter(parent, forFiles)
	if err != nil {
		return err
	}
	switch h.Type {
	case TypeDir:
		return u.directory(h, dir, name)
	case TypeFile:
		return u.file(h, dir, name)
	case TypeSymlink:
		return u.symlink(h, dir, name)
	case TypeHardlink:
		return u.hardlink(h, dir, name)
	}
	return u.special(h, dir, name)
}

// leftOut handles entries for which nothing is made: a device 0:0, and a hard link to itself. done
// reports whether h is one. The directories above it are not made either: in place, a whiteout of
// them keeps only what the stream has made.
func (u *unpacker) leftOut(h *Header) (done bool, err error) {
	switch {
	case u.o.NoDevices && (h.Type == TypeChar || h.Type == TypeBlock):
		return true, bad("a device")
	case h.Type == TypeHardlink:
		u.tgt = cleanName(u.tgt[:0], h.Link)
		return bytes.Equal(u.tgt, u.clean), nil
	case h.Type != TypeChar || h.Major != 0 || h.Minor != 0:
		return false, nil
	case u.o.OnWhiteoutDevice != nil:
		u.o.OnWhiteoutDevice(string(u.clean))
		return true, nil
	}
	return true, u.skipped("device 0:0", unix.EINVAL)
}

// isMade records that the stream has made a file or directory.
func (u *unpacker) isMade(path []byte) {
	if u.made != nil {
		u.made.add(u.nameHash(string(path)))
	}
}

// settle is called before an entry that may remove a link through which directories were listed.
// The directories could not be found by their names afterwards, so they get their attributes now.
func (u *unpacker) settle(parent, base []byte) error {
	if u.o.Whiteouts != Literal {
		base = bytes.TrimPrefix(base, []byte(WhiteoutPrefix))
	}
	under := func(link string) bool {
		rest, ok := strings.CutPrefix(link, string(parent))
		if ok && len(parent) > 0 {
			rest, ok = strings.CutPrefix(rest, "/")
		}
		first, _, _ := strings.Cut(rest, "/")
		return ok && (first == string(base) || string(base) == OpaqueName[len(WhiteoutPrefix):])
	}
	if len(u.followed) < 100 && !slices.ContainsFunc(u.followed, under) {
		return nil
	}
	path := bytes.Clone(u.clean)
	err := u.flush()
	u.clean = append(u.clean[:0], path...)
	return err
}

func (u *unpacker) rootEntry(h *Header) error {
	if h.Type != TypeDir {
		return bad("the root is not a directory")
	}
	if !u.o.SkipRoot {
		m := u.meta(h)
		m.existed = true
		u.setLater("", m)
	}
	return nil
}

// meta returns the attributes that an entry has for a directory, which are set at the end.
func (u *unpacker) meta(h *Header) *dirMeta {
	m := &dirMeta{mode: u.mode(h), sec: h.Sec, nsec: h.Nsec}
	m.uid, m.gid = u.owner(h)
	for _, x := range h.Xattrs {
		if dirfd.InLayer([]byte(x.Name)) {
			m.xattrs = append(m.xattrs, dirfd.Xattr{Name: x.Name, Value: bytes.Clone(x.Value)})
		}
	}
	return m
}

func (u *unpacker) mode(h *Header) uint32 {
	if u.o.Chmod != nil {
		return u.o.Chmod(h.Mode, h.Type == TypeDir) & 0o7777
	}
	return h.Mode
}

func (u *unpacker) owner(h *Header) (uid, gid uint32) {
	if u.o.Owner != nil {
		return uint32(u.o.Owner.UID), uint32(u.o.Owner.GID)
	}
	return h.UID, h.GID
}

// setLater keeps the attributes of the directory path until the end or the next flush.
func (u *unpacker) setLater(path string, m *dirMeta) {
	u.dirs[path] = m
	u.pending += len(path)
	for _, x := range m.xattrs {
		u.pending += len(x.Name) + len(x.Value) + xattrMemory
	}
}

// directory makes a directory, or uses the existing one.
func (u *unpacker) directory(h *Header, dir *node, name []byte) error {
	m := u.meta(h)
	path := string(u.clean)
	u.notImplied(path)
	err := dirfd.Mkdir(dir.fd, name, 0o700)
	if err == unix.EEXIST {
		var st dirfd.Stat
		if err := dirfd.Lstat(dir.fd, name, &st); err != nil {
			return err
		}
		switch {
		case dirfd.Type(&st) == unix.S_IFDIR:
			if old := u.dirs[path]; old != nil {
				m.existed, m.opaque = old.existed, old.opaque
			} else {
				m.existed = true
			}
			u.setLater(path, m)
			u.isMade(u.clean)
			return nil
		case dirfd.Type(&st) == unix.S_IFLNK && u.o.FollowDirLinks && u.leadsToDir(path):
			return nil
		}
		m.opaque = u.hidesBelow()
		if err := u.remove(dir.fd, name, path); err != nil {
			return err
		}
		err = dirfd.Mkdir(dir.fd, name, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	u.isMade(u.clean)
	u.setLater(path, m)
	return nil
}

func (u *unpacker) overlay() bool {
	return u.o.Whiteouts == Overlay || u.o.Whiteouts == OverlayUser
}

// create calls make, which makes the entry's file. If the name exists, create removes it and calls
// make again.
func (u *unpacker) create(dir *node, name []byte, make func() error) error {
	err := make()
	if err == unix.EEXIST {
		if err := u.remove(dir.fd, name, string(u.clean)); err != nil {
			return err
		}
		err = make()
	}
	if err == nil {
		u.isMade(u.clean)
	}
	return err
}

func (u *unpacker) file(h *Header, dir *node, name []byte) error {
	mode := u.mode(h)
	// In most cases open(2) sets the right mode, and chmod is not needed.
	exact := mode&^0o777 == 0 && mode&u.umask == 0 && !dir.acl
	open := uint32(0o600)
	if exact {
		open = mode
	}
	fd := -1
	err := u.create(dir, name, func() (err error) {
		fd, err = dirfd.Open(dir.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW,
			open)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := u.write(h, fd); err != nil {
		return err
	}
	return u.finishFile(h, dir, fd, exact)
}

// finishFile sets the attributes of an open new file. exact is set if the file already has the
// right mode.
func (u *unpacker) finishFile(h *Header, dir *node, fd int, exact bool) error {
	if uid, gid := u.owner(h); u.foreign(uid, gid, dir) {
		if err := unix.Fchown(fd, int(uid), int(gid)); err != nil {
			if err := u.ownerError(uid, gid, err); err != nil {
				return err
			}
		}
	}
	if dir.acl {
		// Remove the access list that the file inherited from the directory and the entry does not
		// have. It is not an error if there is none.
		unix.Fremovexattr(fd, "system.posix_acl_access")
	}
	if !exact {
		mode := u.mode(h)
		if err := unix.Fchmod(fd, mode); err != nil {
			return fmt.Errorf("set mode %o: %w", mode, err)
		}
	}
	for _, x := range h.Xattrs {
		if err := u.fsetXattr(fd, x); err != nil {
			return err
		}
	}
	return dirfd.SetTime(fd, nil, h.Sec, h.Nsec)
}

// foreign reports whether a new file has another owner than the process.
func (u *unpacker) foreign(uid, gid uint32, dir *node) bool {
	return uid != u.uid || gid != u.gid || dir.setgid
}

func (u *unpacker) ownerError(uid, gid uint32, err error) error {
	// EPERM: no capability; EINVAL: the number does not exist in this user namespace.
	if u.o.OnOwnerError != nil && (err == unix.EPERM || err == unix.EINVAL) {
		u.o.OnOwnerError(string(u.clean), int(uid), int(gid), err)
		return nil
	}
	return fmt.Errorf("set owner %d:%d: %w", uid, gid, err)
}

func (u *unpacker) skipped(what string, err error) error {
	if u.o.OnSkip != nil {
		u.o.OnSkip(string(u.clean), what, err)
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (u *unpacker) fsetXattr(fd int, x dirfd.Xattr) error {
	return u.setXattr(x, func() error { return unix.Fsetxattr(fd, x.Name, x.Value, 0) })
}

func (u *unpacker) setXattr(x dirfd.Xattr, set func() error) error {
	if !dirfd.InLayer([]byte(x.Name)) {
		return nil
	}
	err := set()
	switch err {
	case nil:
		return nil
	case unix.ENOTSUP, unix.EPERM, unix.EINVAL:
		// EINVAL: an access list with users that this namespace does not have
		return u.skipped("attribute "+x.Name, err)
	}
	return fmt.Errorf("set attribute %s: %w", x.Name, err)
}

// holeUnit is the number of zeros that are left as a hole instead of being written. A hole needs
// neither time nor disk space.
const holeUnit = 64 << 10

var holeZeros [holeUnit]byte

// write writes the content of an entry.
func (u *unpacker) write(h *Header, fd int) error {
	u.stats.Bytes += h.Size
	if h.sparse != nil {
		return u.writeSparse(h, fd)
	}
	hole := false
	for {
		b, err := u.rd.content(1 << 62)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if hole, err = writeHoles(fd, b, hole); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if err := context.Cause(u.ctx); err != nil {
			return err
		}
	}
	if hole {
		return unix.Ftruncate(fd, h.Size)
	}
	return nil
}

// writeHoles writes b without long runs of zeros. It reports whether the file must still be made
// longer, by writing or by ftruncate.
func writeHoles(fd int, b []byte, hole bool) (bool, error) {
	for len(b) >= holeUnit {
		// Find the length of the bytes that must be written.
		n := 0
		for n+holeUnit <= len(b) && !(b[n] == 0 && bytes.Equal(b[n:n+holeUnit], holeZeros[:])) {
			n += holeUnit
		}
		if n > 0 {
			if err := dirfd.Write(fd, b[:n]); err != nil {
				return false, err
			}
			b, hole = b[n:], false
			continue
		}
		if _, err := unix.Seek(fd, holeUnit, io.SeekCurrent); err != nil {
			return false, err
		}
		b, hole = b[holeUnit:], true
	}
	if len(b) == 0 {
		return hole, nil
	}
	return false, dirfd.Write(fd, b)
}

func (u *unpacker) writeSparse(h *Header, fd int) error {
	if err := unix.Ftruncate(fd, h.Size); err != nil {
		return fmt.Errorf("make a file of %d bytes: %w", h.Size, err)
	}
	for _, s := range h.sparse {
		if _, err := unix.Seek(fd, s.offset, io.SeekStart); err != nil {
			return err
		}
		for left := s.length; left > 0; {
			b, err := u.rd.content(left)
			if err != nil {
				return truncated(err)
			}
			if err := dirfd.Write(fd, b); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			left -= int64(len(b))
		}
	}
	return nil
}

func (u *unpacker) symlink(h *Header, dir *node, name []byte) error {
	if len(h.Link) == 0 {
		return bad("a symbolic link with an empty target")
	}
	u.tgt = append(append(u.tgt[:0], h.Link...), 0)
	err := u.create(dir, name, func() error { return dirfd.Symlink(u.tgt, dir.fd, name) })
	if err != nil {
		return err
	}
	if err := u.lchown(h, dir, name); err != nil {
		return err
	}
	return dirfd.SetTime(dir.fd, name, h.Sec, h.Nsec)
}

func (u *unpacker) lchown(h *Header, dir *node, name []byte) error {
	uid, gid := u.owner(h)
	if !u.foreign(uid, gid, dir) {
		return nil
	}
	if err := dirfd.Lchown(dir.fd, name, uid, gid); err != nil {
		return u.ownerError(uid, gid, err)
	}
	return nil
}

func (u *unpacker) special(h *Header, dir *node, name []byte) error {
	format := map[byte]uint32{TypeChar: unix.S_IFCHR, TypeBlock: unix.S_IFBLK,
		TypeFifo: unix.S_IFIFO}[h.Type]
	mode := u.mode(h)
	err := u.create(dir, name, func() error {
		return dirfd.Mknod(dir.fd, name, format|0o600, unix.Mkdev(h.Major, h.Minor))
	})
	if err == unix.EPERM && h.Type != TypeFifo {
		if u.o.OnStandIn != nil {
			return u.standIn(h, dir, name)
		}
		return u.skipped(fmt.Sprintf("device %d:%d", h.Major, h.Minor), err)
	}
	if err != nil {
		return err
	}
	if err := u.lchown(h, dir, name); err != nil {
		return err
	}
	path := dirfd.FDPath(dir.fd) + "/" + string(name[:len(name)-1])
	if dir.acl {
		unix.Lremovexattr(path, "system.posix_acl_access")
	}
	if err := dirfd.Chmod(dir.fd, name, mode); err != nil {
		return fmt.Errorf("set mode %o: %w", mode, err)
	}
	for _, x := range h.Xattrs {
		set := func() error { return unix.Lsetxattr(path, x.Name, x.Value, 0) }
		if err := u.setXattr(x, set); err != nil {
			return err
		}
	}
	return dirfd.SetTime(dir.fd, name, h.Sec, h.Nsec)
}

// standIn makes a stand-in file for a device.
func (u *unpacker) standIn(h *Header, dir *node, name []byte) error {
	fd, err := dirfd.Open(dir.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW,
		0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = dirfd.Device{Block: h.Type == TypeBlock, Major: h.Major, Minor: h.Minor}.Mark(fd)
	if err == unix.ENOTSUP {
		return errors.Join(dirfd.Unlink(dir.fd, name, 0),
			u.skipped(fmt.Sprintf("device %d:%d", h.Major, h.Minor), unix.EPERM))
	}
	if err != nil {
		return fmt.Errorf("mark the file that stands for a device: %w", err)
	}
	u.isMade(u.clean)
	u.o.OnStandIn(string(u.clean))
	return u.finishFile(h, dir, fd, false)
}

// finishDirs sets the attributes of directories that were kept for the end.
func (u *unpacker) finishDirs() error {
	root := u.dirs[""]
	if err := u.flush(); err != nil {
		return err
	}
	u.stats.Implied = slices.AppendSeq(u.stats.Implied, maps.Values(u.implied))
	if root == nil || root.restore {
		u.stats.Implied = append(u.stats.Implied, Implied{Path: "."})
	}
	slices.Sort(u.stats.Replaced)
	slices.Sort(u.stats.Whiteouts)
	slices.SortFunc(u.stats.Implied, func(a, b Implied) int { return cmp.Compare(a.Path, b.Path) })
	return nil
}

// flush sets the kept attributes of all directories, children before their parents. It sets those
// of the root only at the end of the stream.
func (u *unpacker) flush() error {
	u.flushed, u.flushing = true, true
	defer func() { u.flushing = false }()
	root := u.dirs[""]
	if !u.ended {
		delete(u.dirs, "")
	}
	// Sorting by path puts a directory before the directories in it, as needed, and directories
	// with a common parent next to each other. Times are restored first: a directory that was
	// entered through a link may also have an entry.
	paths := slices.Sorted(maps.Keys(u.dirs))
	var restore, set []string
	for _, p := range slices.Backward(paths) {
		if u.dirs[p].restore {
			restore = append(restore, p)
		} else {
			set = append(set, p)
		}
	}
	for _, p := range append(restore, set...) {
		u.clean = append(u.clean[:0], p...)
		dir, err := u.enter(u.clean, lookUp)
		if gone(err) || errors.Is(err, unix.ELOOP) {
			continue // it was listed under a link to a directory that was removed later
		}
		if err == nil {
			err = u.finishDir(dir, u.dirs[p])
		}
		if err != nil {
			return fmt.Errorf("unpack %q: %w", p, err)
		}
	}
	u.leave(1) // the open descriptor may belong to an earlier directory
	u.path = u.path[:0]
	clear(u.dirs)
	clear(u.restored)
	u.pending = 0
	u.followed = u.followed[:0]
	if root != nil {
		u.dirs[""] = root
	}
	return nil
}

func (u *unpacker) finishDir(dir *node, m *dirMeta) error {
	if m.opaque {
		if err := u.setOpaque(dir.fd); err != nil {
			return err
		}
	}
	if m.implied && m.existed {
		return nil
	}
	if m.restore {
		return dirfd.SetTime(dir.fd, nil, m.sec, m.nsec)
	}
	var st dirfd.Stat
	if err := dirfd.Fstat(dir.fd, &st); err != nil {
		return err
	}
	if st.Uid != m.uid || st.Gid != m.gid {
		if err := unix.Fchown(dir.fd, int(m.uid), int(m.gid)); err != nil {
			if err := u.ownerError(m.uid, m.gid, err); err != nil {
				return err
			}
		}
	}
	// Set attributes before the mode: an access list changes the mode.
	if err := u.dirXattrs(dir, m); err != nil {
		return err
	}
	if err := unix.Fchmod(dir.fd, m.mode); err != nil {
		return fmt.Errorf("set mode %o: %w", m.mode, err)
	}
	if m.implied {
		return nil
	}
	return dirfd.SetTime(dir.fd, nil, m.sec, m.nsec)
}

// dirXattrs sets the extended attributes of a directory. From a directory that existed before or
// was listed before, it removes the attributes that the entry does not have.
func (u *unpacker) dirXattrs(dir *node, m *dirMeta) error {
	if m.existed && (u.o.Whiteouts == Delete || u.overlay() && u.flushed) || dir.acl {
		old, err := dirfd.Xattrs(dir.fd, dirfd.InLayer)
		if err != nil {
			return fmt.Errorf("list attributes: %w", err)
		}
		for _, x := range old {
			if !slices.ContainsFunc(m.xattrs, func(n dirfd.Xattr) bool {
				return n.Name == x.Name
			}) {
				if err := unix.Fremovexattr(dir.fd, x.Name); err != nil {
					return fmt.Errorf("remove attribute %s: %w", x.Name, err)
				}
			}
		}
	}
	for _, x := range m.xattrs {
		if err := u.fsetXattr(dir.fd, x); err != nil {
			return err
		}
	}
	return nil
}

// CleanName returns the path inside the root to which an entry's name refers, without surrounding
// slashes; "." is the root.
func CleanName(name []byte) string {
	if clean := cleanName(nil, name); len(clean) > 0 {
		return string(clean)
	}
	return "."
}
