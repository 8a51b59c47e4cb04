package fstree

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Make makes the entries of text below dir, in their order. Missing parents are made with the mode
// 0755. An existing file that is not a directory is replaced. Directories get their times last, so
// that a line for a directory may precede those of its contents. "opaque" sets the attribute of an
// overlay mounted by root; see MakeUser.
func Make(dir, text string) error { return makeTree(dir, text, "trusted.overlay.opaque") }

// MakeUser is like Make, for an overlay mounted with userxattr: "opaque" sets user.overlay.opaque.
func MakeUser(dir, text string) error { return makeTree(dir, text, "user.overlay.opaque") }

func makeTree(dir, text, opaque string) error {
	entries, err := Parse(text)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := e.make(dir, opaque); err != nil {
			return fmt.Errorf("make %q: %w", e, err)
		}
	}
	for _, e := range slices.Backward(entries) {
		if e.Type == Dir && e.MTime != Unset {
			if err := e.setTime(filepath.Join(dir, e.Path)); err != nil {
				return fmt.Errorf("make %q: %w", e, err)
			}
		}
	}
	return nil
}

func (e Entry) make(dir, opaque string) error {
	p := filepath.Join(dir, e.Path)
	if err := parents(filepath.Dir(p)); err != nil {
		return err
	}
	existed := false
	if e.Type != Opaque {
		fi, err := os.Lstat(p)
		existed = err == nil && e.Type == Dir && fi.IsDir()
		if err == nil && !existed {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	if err := e.create(dir, p, opaque); err != nil {
		return err
	}
	if e.Type == Hardlink || e.Type == Opaque || e.Type == Whiteout {
		return nil
	}
	if e.UID != Unset {
		if err := os.Lchown(p, e.UID, e.GID); err != nil {
			return err
		}
	}
	mode := e.Mode
	if !e.HasMode { // whatever the umask
		mode = 0o644
		if e.Type == Dir {
			mode = 0o755
		}
	}
	if e.Type != Link && (e.HasMode || !existed) {
		if err := unix.Chmod(p, mode); err != nil {
			return err
		}
	}
	for k, v := range e.Xattrs {
		if err := unix.Lsetxattr(p, k, []byte(v), 0); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return e.setTime(p)
}

// parents is like os.MkdirAll, independent of the umask.
func parents(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := parents(filepath.Dir(dir)); err != nil {
		return err
	}
	return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755))
}

func (e Entry) create(dir, p, opaque string) error {
	switch e.Type {
	case Dir:
		if err := os.Mkdir(p, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return nil
	case File:
		return os.WriteFile(p, []byte(e.Content), 0o644)
	case Link:
		return os.Symlink(e.Target, p)
	case Hardlink:
		return os.Link(filepath.Join(dir, e.Target), p)
	case Char:
		return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(e.Major, e.Minor)))
	case Block:
		return unix.Mknod(p, unix.S_IFBLK|0o644, int(unix.Mkdev(e.Major, e.Minor)))
	case Fifo:
		return unix.Mknod(p, unix.S_IFIFO|0o644, 0)
	case Socket:
		return unix.Mknod(p, unix.S_IFSOCK|0o644, 0)
	case Whiteout:
		return unix.Mknod(p, unix.S_IFCHR, 0)
	case Opaque:
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
		return unix.Lsetxattr(p, opaque, []byte("y"), 0)
	default:
		panic("unreachable")
	}
}

func (e Entry) setTime(p string) error {
	if e.MTime == Unset {
		return nil
	}
	ts := unix.NsecToTimespec(time.Unix(e.MTime, 0).UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// Show selects the fields that Print writes in addition to type, path, mode, content and target.
type Show struct {
	Owners bool
	Times  bool
	Xattrs bool // without overlay's own and without host labels (security.selinux)
	Plain  bool // print a 0:0 device as a device, and an opaque directory without "opaque"
	Root   bool // print a line for the root, "."
	Brief  bool // print the size and a digest of contents longer than 256 bytes
	// Skip, if not nil, returns true for files that are left out together with everything below
	// them. mode is the mode that lstat(2) returns.
	Skip func(path string, mode uint32) bool
}

// Print returns the notation of the files in dir, sorted by path, each directory before its
// contents. Of files with several names the first is a file and the others are hard links to it.
func Print(dir string, show Show) (string, error) {
	p := printer{dir: dir, show: show, links: map[[2]uint64]string{}}
	if show.Root {
		if err := p.one("."); err != nil {
			return "", err
		}
	}
	if err := p.walk("."); err != nil {
		return "", err
	}
	return Format(p.entries), nil
}

type printer struct {
	dir     string
	show    Show
	entries []Entry
	links   map[[2]uint64]string
}

func (p *printer) walk(rel string) error {
	f, err := os.Open(filepath.Join(p.dir, rel))
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		child := path.Join(rel, n)
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(p.dir, child), &st); err != nil {
			return fmt.Errorf("lstat %s: %w", child, err)
		}
		if p.show.Skip != nil && p.show.Skip(child, st.Mode) {
			continue
		}
		if err := p.one(child); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := p.walk(child); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *printer) one(rel string) error {
	full := filepath.Join(p.dir, rel)
	var st unix.Stat_t
	if err := unix.Lstat(full, &st); err != nil {
		return fmt.Errorf("lstat %s: %w", full, err)
	}
	e := Entry{Path: rel, Mode: st.Mode & 0o7777, HasMode: true, UID: Unset,
		GID: Unset, MTime: Unset}
	key := [2]uint64{st.Dev, st.Ino}
	whiteout := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 && !p.show.Plain
	if first, ok := p.links[key]; ok && !whiteout {
		e.Type, e.Target, e.HasMode = Hardlink, first, false
		p.entries = append(p.entries, e)
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		p.links[key] = rel
	}
	if err := e.describe(full, &st); err != nil {
		return err
	}
	if whiteout {
		p.entries = append(p.entries, Entry{Type: Whiteout, Path: rel, UID: Unset,
			GID: Unset, MTime: Unset})
		return nil
	}
	if p.show.Brief && len(e.Content) > 256 {
		e.Content = fmt.Sprintf("%d bytes, sha256 %x", len(e.Content),
			sha256.Sum256([]byte(e.Content)))
	}
	if p.show.Owners {
		e.UID, e.GID = int(st.Uid), int(st.Gid)
	}
	if p.show.Times {
		e.MTime = st.Mtim.Sec
	}
	opaque, err := p.xattrs(full, &e)
	if err != nil {
		return err
	}
	p.entries = append(p.entries, e)
	if opaque && !p.show.Plain {
		p.entries = append(p.entries, Entry{Type: Opaque, Path: rel, UID: Unset,
			GID: Unset, MTime: Unset})
	}
	return nil
}

// describe sets the entry's type and the fields that the type has.
func (e *Entry) describe(full string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Type = Dir
	case unix.S_IFREG:
		e.Type = File
		b, err := os.ReadFile(full)
		e.Content = string(b)
		return err
	case unix.S_IFLNK:
		var err error
		e.Type, e.HasMode = Link, false
		e.Target, err = os.Readlink(full)
		return err
	case unix.S_IFCHR:
		e.Type, e.Major, e.Minor = Char, unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case unix.S_IFBLK:
		e.Type, e.Major, e.Minor = Block, unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case unix.S_IFIFO:
		e.Type = Fifo
	case unix.S_IFSOCK:
		e.Type = Socket
	default:
		return fmt.Errorf("%s: unknown file type %o", full, st.Mode)
	}
	return nil
}

// xattrs sets the attributes that are shown and reports whether the directory is opaque.
func (p *printer) xattrs(full string, e *Entry) (opaque bool, err error) {
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(full, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list attributes of %s: %w", full, err)
	}
	value := make([]byte, 1<<16)
	for _, k := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		own := strings.HasPrefix(k, "trusted.overlay.") || strings.HasPrefix(k, "user.overlay.")
		if k == "" || k == "security.selinux" || (!p.show.Xattrs && !own) {
			continue
		}
		n, err := unix.Lgetxattr(full, k, value)
		if err != nil {
			return false, fmt.Errorf("attribute %s of %s: %w", k, full, err)
		}
		if own {
			opaque = opaque || (strings.HasSuffix(k, ".overlay.opaque") && string(value[:n]) == "y")
			continue
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[k] = string(value[:n])
	}
	return opaque, nil
}
