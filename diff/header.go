package diff

import (
	"bytes"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

const block = 512

// tarWriter writes a tar stream in chunks whose sizes are multiples of 512, so that a header is
// never in two chunks. Headers are plain ustar. PAX records precede one only for values that ustar
// cannot represent (pax(1p), "ustar Interchange Format" and "pax Interchange Format"). For 10,000
// small files it takes 6 ms and archive/tar 27 (BenchmarkTarWriter).
type tarWriter struct {
	chunk []byte // the chunk that is being filled
	n     int    // number of bytes in it
	size  int64  // bytes in chunks that were flushed
	// flush consumes a full chunk, or the last one, and returns the next chunk to fill.
	flush  func(full []byte) (next []byte, err error)
	failed bool // flush has returned an error
	pax    []byte
	paxed  [100]byte
	count  int
	table  func(Entry)
}

// header describes an entry to write.
type header struct {
	// without a leading slash; a directory's without a trailing one; "." for the root
	name       []byte
	kind       byte
	mode       uint32
	uid, gid   uint32
	size, sec  int64
	link       []byte
	maj, minor uint32
	xattrs     []dirfd.Xattr
}

// space returns the unused part of the chunk: at least one byte, and at least one block at the
// beginning of a block.
func (t *tarWriter) space() ([]byte, error) {
	if t.n == len(t.chunk) {
		t.size += int64(t.n)
		next, err := t.flush(t.chunk)
		if err != nil {
			t.failed = true
			return nil, err
		}
		t.chunk, t.n = next, 0
	}
	return t.chunk[t.n:], nil
}

// block returns the next block, zeroed.
func (t *tarWriter) block() ([]byte, error) {
	b, err := t.space()
	if err != nil {
		return nil, err
	}
	t.n += block
	b = b[:block]
	clear(b)
	return b, nil
}

// pad fills the last block with zeros.
func (t *tarWriter) pad() {
	n := -t.n & (block - 1)
	clear(t.chunk[t.n : t.n+n])
	t.n += n
}

// zeros writes n zeros.
func (t *tarWriter) zeros(n int64) error {
	for n > 0 {
		b, err := t.space()
		if err != nil {
			return err
		}
		b = b[:min(n, int64(len(b)))]
		clear(b)
		t.n += len(b)
		n -= int64(len(b))
	}
	return nil
}

func (t *tarWriter) bytes(p []byte) error {
	for len(p) > 0 {
		b, err := t.space()
		if err != nil {
			return err
		}
		n := copy(b, p)
		t.n += n
		p = p[n:]
	}
	return nil
}

// end writes the end-of-archive mark and flushes the last chunk.
func (t *tarWriter) end() error {
	if err := t.zeros(2 * block); err != nil {
		return err
	}
	t.size += int64(t.n)
	_, err := t.flush(t.chunk[:t.n])
	t.chunk, t.n = nil, 0
	return err
}

// Largest values of fields of octal digits.
const (
	maxID   = 1<<21 - 1
	maxOct  = 1<<33 - 1
	maxName = 100
)

// header writes an entry's header. The caller writes the content.
func (t *tarWriter) header(h *header) error {
	name, prefix, fits := fit(h.name, h.kind)
	t.records(h, fits)
	if len(t.pax) > 0 {
		if err := t.writePAX(h); err != nil {
			return err
		}
	}
	b, err := t.block()
	if err != nil {
		return err
	}
	copy(b, name)
	if h.kind == unpack.TypeDir {
		b[min(len(name), maxName-1)] = '/'
	}
	copy(b[345:500], prefix)
	copy(b[157:257], h.link)
	octal(b[100:107], int64(h.mode))
	octal(b[108:115], limited(int64(h.uid), maxID))
	octal(b[116:123], limited(int64(h.gid), maxID))
	octal(b[124:135], limited(h.size, maxOct))
	octal(b[136:147], limited(h.sec, maxOct))
	octal(b[329:336], int64(h.maj))
	octal(b[337:344], int64(h.minor))
	finish(b, h.kind)
	t.count++
	if t.table != nil {
		t.table(h.entry())
	}
	return nil
}

// finish completes a header block: type, format, checksum.
func finish(b []byte, kind byte) {
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	copy(b[148:156], "        ")
	sum := int64(0)
	for _, c := range b[:block] {
		sum += int64(c)
	}
	octal(b[148:154], sum)
	b[154] = 0
}

// limited returns n, or 0 if the field cannot hold n, in which case a PAX record has the value.
func limited(n, most int64) int64 {
	if n < 0 || n > most {
		return 0
	}
	return n
}

func octal(b []byte, n int64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n&7)
		n >>= 3
	}
}

// fit splits a name into ustar's two fields, at a slash. If the name does not fit it is cut, and a
// PAX record has the whole name.
func fit(full []byte, kind byte) (name, prefix []byte, ok bool) {
	most := maxName
	if kind == unpack.TypeDir {
		most-- // its slash
	}
	if len(full) <= most {
		return full, nil, true
	}
	// Use the shortest prefix for which the rest fits.
	for i := len(full) - most - 1; i <= 155 && i < len(full)-1; i++ {
		if full[i] == '/' && i > 0 {
			return full[i+1:], full[:i], true
		}
	}
	return full[:most], nil, false
}

// records collects the PAX records that an entry needs, sorted by key.
func (t *tarWriter) records(h *header, nameFits bool) {
	t.pax = t.pax[:0]
	for _, x := range h.xattrs {
		t.record("SCHILY.xattr."+x.Name, x.Value, nil)
	}
	num := func(key string, n, most int64) {
		if n < 0 || n > most {
			t.record(key, strconv.AppendInt(nil, n, 10), nil)
		}
	}
	num("gid", int64(h.gid), maxID)
	if len(h.link) > maxName {
		t.record("linkpath", h.link, nil)
	}
	num("mtime", h.sec, maxOct)
	if !nameFits {
		var slash []byte
		if h.kind == unpack.TypeDir {
			slash = []byte("/")
		}
		t.record("path", h.name, slash)
	}
	num("size", h.size, maxOct)
	num("uid", int64(h.uid), maxID)
}

// record appends "LENGTH KEY=VALUE\n", where LENGTH counts itself.
func (t *tarWriter) record(key string, value, more []byte) {
	n := len(key) + len(value) + len(more) + 3
	size := n + len(strconv.Itoa(n))
	size = n + len(strconv.Itoa(size))
	t.pax = strconv.AppendInt(t.pax, int64(size), 10)
	t.pax = append(append(append(t.pax, ' '), key...), '=')
	t.pax = append(append(append(t.pax, value...), more...), '\n')
}

// writePAX writes an extended header. Programs that do not know PAX show it as a file with its
// name.
func (t *tarWriter) writePAX(h *header) error {
	b, err := t.block()
	if err != nil {
		return err
	}
	base := h.name[bytes.LastIndexByte(h.name, '/')+1:]
	name := append(append(t.paxed[:0], "PaxHeaders.0/"...),
		base[:min(len(base), maxName-len("PaxHeaders.0/"))]...)
	for !utf8.Valid(name) && utf8.Valid(base) { // do not cut a character
		name = name[:len(name)-1]
	}
	copy(b, name)
	octal(b[100:107], 0o644)
	octal(b[108:115], 0)
	octal(b[116:123], 0)
	octal(b[124:135], int64(len(t.pax)))
	octal(b[136:147], 0)
	octal(b[329:336], 0)
	octal(b[337:344], 0)
	finish(b, 'x')
	if err := t.bytes(t.pax); err != nil {
		return err
	}
	t.pad()
	return nil
}

func (h *header) entry() Entry {
	e := Entry{
		Path: string(h.name), Type: h.kind, Mode: h.mode, UID: int(h.uid),
		GID: int(h.gid), Size: h.size,
		ModTime: time.Unix(h.sec, 0), Link: string(h.link), Major: h.maj, Minor: h.minor,
	}
	for _, x := range h.xattrs {
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[x.Name] = string(x.Value)
	}
	return e
}

func sameXattrs(a, b []dirfd.Xattr) bool {
	return slices.EqualFunc(a, b, func(a, b dirfd.Xattr) bool {
		return a.Name == b.Name && bytes.Equal(a.Value, b.Value)
	})
}
