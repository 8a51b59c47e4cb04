package snapshot

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/mount"
)

// overlay stores a snapshot as the upper directory of an overlay mount: fs contains the difference
// to the chain, with whiteouts (0:0 devices) and opaque marks (xattrs). fuse-overlayfs uses the
// same layout with another mount type, and with marks of its own that seal translates.
type overlay struct {
	kind string // mount.Overlay or mount.FuseOverlay
	// marks are user.overlay.*, since overlayfs in a user namespace cannot set trusted.*
	user bool
	// an empty directory: an overlay needs at least one lower directory, and a view two
	empty string
	// volatile is set for mounts with the option of that name, which Linux has since 5.10
	volatile bool
}

const workName = "work"

func (o *overlay) name() string  { return o.kind }
func (o *overlay) layered() bool { return true }

func (o *overlay) home() string {
	if o.kind == mount.FuseOverlay {
		return fuseHome
	}
	return overlayHome
}

func (o *overlay) prepare(_ context.Context, dir string, chain []string) error {
	for _, sub := range [...]string{fsDir, workName} {
		if err := unix.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return &os.PathError{Op: "mkdir", Path: filepath.Join(dir, sub), Err: err}
		}
	}
	upper := filepath.Join(dir, fsDir)
	if len(chain) == 0 {
		return plainRoot(upper)
	}
	// The merged root shows the attributes of the upper's root.
	return copyRootAttributes(chain[0], upper)
}

func (o *overlay) writable(dir string, chain []string) []mount.Mount {
	if len(chain) == 0 {
		chain = []string{o.empty}
	}
	return []mount.Mount{{
		Type: o.kind, Lower: chain, Upper: filepath.Join(dir, fsDir),
		Work: filepath.Join(dir, workName), Options: o.options(true),
	}}
}

// view returns an overlay mount even for a single directory, because a layer without a parent may
// contain whiteouts and opaque marks too.
func (o *overlay) view(chain []string) []mount.Mount {
	if len(chain) == 1 {
		chain = []string{chain[0], o.empty}
	}
	return []mount.Mount{{Type: o.kind, Lower: chain, Options: append(o.options(false), "ro")}}
}

func (o *overlay) options(writable bool) []string {
	if o.kind == mount.FuseOverlay {
		if !writable {
			return nil
		}
		// Without writeback, the page cache holds no data that the server has yet to write. The
		// server may be killed together with the step's processes.
		return []string{"volatile", "writeback=0"}
	}
	// These options make the upper directory a complete difference. nofollow is like "off" and also
	// applies if the kernel is built to follow redirects by default
	// (CONFIG_OVERLAY_FS_REDIRECT_ALWAYS_FOLLOW), so that a layer cannot name other directories.
	options := []string{"index=off", "redirect_dir=nofollow", "metacopy=off"}
	if o.user {
		options = append(options, "userxattr")
	}
	if writable && o.volatile {
		options = append(options, "volatile")
	}
	return options
}

func (o *overlay) seal(dir string, chain []string, mounted bool) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The work directory contains a directory of mode 000 and, with volatile, the mark
	// incompat/volatile.
	if err := removeTree(fd, workName); err != nil {
		return err
	}
	if mounted && o.kind == mount.FuseOverlay {
		return o.translate(filepath.Join(dir, fsDir), chain)
	}
	return nil
}

func (o *overlay) remove(tmp int, name string) error { return removeTree(tmp, name) }

func (o *overlay) opaqueName() string {
	if o.user {
		return dirfd.OverlayUserXattrs + "opaque"
	}
	return dirfd.OverlayXattrs + "opaque"
}

// The names that fuse-overlayfs uses as marks, in addition to the kernel's and to attributes
// (dirfd.FuseOverlayfsXattrs): every directory that it makes contains a file named fuseOpaque. If
// it cannot make devices, a removed name is a file with the prefix fuseWhiteout. In layers, the
// same names are marks of the OCI specification.
const (
	fuseOpaque   = ".wh..wh..opq"
	fuseWhiteout = ".wh."
)

// translate converts an upper directory that fuse-overlayfs has written to the kernel's form. lower
// are the directories of the same path in the chain below.
func (o *overlay) translate(dir string, lower []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	// fuse-overlayfs marks every new directory, with a file that only fuse-overlayfs makes.
	marked := slices.ContainsFunc(entries,
		func(e os.DirEntry) bool { return e.Name() == fuseOpaque })
	hides := anyExists(lower)
	if marked {
		lower = nil
	}
	for _, e := range entries {
		if err := o.translateEntry(dir, e, lower); err != nil {
			return err
		}
	}
	if err := o.translateXattrs(dir); err != nil {
		return err
	}
	// The kernel and layers mark only directories that hide something. fuse-overlayfs also
	// interprets the kernel's attributes as marks, and commands can set the attributes
	// user.overlay.*. They must be removed.
	marks := []string{dirfd.OverlayUserXattrs + "opaque", dirfd.OverlayUserXattrs + "redirect",
		dirfd.OverlayUserXattrs + "metacopy", o.opaqueName()}
	if marked && hides {
		marks = slices.DeleteFunc(marks, func(name string) bool { return name == o.opaqueName() })
	}
	for _, name := range marks {
		if err := unix.Lremovexattr(dir, name); err != nil && err != unix.ENODATA &&
			err != unix.ENOTSUP {
			return &os.PathError{Op: "removexattr", Path: dir, Err: err}
		}
	}
	err = unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Atim, st.Mtim},
		unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "utimensat", Path: dir, Err: err}
	}
	return nil
}

func (o *overlay) translateEntry(dir string, e os.DirEntry, lower []string) error {
	path := filepath.Join(dir, e.Name())
	switch {
	case e.IsDir():
		below := make([]string, len(lower))
		for i := range lower {
			below[i] = filepath.Join(lower[i], e.Name())
		}
		return o.translate(path, below)
	case e.Type()&os.ModeCharDevice != 0 && !strings.HasPrefix(e.Name(), fuseWhiteout):
		return dropVoidWhiteout(path, e.Name(), lower)
	case e.Name() == fuseOpaque:
		if err := unix.Lsetxattr(dir, o.opaqueName(), []byte("y"), 0); err != nil {
			return &os.PathError{Op: "setxattr", Path: dir, Err: err}
		}
		return os.Remove(path)
	case strings.HasPrefix(e.Name(), fuseWhiteout):
		if err := os.Remove(path); err != nil {
			return err
		}
		if e.Type()&os.ModeDevice != 0 {
			return nil // a whiteout of fuse-overlayfs's own opaque mark
		}
		return makeWhiteout(dir, strings.TrimPrefix(e.Name(), fuseWhiteout), lower)
	case e.Type()&os.ModeSocket != 0:
		// fuse-overlayfs opens a file of a lower layer before it removes, renames or changes it,
		// and opening a socket fails (ENXIO). Without sockets, the snapshot is equal to one made
		// from its layer: layers contain no sockets.
		if err := os.Remove(path); err != nil {
			return err
		}
		return makeWhiteout(dir, e.Name(), lower)
	case e.Type().IsRegular():
		return o.translateXattrs(path)
	default:
		return nil
	}
}

// makeWhiteout makes a whiteout in dir, unless it would hide nothing in the directories lower.
func makeWhiteout(dir, name string, lower []string) error {
	if !anyHas(lower, name) {
		return nil
	}
	path := filepath.Join(dir, name)
	if err := unix.Mknod(path, unix.S_IFCHR, 0); err != nil {
		return &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	return nil
}

// dropVoidWhiteout removes a whiteout that hides nothing in the directories lower. fuse-overlayfs
// leaves such whiteouts when it renames a new file. The kernel lists them as names that cannot be
// opened, because it recognizes whiteouts only in merged directories (ovl_dir_is_real).
func dropVoidWhiteout(path, name string, lower []string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Rdev != 0 || anyHas(lower, name) {
		return nil
	}
	return os.Remove(path)
}

// anyHas reports whether one of the directories has a file of that name.
func anyHas(dirs []string, name string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return anyExists([]string{filepath.Join(dir, name)})
	})
}

func anyExists(paths []string) bool {
	for _, path := range paths {
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			return true
		}
	}
	return false
}

func (o *overlay) translateXattrs(path string) error {
	all, err := dirfd.XattrsOf(path, func(name []byte) bool {
		return strings.HasPrefix(string(name), dirfd.FuseOverlayfsXattrs)
	})
	if err != nil {
		return &os.PathError{Op: "read xattrs", Path: path, Err: err}
	}
	for _, x := range all {
		if x.Name == dirfd.FuseOverlayfsXattrs+"opaque" {
			if err := unix.Lsetxattr(path, o.opaqueName(), []byte("y"), 0); err != nil {
				return &os.PathError{Op: "setxattr", Path: path, Err: err}
			}
		}
		if err := unix.Lremovexattr(path, x.Name); err != nil {
			return &os.PathError{Op: "removexattr", Path: path, Err: err}
		}
	}
	return nil
}

func openDir(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}
