package copyfs

import (
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/fileentry"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// A Copy of the contents of one directory into an empty one changes nothing else: the change
// consists of the directory's files, with the owners and modes that the Copy sets. A caller that
// needs the change as a layer can therefore write the layer from the source's files. It runs the
// Copy twice: first with DestOnly, which makes and describes the destination. If Directory then
// returns a source, the caller can write the layer from it, and runs the whole Copy only if it
// needs the files.

// Dest describes the destination of a Copy with DestOnly.
type Dest struct {
	// Path is the destination directory, without leading slash; "" is the root.
	Path string
	// Empty is set if the directory has no entries.
	Empty bool
	// Inherits is set if new files in it inherit an access control list (a default ACL).
	Inherits bool
	// Chown is set if the files get the owner UID:GID. Otherwise they keep the source's owner.
	Chown    bool
	UID, GID uint32
}

// describe returns the Dest of the directory top.
func (c *copier) describe(top *frame) (*Dest, error) {
	names, err := dirfd.List(top.dst)
	if err != nil {
		return nil, err
	}
	place, err := c.pathInRoot(top.dst)
	if err != nil {
		return nil, err
	}
	d := &Dest{Path: strings.TrimPrefix(place, "/"), Empty: len(names) == 0,
		Inherits: hasDefaultACL(top.dst)}
	if c.own != nil {
		d.Chown, d.UID, d.GID = true, uint32(c.own.UID), uint32(c.own.GID)
	}
	return d, nil
}

// Directory is a directory whose contents a Copy copies into an empty directory.
type Directory struct {
	// Dest is the path of the empty directory, without leading slash; "" is the root.
	Dest string
	// Top and Path name the source: the directory Path below the open directory Top.
	Top  *os.File
	Path string
	// Entries are the files, with paths below the source.
	Entries []fileentry.Entry

	own   *Owner
	chmod *modeChange
}

// Owner returns the owner of the copy of a file that has the owner uid:gid at its source.
func (d *Directory) Owner(uid, gid uint32) (uint32, uint32) {
	if d.own != nil {
		return uint32(d.own.UID), uint32(d.own.GID)
	}
	return uid, gid
}

// Mode returns the mode (12 bits) of the copy of a file or directory that has this mode at its
// source.
func (d *Directory) Mode(mode uint32, dir bool) uint32 {
	if d.chmod == nil {
		return mode & 0o7777
	}
	return d.chmod.apply(mode&0o7777, dir)
}

// CopiesDirectory reports whether the Copy only copies the contents of one directory, whose files
// are listed, without private copies.
func (a *Copy) CopiesDirectory() bool {
	if len(a.Sources) != 1 || len(a.Sources[0].Items) != 1 || len(a.Inline) > 0 ||
		a.Unpack || a.Frozen != nil {
		return false
	}
	it := &a.Sources[0].Items[0]
	return it.Contents && it.Target == "" && it.Entries != nil
}

// Directory returns the source directory of the Copy, if copying its files is the only change that
// the Copy makes below the destination d, and reports whether that is so. d is nil if the
// destination is not known. userNS and singleID are the Options' UserNS and SingleID: in a user
// namespace the kernel may refuse an owner, so the owner of a file is known only after copying it.
func (a *Copy) Directory(d *Dest, userNS, singleID bool) (*Directory, bool) {
	if d == nil || !d.Empty || d.Inherits || !a.CopiesDirectory() || singleID ||
		userNS && (!d.Chown || d.UID != 0 || d.GID != 0) {
		return nil, false
	}
	src := &a.Sources[0]
	out := &Directory{Dest: d.Path, Top: src.Dir, Path: src.Items[0].Path,
		Entries: src.Items[0].Entries}
	if d.Chown {
		out.own = &Owner{int(d.UID), int(d.GID)}
	}
	if a.Chmod != "" {
		var err error
		if out.chmod, err = parseMode(a.Chmod); err != nil {
			return nil, false
		}
	}
	return out, true
}

// Open opens the source. It does not follow links in Path.
func (d *Directory) Open() (*os.File, error) {
	fd, err := safepath.NoLinks(int(d.Top.Fd()), path.Clean(d.Path),
		unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "source"), nil
}

// pathInRoot returns the path of an open directory in c.root. It changes the working directory.
func (c *copier) pathInRoot(dir int) (string, error) {
	root, err := pathOf(c.root)
	if err != nil {
		return "", err
	}
	place, err := pathOf(dir)
	return path.Join("/", strings.TrimPrefix(place, root)), err
}

// pathOf returns the path of an open directory in this thread's root directory.
func pathOf(dir int) (string, error) {
	if err := unix.Fchdir(dir); err != nil {
		return "", err
	}
	var buf [unix.PathMax]byte
	n, err := unix.Getcwd(buf[:])
	if err != nil {
		return "", err
	}
	if n < 2 || buf[0] != '/' { // "(unreachable)": getcwd(2)
		return "", unix.ENOENT
	}
	return string(buf[:n-1]), nil
}
