package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// A context may change during a build: logs grow, editors save files, generators run. Digest and
// layer must still be computed from the same bytes. A file is digested first and copied later, and
// the copy compares the file with the values of its Entry. If they differ, the step starts again,
// and every file that has changed since the first Match began, or that the copy reports as changed,
// is frozen: it is read once, to a private copy, and both digest and layer are made from that copy.
// Frozen files stay the same for the rest of the build.

// frozenFile is a file with a private copy: a regular file, a link, or a directory without its
// content.
type frozenFile struct {
	name uint32 // in the private directory
	st   unix.Statx_t
	sum  sum
	text []byte // the target of a link
}

// freezer holds the private copies of a tree's files.
type freezer struct {
	tempDir func() (string, error)
	dir     *Fetched // nil until the first copy
	last    uint32
	files   map[string]*frozenFile // by path in the tree
	inodes  map[[2]uint64]*frozenFile
	named   map[string]bool // files that a copy has found changed
	gone    map[string]bool // those of the named files that were missing
	// directories whose whole content is frozen, each with a slash at the end
	below   []string
	since   int64  // files that have changed after this time are frozen; 0: none
	began   int64  // when the first Match began
	between func() // called by tests between the two readings of a file; nil otherwise
}

// errReplaced is returned for a name whose file was replaced while it was being read.
var errReplaced = errors.New("it was replaced while it was being read")

const (
	// maxReplaced limits how often a replaced name is read again.
	maxReplaced = 20
	// maxFreeze limits how often a file that changes while it is read is read again.
	maxFreeze = 8
)

// Changed records that a copy has found a difference between the file at path and its digested
// values. The next Match freezes it, together with everything else that has changed since the first
// one began. A file that copies have found missing twice is treated as missing for the rest of the
// build.
//
// below is set if path is a directory that is removed and made again: the next Match freezes all
// its content too.
func (t *Tree) Changed(path string, below bool) {
	t.turn <- struct{}{}
	defer func() { <-t.turn }()
	f := &t.freezer
	if f.named == nil {
		f.named, f.gone = map[string]bool{}, map[string]bool{}
	}
	if below {
		f.below = append(f.below, path+"/")
	}
	if f.named[path] {
		f.gone[path] = true
	}
	f.named[path] = true
	if f.since == 0 {
		f.since = f.began
	}
}

// begin records that a Match begins. The clock of ctime may be one tick of the kernel's timer
// behind.
func (f *freezer) begin() {
	if f.began == 0 {
		f.began = time.Now().Add(-25 * time.Millisecond).UnixNano()
	}
	clear(f.inodes)
}

// dirOf returns the directory of the private copies if one of the items has one, or nil.
func (f *freezer) dirOf(items []Item) *os.File {
	frozen := func(it Item) bool { return it.Entries.Frozen() }
	if f.dir == nil || !slices.ContainsFunc(items, frozen) {
		return nil
	}
	return f.dir.Dir
}

func (f *freezer) close() error {
	if f.dir == nil {
		return nil
	}
	dir := f.dir
	f.dir = nil
	return dir.Close()
}

// live reports whether a file is or may become frozen.
func (f *freezer) live() bool { return f.since != 0 || len(f.files) > 0 }

// frozen returns the private copy of the file or directory that m.st describes, or nil if it has
// none and needs none. It sets m.st to the values of the copy.
func (m *matching) frozen(dir int, name []byte, at where) (*frozenFile, error) {
	f := &m.t.freezer
	if !f.live() || m.list {
		return nil, nil
	}
	path := at.full()
	if have := f.files[path]; have != nil && have.st.Mode&unix.S_IFMT == m.st.Mode&unix.S_IFMT {
		m.st = have.st
		f.inodes[[2]uint64{dirfd.Dev(&m.st), m.st.Ino}] = have
		return have, nil
	}
	in := func(dir string) bool { return strings.HasPrefix(path, dir) }
	if !f.named[path] && nanos(m.st.Ctime) < f.since && !slices.ContainsFunc(f.below, in) {
		return nil, nil
	}
	switch m.st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK, unix.S_IFDIR:
		return m.freeze(dir, name, at)
	}
	return nil, nil
}

// vanished reports whether a name is treated as missing because copies have found it missing.
func (m *matching) vanished(at where) bool {
	f := &m.t.freezer
	return len(f.gone) > 0 && f.gone[at.full()] && f.files[at.full()] == nil
}

// freeze makes a private copy of name in the directory dir. It sets m.st to the values of the copy.
// It returns errReplaced if name is not of the type in m.st any more: the caller's record depends
// on the type, and the content of a directory has to be walked.
func (m *matching) freeze(dir int, name []byte, at where) (*frozenFile, error) {
	f := &m.t.freezer
	if f.dir == nil {
		var err error
		if f.dir, err = newFetched(f.tempDir); err != nil {
			return nil, fmt.Errorf("copy %q, which is being written to: %w", at.full(), err)
		}
		f.files, f.inodes = map[string]*frozenFile{}, map[[2]uint64]*frozenFile{}
	}
	kind := m.st.Mode & unix.S_IFMT
	if err := dirfd.Lstat(dir, name, &m.st); err != nil {
		return nil, m.unreadable(at.full(), err)
	}
	if m.st.Mode&unix.S_IFMT != kind {
		return nil, errReplaced
	}
	id := [2]uint64{dirfd.Dev(&m.st), m.st.Ino}
	frozen := f.inodes[id]
	if m.st.Nlink < 2 || m.st.Mode&unix.S_IFMT == unix.S_IFDIR || frozen == nil {
		f.last++
		frozen = &frozenFile{name: f.last}
		var err error
		switch m.st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			err = m.freezeFile(frozen, dir, name, at)
		case unix.S_IFDIR:
			err = m.freezeDirectory(frozen, dir, name, at)
		case unix.S_IFLNK:
			err = m.freezeLink(frozen, dir, name, at)
		default:
			err = errReplaced
		}
		if err != nil {
			return nil, err
		}
	}
	m.st = frozen.st
	f.files[strings.Clone(at.full())] = frozen
	f.inodes[[2]uint64{dirfd.Dev(&m.st), m.st.Ino}] = frozen
	return frozen, nil
}

// copyPath returns the path of a private copy.
func (f *freezer) copyPath(file *frozenFile) string {
	return filepath.Join(f.dir.temp, strconv.Itoa(int(file.name)))
}

// freezeFile reads a regular file to a private copy, up to its length when reading begins. If the
// file changes meanwhile, the copy is used only if the same bytes are read again, as for a log that
// has grown or a file whose time has changed. Otherwise the file is read again, and after maxFreeze
// attempts an error is returned.
func (m *matching) freezeFile(frozen *frozenFile, dir int, name []byte, at where) error {
	for try := range maxFreeze {
		if try > 0 {
			if err := m.pause(time.Millisecond << (try - 1)); err != nil {
				return err
			}
		}
		same, err := m.freezeOnce(frozen, dir, name, at)
		if err != nil || same {
			return err
		}
	}
	return fmt.Errorf("%q keeps changing while it is being read", at.full())
}

func (m *matching) pause(d time.Duration) error {
	select {
	case <-m.ctx.Done():
		return context.Cause(m.ctx)
	case <-time.After(d):
		return nil
	}
}

func (m *matching) freezeOnce(frozen *frozenFile, dir int, name []byte,
	at where) (same bool, err error) {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return false, m.unreadable(at.full(), err)
	}
	defer unix.Close(fd)
	var before unix.Statx_t
	if err := dirfd.Fstat(fd, &before); err != nil {
		return false, fmt.Errorf("stat %q: %w", at.full(), err)
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, errReplaced
	}
	copyName := m.t.freezer.copyPath(frozen)
	out, err := os.OpenFile(copyName, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return false, fmt.Errorf("copy %q, which is being written to: %w", at.full(), err)
	}
	defer out.Close()
	first, n, err := m.readAt(fd, int64(before.Size), out)
	var attrs []dirfd.Xattr
	if err == nil {
		attrs, err = m.readXattrs(fd)
	}
	if err != nil {
		return false, fmt.Errorf("read %q: %w", at.full(), err)
	}
	if m.t.freezer.between != nil {
		m.t.freezer.between()
	}
	if err := dirfd.Fstat(fd, &frozen.st); err != nil {
		return false, fmt.Errorf("stat %q: %w", at.full(), err)
	}
	if n != int64(before.Size) || !sameFile(&before, &frozen.st) {
		again, _, err := m.readAt(fd, n, nil)
		if err != nil {
			return false, fmt.Errorf("read %q: %w", at.full(), err)
		}
		if again != first {
			return false, nil
		}
	}
	frozen.st.Size = uint64(n)
	frozen.sum = sum{digest: first}.with(attrs)
	return true, m.dress(frozen, out, attrs)
}

// readAt reads n bytes from the beginning of a file, or fewer if the file is shorter. If out is not
// nil, it writes the bytes to out, with chunks of zeros as holes, so that the copy of a sparse file
// does not fill the disk. It returns the digest and the number of the bytes.
func (m *matching) readAt(fd int, n int64,
	out *os.File) (digest [sha256.Size]byte, done int64, err error) {
	if m.data == nil {
		m.data, m.content = make([]byte, readChunk), sha256.New()
	}
	m.content.Reset()
	for done < n {
		k, err := unix.Pread(fd, m.data[:min(n-done, int64(len(m.data)))], done)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return digest, done, err
		}
		if k == 0 {
			break
		}
		m.content.Write(m.data[:k])
		if out != nil && !zeros(m.data[:k]) {
			if _, err := out.WriteAt(m.data[:k], done); err != nil {
				return digest, done, err
			}
		}
		done += int64(k)
		if m.ctx.Err() != nil {
			return digest, done, context.Cause(m.ctx)
		}
	}
	if out != nil {
		if err := out.Truncate(done); err != nil {
			return digest, done, err
		}
	}
	return [sha256.Size]byte(m.content.Sum(m.digest[:0])), done, nil
}

// zeros reports whether all bytes are 0. Comparing a slice with itself, shifted by one byte, uses
// vector instructions.
func zeros(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// dress gives a private copy the attributes, mode and time of its original, and a second name if
// the original has several: copies of the private copy are then linked like the originals. It does
// not keep owners: a COPY does not use the owners of files in a context.
func (m *matching) dress(frozen *frozenFile, out *os.File, attrs []dirfd.Xattr) error {
	name := m.t.freezer.copyPath(frozen)
	for _, x := range attrs {
		err := unix.Fsetxattr(int(out.Fd()), x.Name, x.Value, 0)
		if err != nil && err != unix.ENOTSUP { // a tmpfs before Linux 6.6
			return fmt.Errorf("copy the attribute %s: %w", x.Name, err)
		}
	}
	if err := unix.Fchmod(int(out.Fd()), uint32(frozen.st.Mode)&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	if frozen.st.Nlink > 1 && frozen.st.Mode&unix.S_IFMT == unix.S_IFREG {
		if err := os.Link(name, name+".2"); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return setMtime(name, &frozen.st)
}

func setMtime(name string, st *unix.Statx_t) error {
	t := unix.Timespec{Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t},
		unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "utimensat", Path: name, Err: err}
	}
	return nil
}

// freezeDirectory keeps the mode, the time and the attributes of a directory.
func (m *matching) freezeDirectory(frozen *frozenFile, dir int, name []byte, at where) error {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return m.unreadable(at.full(), err)
	}
	defer unix.Close(fd)
	if err := dirfd.Fstat(fd, &frozen.st); err != nil {
		return fmt.Errorf("stat %q: %w", at.full(), err)
	}
	attrs, err := m.readXattrs(fd)
	if err != nil {
		return fmt.Errorf("read the attributes of %q: %w", at.full(), err)
	}
	frozen.sum = sum{}.with(attrs)
	if err := os.Mkdir(m.t.freezer.copyPath(frozen), 0o700); err != nil {
		return err
	}
	out, err := os.Open(m.t.freezer.copyPath(frozen))
	if err != nil {
		return err
	}
	defer out.Close()
	return m.dress(frozen, out, attrs)
}

// freezeLink keeps the target and the time of a link.
func (m *matching) freezeLink(frozen *frozenFile, dir int, name []byte, at where) error {
	frozen.st = m.st
	text, err := m.readlink(dir, name)
	if err == unix.EINVAL || err == unix.ENOENT {
		return errReplaced
	}
	if err != nil {
		return fmt.Errorf("read link %q: %w", at.full(), err)
	}
	frozen.text = slices.Clone(text)
	copyName := m.t.freezer.copyPath(frozen)
	if err := os.Symlink(string(text), copyName); err != nil {
		return err
	}
	return setMtime(copyName, &frozen.st)
}
