package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"sync"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"golang.org/x/sys/unix"
)

var removeBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// removeTree removes name in the directory dir and everything below it. It follows no link. It
// returns an error for a mount point and does not enter it. It succeeds if the name does not exist.
func removeTree(dir int, name string) error {
	buf := removeBuffers.Get().(*[]byte)
	defer removeBuffers.Put(buf)
	r := remover{top: dir, buf: *buf}
	queue := []string{name}
	for len(queue) > 0 {
		if err := r.remove(dir, queue[0], queue[0], 0); err != nil {
			return err
		}
		queue = append(queue[1:], r.moved...)
		r.moved = nil
	}
	return nil
}

// maxDepth limits the depth to which the remover descends: each level needs a descriptor, and an
// image may nest directories to any depth. Deeper directories are moved to the top and removed from
// there.
const maxDepth = 100

type remover struct {
	top   int
	buf   []byte
	count int
	moved []string
}

// remove removes one name; full is its path for messages.
func (r *remover) remove(dir int, name, full string, depth int) error {
	err := unlink(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	// Linux returns EISDIR, POSIX requires EPERM.
	if err != unix.EISDIR && err != unix.EPERM {
		return fmt.Errorf("remove %s: %w", full, err)
	}
	return r.removeDir(dir, name, full, depth)
}

func (r *remover) removeDir(dir int, name, full string, depth int) error {
	if depth == maxDepth {
		r.count++
		moved := path.Base(r.firstName(full)) + ".deep" + strconv.Itoa(r.count)
		if err := unix.Renameat(dir, name, r.top, moved); err != nil {
			return fmt.Errorf("remove %s: %w", full, err)
		}
		r.moved = append(r.moved, moved)
		return nil
	}
	fd, err := openForRemoval(dir, name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("remove %s: %w", full, err)
	}
	defer unix.Close(fd)
	// readdir may skip an entry while others are removed, and a FUSE server that is ending may
	// still add one.
	for range 10 {
		if err := r.empty(fd, full, depth); err != nil {
			return err
		}
		err = unlink(dir, name, unix.AT_REMOVEDIR)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.ENOTEMPTY && err != unix.EEXIST {
			break
		}
		if _, err := unix.Seek(fd, 0, 0); err != nil {
			return fmt.Errorf("remove %s: %w", full, err)
		}
	}
	return fmt.Errorf("remove %s: %w", full, err)
}

func (r *remover) firstName(full string) string {
	for i := range len(full) {
		if full[i] == '/' {
			return full[:i]
		}
	}
	return full
}

// empty removes the contents of the directory fd.
func (r *remover) empty(fd int, full string, depth int) error {
	var dirs []string
	for {
		n, err := unix.Getdents(fd, r.buf)
		if err == unix.EINTR {
			continue
		}
		// ENOENT: another process has removed the directory meanwhile.
		if err != nil && err != unix.ENOENT {
			return fmt.Errorf("read %s: %w", full, err)
		}
		if n <= 0 {
			break
		}
		for rest := r.buf[:n]; len(rest) > 0; {
			var d dirfd.Record
			d, rest = dirfd.NextRecord(rest)
			name := string(d.Name) // the buffer is shared with the levels below
			switch {
			case d.Dots():
			case d.Type == unix.DT_DIR:
				dirs = append(dirs, name)
			default:
				if err := r.remove(fd, name, full+"/"+name, depth+1); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range dirs {
		if err := r.removeDir(fd, name, full+"/"+name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// openForRemoval opens a directory and gives its owner the permissions needed to remove its
// entries. It returns an error for a mount point.
func openForRemoval(dir int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	}
	fd, err := unix.Openat2(dir, name, &how)
	if err == unix.EACCES && unix.Fchmodat(dir, name, 0o700, 0) == nil {
		fd, err = unix.Openat2(dir, name, &how)
	}
	if err == unix.EXDEV {
		return -1, fmt.Errorf("it is a mount point: %w", err)
	}
	if err != nil {
		return -1, err
	}
	// Entries can be removed only with write permission. Root does not need it.
	if os.Geteuid() != 0 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&0o300 != 0o300 {
			_ = unix.Fchmod(fd, 0o700)
		}
	}
	return fd, nil
}

// unlink removes one name. If the immutable or append-only flag (chattr +i, +a) prevents that,
// unlink clears the flag.
func unlink(dir int, name string, flags int) error {
	err := unix.Unlinkat(dir, name, flags)
	if err != unix.EPERM {
		return err
	}
	if flags == 0 {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
			st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return unix.EISDIR
		}
	}
	clearFlags(dir, ".")
	clearFlags(dir, name)
	return unix.Unlinkat(dir, name, flags)
}

func clearFlags(dir int, name string) {
	const immutable = 0x10 | 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if kind := st.Mode & unix.S_IFMT; err != nil || kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC,
		0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if got, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); err == nil && got&immutable != 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, got&^immutable)
	}
}
