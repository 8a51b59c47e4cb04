package stagedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/lock"
)

// Dir is a directory tree that is to be moved to its destination.
type Dir struct {
	// the temporary directory, which contains the new content and replaced entries
	holder string
	lock   *lock.Held // lock of the holder
	// the path to which the content is moved: the destination, or the first of its missing parents
	place  string
	rest   string // the destination relative to place
	exists bool   // place exists

	merge *lock.Held // the lock of Lock
}

// Names in the temporary directory.
const (
	content  = "content"
	replaced = "replaced" // followed by a number
)

// New makes a temporary directory for the directory dest. dest and its parents need not exist.
func New(dest string) (*Dir, error) {
	abs, err := filepath.Abs(dest)
	if err != nil {
		return nil, err
	}
	d := &Dir{place: abs}
	for {
		fi, err := os.Stat(d.place)
		if err == nil && !fi.IsDir() {
			return nil, &fs.PathError{Op: "mkdir", Path: d.place, Err: unix.ENOTDIR}
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if li, err := os.Lstat(d.place); err == nil {
			if li.Mode()&fs.ModeSymlink == 0 {
				continue // another process has just made it
			}
			return nil, &fs.PathError{Op: "mkdir", Path: d.place,
				Err: errors.New("it is a dangling symbolic link")}
		}
		d.rest = filepath.Join(filepath.Base(d.place), d.rest)
		d.place = filepath.Dir(d.place)
	}
	if d.place, err = filepath.EvalSymlinks(d.place); err != nil {
		return nil, err
	}
	if d.rest != "" { // the first missing directory is made in place's parent
		first, rest, _ := strings.Cut(d.rest, "/")
		parent := d.place
		d.place, d.rest = filepath.Join(parent, first), rest
		err = d.begin(parent, prefix(first))
	} else {
		d.exists = true
		err = d.beginBeside()
	}
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.Path(), 0o777); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// NewAt makes a temporary directory in the existing directory dest, for the part of the destination
// that is on another mount (see Check).
func NewAt(dest string) (*Dir, error) {
	place, err := filepath.EvalSymlinks(dest)
	if err != nil {
		return nil, err
	}
	d := &Dir{place: place, exists: true}
	if err := d.begin(place, inside); err != nil {
		return nil, err
	}
	if err := os.Mkdir(d.Path(), 0o777); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// prefix returns the prefix of the names of temporary directories for the directory name.
func prefix(name string) string { return fmt.Sprintf(".%.200s.layerbuild-", name) }

// inside is the prefix of temporary directories in the destination itself.
const inside = ".layerbuild-"

// beginBeside makes the temporary directory for a destination that exists.
func (d *Dir) beginBeside() error {
	removeLeftOver(d.place, inside)
	if parent := filepath.Dir(d.place); parent != d.place && sameMount(parent, d.place) {
		if d.begin(parent, prefix(filepath.Base(d.place))) == nil {
			return nil
		}
	}
	return d.begin(d.place, inside)
}

// sameMount reports whether files can be renamed from one directory to the other.
func sameMount(a, b string) bool {
	var st [2]unix.Statx_t
	for i, dir := range []string{a, b} {
		if unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_MNT_ID, &st[i]) != nil {
			return false
		}
	}
	return mountOf(&st[0]) == mountOf(&st[1])
}

// mount identifies a mount. On btrfs each subvolume has its own device, and files cannot be renamed
// between subvolumes. Before Linux 5.8 the id is 0.
type mount struct{ dev, id uint64 }

func mountOf(st *unix.Statx_t) mount { return mount{dirfd.Dev(st), st.Mnt_id} }

// begin makes the temporary directory in dir.
func (d *Dir) begin(dir, prefix string) error {
	removeLeftOver(dir, prefix)
	for {
		holder, err := os.MkdirTemp(dir, prefix)
		if err != nil {
			return err
		}
		held, err := lock.TryDir(holder)
		// Between mkdir and flock, another process may remove the directory as abandoned. Then make
		// another one.
		if errors.Is(err, lock.ErrHeld) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return errors.Join(err, os.Remove(holder))
		}
		d.holder, d.lock = holder, held
		return nil
	}
}

// removeLeftOver removes the temporary directories in dir that a process of this user left when it
// was killed. Errors are ignored: the next New tries again.
func removeLeftOver(dir, prefix string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	var names dirfd.Names
	_ = names.Read(int(f.Fd()))
	for _, e := range names.Entries {
		name := string(names.Name(e))
		if !strings.HasPrefix(name, prefix) ||
			strings.Trim(name[len(prefix):], "0123456789") != "" {
			continue
		}
		held, err := lock.TryDir(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if isOurs(held.File()) {
			_ = dirfd.RemoveTree(int(f.Fd()), names.CName(e))
		}
		held.Close()
	}
}

// isOurs reports whether a directory has the properties of one that begin has made. A directory of
// the user may have a name with the prefix, and must not be removed.
func isOurs(dir *os.File) bool {
	fi, err := dir.Stat()
	if err != nil || fi.Mode().Perm() != 0o700 {
		return false
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return false
	}
	names, err := dirfd.List(int(dir.Fd()))
	return err == nil && !slices.ContainsFunc(names, func(name string) bool {
		return name != content && !strings.HasPrefix(name, replaced)
	})
}

// Lock locks the destination until Close, and waits for other processes that have locked it. If the
// content of a file depends on the destination's files, the caller must call Lock before reading
// them. If the directory cannot be locked, Lock does not wait. It returns an error if ctx ends.
func (d *Dir) Lock(ctx context.Context) error {
	for {
		// Lock the directory that contains the destination, or in which its first missing parent
		// will be made. It is the same one before and after the destination appears.
		dir := filepath.Dir(filepath.Join(d.place, d.rest))
		for dir != "/" && !isDirectory(dir) {
			dir = filepath.Dir(dir)
		}
		if d.merge != nil && d.merge.File().Name() == dir {
			return nil
		}
		if d.merge != nil { // another process has made a parent meanwhile
			d.merge.Close()
		}
		var err error
		if d.merge, err = lock.AcquireDir(ctx, dir); err != nil {
			d.merge = nil
			return context.Cause(ctx)
		}
	}
}

func isDirectory(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// Path returns the directory that becomes the destination.
func (d *Dir) Path() string { return filepath.Join(d.holder, content, d.rest) }

// Close removes the files that were not moved to the destination, and the files that Commit has
// replaced there.
func (d *Dir) Close() error {
	parent, err := os.Open(filepath.Dir(d.holder))
	if err == nil {
		if err = dirfd.RemoveTree(int(parent.Fd()),
			[]byte(filepath.Base(d.holder)+"\x00")); err != nil {
			err = &fs.PathError{Op: "remove", Path: d.holder, Err: err}
		}
		parent.Close()
	}
	if d.merge != nil {
		err = errors.Join(err, d.merge.Close())
	}
	return errors.Join(err, d.lock.Close())
}
