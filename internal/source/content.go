package source

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/fileentry"
)

// The digest of a Match is the digest of a stream of records. Each record begins with a letter, so
// that different matches never have the same stream. The letters are part of the format: changing
// them changes all cache keys.
const (
	tagContents = 'C' // an item that is the contents of a directory
	tagItem     = 'I' // an item that is one file
	tagDir      = 'd'
	tagFile     = 'f'
	tagHardLink = 'h' // another name of an earlier file
	tagSymlink  = 'l'
	tagFifo     = 'p'
	tagChar     = 'c'
	tagBlock    = 'b'
)

// where returns the path of the current file, for errors. The path is built only when full is
// called.
type where interface{ full() string }

func (m *matching) full() string { return m.one }

// appendHead begins a record of the file that m.st describes.
func (m *matching) appendHead(b []byte, tag byte, rel []byte) []byte {
	b = append(b, tag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(rel)))
	b = append(b, rel...)
	mode := uint32(m.st.Mode) & 0o7777
	if tag == tagSymlink {
		mode = 0o777
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(mode))
	if m.keep {
		b = binary.LittleEndian.AppendUint32(b, m.st.Uid)
		b = binary.LittleEndian.AppendUint32(b, m.st.Gid)
	}
	return m.appendTime(b)
}

// appendTime appends the time of the file that m.st describes, if times are part of the digest.
func (m *matching) appendTime(b []byte) []byte {
	if m.epoch == nil {
		return b
	}
	at := int64(math.MaxInt64) // later than the epoch: becomes the epoch
	if m.st.Mtime.Sec < *m.epoch {
		at = m.st.Mtime.Sec
	}
	return binary.LittleEndian.AppendUint64(b, uint64(at))
}

func (m *matching) appendDirectory(b []byte, rel []byte, x sum) []byte {
	return appendSum(m.appendHead(b, tagDir, rel), x)
}

func appendSum(b []byte, s sum) []byte {
	flag := byte(0)
	if s.xattrs {
		flag = 1
	}
	return append(append(b, flag), s.digest[:]...)
}

// begin begins the record of an item.
func (m *matching) begin(tag byte, target string) {
	m.rec = appendItem(m.rec, tag, target)
	m.flushFull()
}

func appendItem(b []byte, tag byte, target string) []byte {
	b = append(b, tag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(target)))
	return append(b, target...)
}

func (m *matching) flushFull() {
	if len(m.rec) >= recordChunk {
		m.flush()
	}
}

func (m *matching) flush() {
	m.hash.Write(m.rec)
	m.rec = m.rec[:0]
}

// entry writes the record of the file that m.st describes, which is not a directory, and returns
// its entry without the path. It returns errReplaced if the name refers to another file by now.
func (m *matching) entry(dir int, name []byte, rel []byte, at where) (fileentry.Entry, error) {
	frozen, err := m.frozen(dir, name, at)
	if err != nil {
		return fileentry.Entry{}, err
	}
	attrs, begin := false, len(m.rec)
	switch m.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		var s sum
		if frozen != nil {
			s = frozen.sum
		} else if s, frozen, err = m.fileSum(dir, name, at); err != nil {
			return fileentry.Entry{}, err
		}
		m.file(rel, s, frozen)
		attrs = s.xattrs
	case unix.S_IFLNK:
		var text []byte
		if frozen != nil {
			text = frozen.text
		} else if text, err = m.readlink(dir, name); err == unix.EINVAL || err == unix.ENOENT {
			return fileentry.Entry{}, errReplaced
		} else if err != nil {
			return fileentry.Entry{}, fmt.Errorf("read link %q: %w", at.full(), err)
		}
		m.rec = m.appendHead(m.rec, tagSymlink, rel)
		m.rec = binary.LittleEndian.AppendUint32(m.rec, uint32(len(text)))
		m.rec = append(m.rec, text...)
	case unix.S_IFIFO:
		m.rec = m.appendHead(m.rec, tagFifo, rel)
	case unix.S_IFCHR, unix.S_IFBLK:
		tag := byte(tagChar)
		if m.st.Mode&unix.S_IFMT == unix.S_IFBLK {
			tag = tagBlock
		}
		m.rec = m.appendHead(m.rec, tag, rel)
		m.rec = binary.LittleEndian.AppendUint32(m.rec, m.st.Rdev_major)
		m.rec = binary.LittleEndian.AppendUint32(m.rec, m.st.Rdev_minor)
	default:
		return fileentry.Entry{}, fmt.Errorf("%q is of a type that cannot be copied (mode %o)",
			at.full(), m.st.Mode)
	}
	e := m.described(frozen, attrs, m.rec[begin:])
	m.flushFull()
	return e, nil
}

// described returns the entry, without its path, of the file that m.st describes. frozen is its
// private copy, or nil. record has the bytes that the digest covers of it.
func (m *matching) described(frozen *frozenFile, attrs bool, record []byte) fileentry.Entry {
	e := fileentry.FromStatx(&m.st)
	e.Attrs, e.Sum = attrs, checksum(record)
	switch {
	case frozen != nil:
		e.CtimeNs, e.Ino, e.Frozen = 0, 0, frozen.name
	case m.t.index.trust:
		e.CtimeNs, e.Ino = 0, 0
	case e.Ino != 0 && !m.t.index.trusts(&m.st):
		e.Ino = 0
	}
	return e
}

// checksum returns the FNV-1a checksum of a record. It costs a tenth of a digest, for each file of
// each build.
func checksum(record []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range record {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return max(h, 1) // 0: unknown
}

// linked identifies a file with several names. Two names are copied as links of each other only if
// they have the same private copy, or both have none.
type linked struct {
	dev, ino uint64
	frozen   *frozenFile
}

// file writes the record of a regular file. frozen is its private copy, or nil.
func (m *matching) file(rel []byte, s sum, frozen *frozenFile) {
	m.out.Files++
	m.out.Bytes += int64(m.st.Size)
	if m.st.Nlink > 1 {
		id := linked{dirfd.Dev(&m.st), m.st.Ino, frozen}
		if first, ok := m.links[id]; ok {
			m.rec = m.appendHead(m.rec, tagHardLink, rel)
			m.rec = binary.LittleEndian.AppendUint64(m.rec, first)
			return
		}
		m.links[id] = uint64(m.out.Files)
	}
	m.rec = appendSum(m.appendHead(m.rec, tagFile, rel), s)
}

// fileSum returns the digest of a regular file, from the index or by reading it. It sets m.st to
// the result of fstat(2); if the mask of m.st is empty, stat has not been called yet. A file that
// changes while it is read gets a private copy.
func (m *matching) fileSum(dir int, name []byte, at where) (sum, *frozenFile, error) {
	if m.list {
		return sum{}, nil, nil
	}
	asked := m.st.Mask != 0
	if asked {
		m.t.index.learn(&m.st, dir, name)
		if s, ok := m.t.index.lookup(&m.st); ok {
			return s, nil, nil
		}
	}
	// The name may have been replaced by a fifo since it was found: opening a fifo must not wait
	// for a writer.
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return sum{}, nil, m.unreadable(at.full(), err)
	}
	defer unix.Close(fd)
	for range 2 {
		began := time.Now()
		s, n, err := m.read(fd, asked)
		// the file was replaced by a directory, or by a fifo without a writer
		if err == unix.EISDIR || err == unix.EAGAIN {
			return sum{}, nil, errReplaced
		}
		if err != nil {
			return sum{}, nil, fmt.Errorf("read %q: %w", at.full(), err)
		}
		before := m.st
		if err := dirfd.Fstat(fd, &m.st); err != nil {
			return sum{}, nil, fmt.Errorf("stat %q: %w", at.full(), err)
		}
		if m.st.Mode&unix.S_IFMT != unix.S_IFREG {
			return sum{}, nil, errReplaced
		}
		m.t.index.learn(&m.st, fd, dirfd.Empty)
		same := asked && sameFile(&before, &m.st) || !asked && m.t.index.unchanged(&m.st, began)
		if same && n == m.st.Size {
			m.t.index.add(&m.st, began, s)
			return s, nil, nil
		}
		if asked {
			break
		}
		// The file's ctime is too recent to show a change since the reading began: read it again
		// between two calls of stat.
		asked = true
		if _, err := unix.Seek(fd, 0, 0); err != nil {
			return sum{}, nil, fmt.Errorf("read %q: %w", at.full(), err)
		}
	}
	frozen, err := m.freeze(dir, name, at)
	if err != nil {
		return sum{}, nil, err
	}
	return frozen.sum, frozen, nil
}

// sameFile reports whether a file is unchanged between two calls of stat(2).
func sameFile(a, b *unix.Statx_t) bool {
	return a.Ino == b.Ino && dirfd.Dev(a) == dirfd.Dev(b) && a.Size == b.Size && a.Mode == b.Mode &&
		a.Mtime == b.Mtime && a.Ctime == b.Ctime
}

// directorySum returns the digest of the extended attributes of an open directory, which m.st
// describes.
func (m *matching) directorySum(fd int, at where) (sum, error) {
	began := time.Now()
	if m.list {
		return sum{}, nil
	}
	m.t.index.learn(&m.st, fd, dirfd.Empty)
	if s, ok := m.t.index.lookup(&m.st); ok {
		return s, nil
	}
	s, err := m.xattrs(fd, sum{})
	if err != nil {
		return sum{}, fmt.Errorf("read the attributes of %q: %w", at.full(), err)
	}
	m.t.index.add(&m.st, began, s)
	return s, nil
}

// read reads a file to its end and returns its digest and length. If m.st describes this file
// (asked), a read that returns fewer bytes than its size is not treated as the end.
func (m *matching) read(fd int, asked bool) (s sum, length uint64, err error) {
	if m.data == nil {
		m.data, m.content = make([]byte, readChunk), sha256.New()
	}
	m.content.Reset()
	for {
		n, err := unix.Read(fd, m.data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return sum{}, 0, err
		}
		m.content.Write(m.data[:n])
		length += uint64(n)
		if n == 0 || n < len(m.data) && (!asked || length == m.st.Size) {
			break
		}
		if m.ctx.Err() != nil {
			return sum{}, 0, context.Cause(m.ctx)
		}
	}
	s.digest = [sha256.Size]byte(m.content.Sum(m.digest[:0]))
	s, err = m.xattrs(fd, s)
	return s, length, err
}

// readlink returns the target of a link. It is valid until the next call.
func (m *matching) readlink(dir int, name []byte) ([]byte, error) {
	n, err := dirfd.Readlink(dir, name, m.text[:])
	return m.text[:max(n, 0)], err
}

// xattrs adds those extended attributes of an open file to its digest that are copied.
func (m *matching) xattrs(fd int, s sum) (sum, error) {
	list, err := m.readXattrs(fd)
	return s.with(list), err
}

// readXattrs returns those extended attributes of an open file that are copied, sorted by name.
func (m *matching) readXattrs(fd int) ([]dirfd.Xattr, error) {
	return dirfd.Xattrs(fd, func(name []byte) bool { return KeepXattr(string(name)) })
}

// with adds extended attributes to a digest.
func (s sum) with(list []dirfd.Xattr) sum {
	if len(list) == 0 {
		return s
	}
	b := append([]byte("content and attributes\x00"), s.digest[:]...)
	for _, x := range list {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(x.Name)))
		b = append(b, x.Name...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(x.Value)))
		b = append(b, x.Value...)
	}
	return sum{digest: sha256.Sum256(b), xattrs: true}
}

// unreadable returns the error for a file that cannot be read: errReplaced if the name refers to
// another file by now.
func (m *matching) unreadable(name string, err error) error {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf(
			"read %q: %w (make it readable, or name it in %s if the image does not need it)", name,
			err, m.t.ignoreName)
	}
	// The name is a link (ELOOP), a socket or a device without a driver (ENXIO), or missing.
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT) ||
		errors.Is(err, unix.ENOTDIR) {
		return errReplaced
	}
	return fmt.Errorf("read %q: %w", name, err)
}
