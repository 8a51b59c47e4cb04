package snapshot

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// makeRoot makes the root directory of an empty snapshot.
func makeRoot(dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return plainRoot(dir)
}

// copyTree copies the tree from to the new directory to, including owners, modes, times, xattrs,
// hard links, holes, devices, fifos and sockets. It follows no link and does not copy the contents
// of mount points. If from changes meanwhile, the copy is inconsistent.
func copyTree(ctx context.Context, from, to string) error {
	src, err := openDir(from)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return &os.PathError{Op: "fstat", Path: from, Err: err}
	}
	if err := unix.Mkdir(to, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: to, Err: err}
	}
	dst, err := openDir(to)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	c := &copier{root: dst, dev: st.Dev, links: make(map[uint64]string)}
	if err := c.dir(ctx, src, dst, ""); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return copyAttributes(src, dst, &st)
}

// copier copies one tree on one thread. A second thread gained nothing on two cores
// (BenchmarkCopyTree, 20 µs per small file, nearly all of it in the kernel).
type copier struct {
	root  int               // the copy's root
	dev   uint64            // the file system that is copied; others are not entered
	links map[uint64]string // by inode: the first name that was copied
	// Features that the file systems are known to support or not.
	reflink, ranged ability
}

type ability int

const (
	untried ability = iota
	works
	fails
)

// failed records a failure. If the operation has worked before, the failure concerns only one file.
func (a *ability) failed() {
	if *a == untried {
		*a = fails
	}
}

// entry is an entry of a source directory, read before anything is copied.
type entry struct {
	name string
	st   unix.Stat_t
}

// dir copies the contents of the directory src into dst. path is their name below the root, "" or
// ending in a slash.
func (c *copier) dir(ctx context.Context, src, dst int, path string) error {
	entries, err := readEntries(src)
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	for i := range entries {
		e := &entries[i]
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if e.st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = c.subdir(ctx, src, dst, e, path)
		} else {
			err = c.other(ctx, src, dst, e, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readEntries(dir int) ([]entry, error) {
	var names dirfd.Names
	if err := names.Read(dir); err != nil {
		return nil, os.NewSyscallError("getdents", err)
	}
	entries := make([]entry, len(names.Entries))
	for i, e := range names.Entries {
		entries[i].name = string(names.Name(e))
	}
	for i := range entries {
		e := &entries[i]
		if err := unix.Fstatat(dir, e.name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, &os.PathError{Op: "fstatat", Path: e.name, Err: err}
		}
	}
	// The order of inodes is nearly the order on the disk.
	slices.SortFunc(entries, func(a, b entry) int { return int(int64(a.st.Ino) - int64(b.st.Ino)) })
	return entries, nil
}

// subdir copies a directory. It sets the attributes last: a user who is not root cannot add entries
// to a directory without write permission, and each new entry changes the directory's time.
func (c *copier) subdir(ctx context.Context, src, dst int, e *entry, path string) error {
	path += e.name
	in, err := unix.Openat(src, e.name, unix.O_RDONLY|unix.O_DIRECTORY|
		unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(in)
	if err := unix.Mkdirat(dst, e.name, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	out, err := unix.Openat(dst, e.name, unix.O_RDONLY|unix.O_DIRECTORY|
		unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(out)
	if e.st.Dev == c.dev {
		if err := c.dir(ctx, in, out, path+"/"); err != nil {
			return err
		}
	}
	if err := copyAttributes(in, out, &e.st); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

// other copies a file that is not a directory.
func (c *copier) other(ctx context.Context, src, dst int, e *entry, path string) error {
	path += e.name
	if e.st.Nlink > 1 {
		linked, err := c.link(dst, e, path)
		if linked || err != nil {
			return err
		}
	}
	if e.st.Mode&unix.S_IFMT == unix.S_IFREG {
		if err := c.file(ctx, src, dst, e); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		return nil
	}
	if err := c.special(src, dst, e); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

// link makes a hard link to a file that was copied under another name, and reports whether it did.
func (c *copier) link(dst int, e *entry, path string) (bool, error) {
	first, ok := c.links[e.st.Ino]
	if !ok {
		c.links[e.st.Ino] = path
		return false, nil
	}
	if err := safepath.Link(c.root, first, dst, e.name); err != nil {
		return false, &os.LinkError{Op: "link", Old: first, New: path, Err: err}
	}
	return true, nil
}

// special copies a symbolic link, device, fifo or socket.
func (c *copier) special(src, dst int, e *entry) error {
	if e.st.Mode&unix.S_IFMT == unix.S_IFLNK {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, e.name, buf)
		if err != nil {
			return os.NewSyscallError("readlink", err)
		}
		if err := unix.Symlinkat(string(buf[:n]), dst, e.name); err != nil {
			return os.NewSyscallError("symlink", err)
		}
	} else if err := unix.Mknodat(dst, e.name, e.st.Mode, int(e.st.Rdev)); err != nil {
		return os.NewSyscallError("mknod", err)
	}
	if err := unix.Fchownat(dst, e.name, int(e.st.Uid), int(e.st.Gid),
		unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("chown", err)
	}
	if e.st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(dst, e.name, e.st.Mode&0o7777, 0); err != nil {
			return os.NewSyscallError("chmod", err)
		}
	}
	if err := copyXattrs(entryPlace(src, e.name), entryPlace(dst, e.name)); err != nil {
		return err
	}
	times := []unix.Timespec{e.st.Atim, e.st.Mtim}
	return os.NewSyscallError("utimensat",
		unix.UtimesNanoAt(dst, e.name, times, unix.AT_SYMLINK_NOFOLLOW))
}

func (c *copier) file(ctx context.Context, src, dst int, e *entry) error {
	in, err := unix.Openat(src, e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOATIME,
		0)
	if err == unix.EPERM { // only the owner may use O_NOATIME
		in, err = unix.Openat(src, e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(in)
	out, err := unix.Openat(dst, e.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|
		unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("create", err)
	}
	defer unix.Close(out)
	if err := c.content(ctx, in, out, &e.st); err != nil {
		return err
	}
	return copyAttributes(in, out, &e.st)
}

// content shares the blocks if the file system supports it, and otherwise copies the data between
// holes.
func (c *copier) content(ctx context.Context, in, out int, st *unix.Stat_t) error {
	if st.Size == 0 {
		return nil
	}
	if c.reflink != fails {
		if err := unix.IoctlFileClone(out, in); err == nil {
			c.reflink = works
			return nil
		}
		c.reflink.failed()
	}
	if st.Blocks*512 >= st.Size {
		return c.copyRange(ctx, in, out, 0, st.Size)
	}
	return c.sparse(ctx, in, out, st.Size)
}

func (c *copier) sparse(ctx context.Context, in, out int, size int64) error {
	for at := int64(0); at < size; {
		data, err := unix.Seek(in, at, unix.SEEK_DATA)
		if err == unix.ENXIO { // only a hole remains
			break
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		end, err := unix.Seek(in, data, unix.SEEK_HOLE)
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		if err := c.copyRange(ctx, in, out, data, end-data); err != nil {
			return err
		}
		at = end
	}
	return os.NewSyscallError("ftruncate", unix.Ftruncate(out, size))
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// copyRange copies n bytes at the same offset.
func (c *copier) copyRange(ctx context.Context, in, out int, at, n int64) error {
	for n > 0 && c.ranged != fails {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		from, to := at, at
		done, err := unix.CopyFileRange(in, &from, out, &to, int(min(n, 64<<20)), 0)
		if err == unix.EINTR {
			continue
		}
		// The errors differ between file systems and kernels. The rest is copied by read and write,
		// which return the actual error.
		if err != nil {
			c.ranged.failed()
			break
		}
		if done == 0 {
			return nil // the file was truncated
		}
		c.ranged = works
		at, n = at+int64(done), n-int64(done)
	}
	if n == 0 {
		return nil
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	r := io.NewSectionReader(fdAt(in), at, n)
	w := io.NewOffsetWriter(fdAt(out), at)
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, *buf)
	return err
}

// fdAt reads and writes a descriptor at given offsets.
type fdAt int

func (f fdAt) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; ; {
		m, err := unix.Pread(int(f), p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return n, os.NewSyscallError("pread", err)
		case m == 0:
			return n, io.EOF
		}
		if n += m; n == len(p) {
			return n, nil
		}
	}
}

func (f fdAt) WriteAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		m, err := unix.Pwrite(int(f), p[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, os.NewSyscallError("pwrite", err)
		}
		n += m
	}
	return len(p), nil
}
