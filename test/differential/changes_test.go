package differential

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// common are the names that most changes use, so that a name is often made, removed and made again.
// rare are unusual names.
var (
	common = []string{"a", "b", "c", "d"}
	rare   = []string{
		"bin", "sp ace", "nl\n", "\xff\xfe", "ünï", ".wh.a", "a.b", "a-b", ".hidden", "=",
		strings.Repeat("long", 40), strings.Repeat("x", 99),
	}
)

func pick[T any](r *round, list []T) T { return list[r.pick(len(list))] }

// one returns true once in n times on average.
func (r *round) one(n int) bool { return r.pick(n) == 0 }

func (r *round) name() string {
	if !r.one(4) {
		return pick(r, common)
	}
	name := pick(r, rare)
	if r.driver == mount.FuseOverlay && strings.HasPrefix(name, ".wh.") {
		return "wh" // fuse-overlayfs interprets such a name as its own mark
	}
	return name
}

// paths returns all paths below a directory, and the paths of the directories among them.
func paths(dir string) (all, dirs []string) {
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != dir {
			all = append(all, p)
			if d.IsDir() {
				dirs = append(dirs, p)
			}
		}
		return nil
	})
	return all, dirs
}

// inside lists the names in a directory.
func inside(dir string) []string {
	list, _ := os.ReadDir(dir)
	var all []string
	for _, e := range list {
		all = append(all, filepath.Join(dir, e.Name()))
	}
	return all
}

func (r *round) content() []byte {
	switch r.pick(12) {
	case 0:
		return nil
	case 1:
		return bytes.Repeat([]byte("block"), 1+r.pick(3000))
	case 2:
		return make([]byte, r.pick(80<<10))
	}
	return []byte(pick(r, []string{"one", "two", "three", "four"}))
}

var errNot = errors.New("not of the type that this change is for")

// put writes a regular file. It returns an error if p is anything else, so that it never writes
// through a link or to a device.
func (r *round) put(p string, mode uint32) error {
	fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|
		unix.O_NONBLOCK|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return errNot
	}
	_, err = f.Write(r.content())
	return err
}

// grow makes a tree of some depth, for later changes to remove, replace and move.
func (r *round) grow(dir string) {
	for range 2 {
		r.tree(filepath.Join(dir, pick(r, common)), 3)
	}
	if all, _ := paths(dir); r.one(2) && len(all) > 0 {
		r.links(pick(r, all))
	}
	r.log = append(r.log, "grow")
}

func (r *round) tree(dir string, depth int) {
	os.Mkdir(dir, 0o755)
	for range 1 + r.pick(3) {
		p := filepath.Join(dir, r.name())
		switch {
		case depth > 0 && !r.one(3):
			r.tree(p, depth-1)
		case r.one(6):
			os.Symlink("a", p)
		case r.one(4):
			if files := regular(dir); len(files) > 0 {
				os.Link(pick(r, files), p)
			}
		default:
			r.put(p, 0o644)
		}
	}
}

// regular lists the regular files in a directory.
func regular(dir string) []string {
	list, _ := os.ReadDir(dir)
	var files []string
	for _, e := range list {
		if e.Type().IsRegular() {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files
}

// change makes n random changes. Changes that fail (a file below a file, a device without the
// privilege) are left out.
func (r *round) change(dir string, n int) {
	for range n {
		all, dirs := paths(dir)
		p := filepath.Join(dir, r.name())
		switch {
		case len(dirs) > 0 && r.one(2):
			p = pick(r, dirs)
		case len(all) > 0:
			p = pick(r, all)
		}
		q := filepath.Join(pick(r, append(dirs, dir, dir)), r.name())
		c := changes[r.pick(len(changes))]
		err := c.do(r, p, q)
		rel := func(p string) string { s, _ := filepath.Rel(dir, p); return s }
		r.log = append(r.log, fmt.Sprintf("%s %q %q: %v", c.name, rel(p), rel(q), err))
	}
}

func lstat(p string) (unix.Stat_t, uint32, error) {
	var st unix.Stat_t
	err := unix.Lstat(p, &st)
	return st, st.Mode & unix.S_IFMT, err
}

// again makes a directory with some of the names in was, like a user who removes a directory and
// fills it again.
func (r *round) again(dir string, was *memory) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, m := range was.inside {
		p := filepath.Join(dir, m.name)
		switch {
		case r.one(4):
		case m.dir && !r.one(8):
			if err := r.again(p, m); err != nil {
				return err
			}
		case r.one(3):
			if err := r.put(p, 0o644); err != nil {
				return err
			}
		}
	}
	if r.one(2) {
		return r.put(filepath.Join(dir, r.name()), 0o644)
	}
	return nil
}

// memory is the former content of a directory.
type memory struct {
	name   string
	dir    bool
	inside []*memory
}

func remember(p string) *memory {
	m := &memory{name: filepath.Base(p)}
	if _, kind, err := lstat(p); err == nil && kind == unix.S_IFDIR {
		m.dir = true
		for _, sub := range inside(p) {
			m.inside = append(m.inside, remember(sub))
		}
	}
	return m
}

// move renames, or copies and removes if overlay returns EXDEV: for a directory of a lower layer.
func move(p, q string) error {
	if q == p || strings.HasPrefix(q, p+"/") {
		return errNot
	}
	err := os.Rename(p, q)
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	if _, _, err := lstat(q); err == nil {
		return errNot
	}
	if err := copyTree(p, q); err != nil {
		return err
	}
	return os.RemoveAll(p)
}

// replaceTypes replaces some files below a directory by files of another type.
func (r *round) replaceTypes(dir string, depth int) error {
	for _, p := range inside(dir) {
		_, kind, err := lstat(p)
		if err != nil {
			return err
		}
		switch {
		case kind == unix.S_IFDIR && depth > 0 && !r.one(3):
			err = r.replaceTypes(p, depth-1)
		case kind == unix.S_IFDIR && r.one(2):
			if err = os.RemoveAll(p); err == nil {
				err = pick(r, []func() error{
					func() error { return r.put(p, 0o644) },
					func() error { return os.Symlink("a", p) },
					func() error { return unix.Mknod(p, unix.S_IFIFO|0o644, 0) },
				})()
			}
		case kind != unix.S_IFDIR && r.one(2):
			if err = os.Remove(p); err == nil {
				r.tree(p, r.pick(2))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// links returns the names of the file p in its directory. If the file has only one name there,
// links makes more.
func (r *round) links(p string) ([]string, error) {
	st, kind, err := lstat(p)
	if err != nil || kind == unix.S_IFDIR {
		return nil, errors.Join(err, errNot)
	}
	var same []string
	for _, q := range inside(filepath.Dir(p)) {
		if other, _, err := lstat(q); err == nil && other.Ino == st.Ino {
			same = append(same, q)
		}
	}
	if len(same) > 1 {
		return same, nil
	}
	for _, suffix := range []string{"1", "2"} {
		if err := os.Link(p, p+suffix); err != nil {
			return nil, err
		}
		same = append(same, p+suffix)
	}
	return same, nil
}

// changes are functions that change an existing path p, or a path q that usually does not exist.
var changes = []struct {
	name string
	do   func(r *round, p, q string) error
}{
	{"create", func(r *round, p, q string) error { return r.put(q, 0o644) }},
	{"create", func(r *round, p, q string) error { return r.put(q, 0o600) }},
	{"mkdir", func(r *round, p, q string) error { return os.Mkdir(q, 0o755) }},
	{"mkdir", func(r *round, p, q string) error {
		return os.MkdirAll(filepath.Join(q, r.name(), r.name()), 0o755)
	}},
	{"grow", func(r *round, p, q string) error { r.tree(q, 2); return nil }},
	{"symlink", func(r *round, p, q string) error {
		return os.Symlink(pick(r, []string{"a", "./b", "/nonexistent/c", "nowhere"}), q)
	}},
	{"hard link", func(r *round, p, q string) error { return os.Link(p, q) }},
	{"hard link", func(r *round, p, q string) error { return os.Link(p, q) }},
	{"hard link over", func(r *round, p, q string) error {
		os.Remove(q)
		return os.Link(p, q)
	}},
	{"change names of a link group one by one", func(r *round, p, q string) error {
		all, err := r.links(p)
		if err != nil {
			return err
		}
		for _, name := range all {
			var err error
			switch r.pick(6) {
			case 0:
				err = os.Remove(name)
			case 1:
				err = r.put(name, 0o644)
			case 2:
				_, kind, _ := lstat(name)
				if kind != unix.S_IFLNK {
					err = unix.Chmod(name, 0o640)
				}
			case 3:
				if err = copyTree(name, name+".new"); err == nil {
					err = os.Rename(name+".new", name)
				}
			case 4:
				err = os.Rename(name, q)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}},
	{"divide the link groups", func(r *round, p, q string) error {
		r.divided = true
		all, _ := paths(r.mnt)
		for _, name := range all {
			st, kind, err := lstat(name)
			if err != nil || kind == unix.S_IFDIR || st.Nlink < 2 {
				continue
			}
			switch r.pick(4) {
			case 0:
				if err = copyTree(name, name+".new"); err == nil {
					err = os.Rename(name+".new", name)
				}
			case 1:
				err = os.Link(name, name+".more")
			}
			if err != nil {
				return err
			}
		}
		return nil
	}},
	{"rename", func(r *round, p, q string) error { return os.Rename(p, q) }},
	{"move", func(r *round, p, q string) error { return move(p, q) }},
	{"move over", func(r *round, p, q string) error {
		if strings.HasPrefix(p, q) || strings.HasPrefix(q, p) {
			return errNot
		}
		os.RemoveAll(q)
		return move(p, q)
	}},
	{"exchange", func(r *round, p, q string) error {
		if err := r.put(q, 0o644); err != nil && !errors.Is(err, unix.EISDIR) {
			return err
		}
		return unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, unix.RENAME_EXCHANGE)
	}},
	{"copy over", func(r *round, p, q string) error {
		if _, _, err := lstat(q); err == nil || strings.HasPrefix(q, p+"/") {
			return errNot
		}
		if err := copyTree(p, q); err != nil {
			return err
		}
		return os.Rename(q, p)
	}},
	{"remove", func(r *round, p, q string) error { return os.Remove(p) }},
	{"remove all", func(r *round, p, q string) error { return os.RemoveAll(p) }},
	{"remove contents", func(r *round, p, q string) error {
		for _, sub := range inside(p) {
			if err := os.RemoveAll(sub); err != nil {
				return err
			}
		}
		return nil
	}},
	{"make again", func(r *round, p, q string) error {
		_, kind, err := lstat(p)
		if err != nil {
			return err
		}
		was := remember(p)
		os.RemoveAll(p)
		if kind != unix.S_IFDIR {
			return r.put(p, 0o644)
		}
		return r.again(p, was)
	}},
	{"make again, and remove beside it", func(r *round, p, q string) error {
		was := remember(p)
		if !was.dir {
			return errNot
		}
		beside := inside(filepath.Dir(p))
		os.RemoveAll(p)
		if err := r.again(p, was); err != nil {
			return err
		}
		for _, other := range beside {
			if other != p && r.one(2) {
				if err := os.RemoveAll(other); err != nil {
					return err
				}
			}
		}
		return nil
	}},
	{"make the contents again", func(r *round, p, q string) error {
		for _, sub := range inside(p) {
			was := remember(sub)
			if r.one(3) {
				continue
			}
			os.RemoveAll(sub)
			if was.dir && !r.one(3) {
				if err := r.again(sub, was); err != nil {
					return err
				}
			}
		}
		return nil
	}},
	{"move away and make another", func(r *round, p, q string) error {
		was := remember(p)
		if !was.dir {
			return errNot
		}
		if err := move(p, q); err != nil {
			return err
		}
		if err := r.again(p, was); err != nil || r.one(2) {
			return err
		}
		return os.RemoveAll(q)
	}},
	{"make elsewhere and move here", func(r *round, p, q string) error {
		was := remember(p)
		if !was.dir || strings.HasPrefix(q, p+"/") {
			return errNot
		}
		if _, _, err := lstat(q); err == nil {
			return errNot
		}
		if err := r.again(q, was); err != nil {
			return err
		}
		if err := os.RemoveAll(p); err != nil {
			return err
		}
		return os.Rename(q, p)
	}},
	{"replace types", func(r *round, p, q string) error { return r.replaceTypes(p, 3) }},
	{"other type", func(r *round, p, q string) error {
		_, kind, err := lstat(p)
		if err != nil {
			return err
		}
		os.RemoveAll(p)
		if kind == unix.S_IFDIR {
			return r.put(p, 0o644)
		}
		return os.MkdirAll(filepath.Join(p, r.name()), 0o755)
	}},
	{"edit, time kept", func(r *round, p, q string) error {
		st, kind, err := lstat(p)
		if err != nil || kind != unix.S_IFREG {
			return errNot
		}
		if st.Size > 0 {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			b[r.pick(len(b))] ^= byte(r.pick(2)) // sometimes unchanged
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.Write(b); err != nil {
				return err
			}
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{st.Atim, st.Mtim}, 0)
	}},
	{"append", func(r *round, p, q string) error {
		if _, kind, err := lstat(p); err != nil || kind != unix.S_IFREG {
			return errNot
		}
		f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write(r.content())
		return err
	}},
	{"make sparse", func(r *round, p, q string) error {
		if err := r.put(q, 0o644); err != nil {
			return err
		}
		if _, kind, err := lstat(q); err != nil || kind != unix.S_IFREG {
			return errNot
		}
		return os.Truncate(q, int64(r.pick(1<<18)))
	}},
	{"chmod", func(r *round, p, q string) error {
		if _, kind, err := lstat(p); err != nil || kind == unix.S_IFLNK {
			return errNot
		}
		return unix.Fchmodat(unix.AT_FDCWD, p,
			pick(r, []uint32{0o644, 0o755, 0o700, 0o4755, 0o2755, 0o1777, 0o600}), 0)
	}},
	{"chmod, same", func(r *round, p, q string) error {
		st, kind, err := lstat(p)
		if err != nil || kind == unix.S_IFLNK {
			return errNot
		}
		return unix.Chmod(p, st.Mode&0o7777)
	}},
	{"chmod of the parent", func(r *round, p, q string) error {
		return unix.Chmod(filepath.Dir(q), pick(r, []uint32{0o755, 0o755, 0o711}))
	}},
	{"chown", func(r *round, p, q string) error { return os.Lchown(p, r.pick(3), r.pick(3)) }},
	{"chown, large", func(r *round, p, q string) error {
		return os.Lchown(p, 60000+r.pick(3), 3000000)
	}},
	{"touch", func(r *round, p, q string) error {
		ts := unix.Timespec{Sec: pick(r, []int64{1000, 1001, 1002, -1, 1 << 34}),
			Nsec: int64(r.pick(1e9))}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts},
			unix.AT_SYMLINK_NOFOLLOW)
	}},
	{"set attribute", func(r *round, p, q string) error {
		return unix.Lsetxattr(p, pick(r, []string{"user.a", "user.b", "user.a=b"}),
			[]byte(pick(r, []string{"", "v", "\x00\n="})), 0)
	}},
	{"set an attribute that is a mark elsewhere", func(r *round, p, q string) error {
		if r.driver == mount.FuseOverlay {
			return errNot // the name would hide files from the command, too
		}
		names := []string{"user.fuseoverlayfs.opaque", "user.overlay.opaque",
			"user.containers.override_stat"}
		return unix.Lsetxattr(p, pick(r, names), []byte("y"), 0)
	}},
	{"remove attribute", func(r *round, p, q string) error {
		return unix.Lremovexattr(p, "user.a")
	}},
	{"set capability", func(r *round, p, q string) error {
		if _, kind, err := lstat(p); err != nil || kind == unix.S_IFLNK {
			return errNot
		}
		return unix.Lsetxattr(p, "security.capability",
			[]byte(
				"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
			0)
	}},
	{"set access list", func(r *round, p, q string) error {
		if _, kind, err := lstat(p); err != nil || kind != unix.S_IFDIR {
			return errNot
		}
		// user::rwx user:1:r-x group::r-x mask::r-x other::r-x
		acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" +
			"\x02\x00\x05\x00\x01\x00\x00\x00" +
			"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x05\x00\xff\xff\xff\xff" +
			"\x20\x00\x05\x00\xff\xff\xff\xff"
		return unix.Lsetxattr(p, pick(r, []string{"system.posix_acl_default",
			"system.posix_acl_access"}), []byte(acl), 0)
	}},
	{"device", func(r *round, p, q string) error {
		return unix.Mknod(q, pick(r, []uint32{unix.S_IFCHR, unix.S_IFBLK})|0o644,
			pick(r, []int{int(unix.Mkdev(240, 0)), int(unix.Mkdev(240, 1)), 0}))
	}},
	{"fifo", func(r *round, p, q string) error { return unix.Mknod(q, unix.S_IFIFO|0o644, 0) }},
	{"socket", func(r *round, p, q string) error { return unix.Mknod(q, unix.S_IFSOCK|0o644, 0) }},
}
