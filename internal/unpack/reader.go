package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/layerbuild/layerbuild/internal/unpack/rawfs"
)

// Types of entries, as in the type flag of a header. Others do not come out of a Reader.
const (
	TypeFile     = '0'
	TypeHardlink = '1'
	TypeSymlink  = '2'
	TypeChar     = '3'
	TypeBlock    = '4'
	TypeDir      = '5'
	TypeFifo     = '6'
)

const (
	block = 512
	// maxSpecial bounds what a header may bring in memory: a PAX header, a GNU long name.
	maxSpecial = 1 << 20
	// maxSpecials limits the total size of such headers of an entry. An entry usually has at most one of each kind, but
	// more are allowed.
	maxSpecials = 4 << 20
	// maxName bounds a name; the kernel's own limit for one call is 4096.
	maxName = 1 << 16
	// maxSegments bounds the map of a sparse file.
	maxSegments = 1 << 20
)

// ErrFormat is wrapped by errors about a stream that is no valid tar.
var ErrFormat = errors.New("not a valid tar stream")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Chunker is a stream that hands out its own buffers. Every chunk but the last has a multiple of 512 bytes, and is
// valid until the next call; io.EOF comes after the last, alone. A Reader takes its input so where it can.
type Chunker interface {
	Chunk() ([]byte, error)
}

// Header describes one entry. It and all that it refers to are valid until the next call of Next.
type Header struct {
	Name   []byte // as the stream has it
	Link   []byte
	Type   byte
	Mode   uint32 // 12 bits
	UID    uint32
	GID    uint32
	Size   int64 // of the file, holes included
	Sec    int64
	Nsec   int64
	Major  uint32
	Minor  uint32
	Xattrs []rawfs.Xattr

	stored int64     // bytes of content in the stream
	sparse []segment // where they go; nil: one after the other from 0
}

type segment struct{ offset, length int64 }

// Reader reads a tar stream: ustar, PAX, GNU and the old forms, sparse files of every kind. Unlike archive/tar it
// allocates nothing for an ordinary entry and hands content out without copying it.
type Reader struct {
	src   Chunker
	chunk []byte // not yet taken
	left  int64  // content of the current entry not yet taken
	pad   int64  // bytes after it up to a block
	h     Header
	pax   paxHeader
	name  []byte // storage for names put together
	link  []byte
	err   error

	pos    int64 // Read: place in the file
	seg    int   // Read: segment
	copied []byte
}

// NewReader reads the tar stream r, uncompressed.
func NewReader(r io.Reader) *Reader {
	if c, ok := r.(Chunker); ok {
		return &Reader{src: c}
	}
	return &Reader{src: &chunker{r: r}}
}

// chunker reads a plain stream into a buffer of its own.
type chunker struct {
	r   io.Reader
	buf []byte
	err error
}

func (c *chunker) Chunk() ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	if c.buf == nil {
		c.buf = make([]byte, 256<<10)
	}
	n, err := Fill(c.r, c.buf)
	c.err = err
	if n > 0 {
		return c.buf[:n], nil
	}
	return nil, err
}

// Fill reads until p is full or the stream ends. Unlike io.ReadFull it passes the stream's own error on, so that
// io.ErrUnexpectedEOF from a decompressor is not mistaken for a short last read.
func Fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// fill makes sure that there are bytes to take.
func (r *Reader) fill() error {
	for len(r.chunk) == 0 {
		c, err := r.src.Chunk()
		if err != nil {
			return err
		}
		r.chunk = c
	}
	return nil
}

// block takes the next 512 bytes, which are valid until the next call.
func (r *Reader) block() ([]byte, error) {
	if err := r.fill(); err != nil {
		return nil, err
	}
	if len(r.chunk) < block {
		return nil, io.ErrUnexpectedEOF
	}
	b := r.chunk[:block]
	r.chunk = r.chunk[block:]
	return b, nil
}

func (r *Reader) skip(n int64) error {
	for n > 0 {
		if err := r.fill(); err != nil {
			return truncated(err)
		}
		m := min(n, int64(len(r.chunk)))
		r.chunk = r.chunk[m:]
		n -= m
	}
	return nil
}

func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// take copies n bytes of content and the padding after it.
func (r *Reader) take(n int64, what string) ([]byte, error) {
	if n < 0 || n > maxSpecial {
		return nil, bad("%s of %d bytes", what, n)
	}
	out := make([]byte, 0, n)
	for int64(len(out)) < n {
		if err := r.fill(); err != nil {
			return nil, truncated(err)
		}
		m := min(n-int64(len(out)), int64(len(r.chunk)))
		out = append(out, r.chunk[:m]...)
		r.chunk = r.chunk[m:]
	}
	return out, r.skip(-n & (block - 1))
}

// Next goes to the next entry. At the end of the stream it returns io.EOF.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	if err != nil {
		r.err = err
		return nil, err
	}
	return h, nil
}

func (r *Reader) next() (*Header, error) {
	if err := r.skip(r.left + r.pad); err != nil {
		return nil, err
	}
	r.left, r.pad = 0, 0
	r.pax.reset()
	var longName, longLink []byte
	var specials int64
	for {
		b, err := r.header()
		if err != nil {
			return nil, err
		}
		size, err := number(b[124:136])
		if err != nil || size < 0 {
			return nil, bad("size %q", b[124:136])
		}
		if bytes.IndexByte([]byte("xXLK"), b[156]) >= 0 {
			if specials += size + block; specials > maxSpecials {
				return nil, bad("extended headers of more than %d MiB for one entry", maxSpecials>>20)
			}
		}
		switch b[156] {
		case 'x', 'X': // X: Sun's name for it
			var data []byte
			if data, err = r.take(size, "extended header"); err == nil {
				err = r.pax.parse(data)
			}
		case 'g', 'V': // defaults for all that follow (git: the commit), a volume's name: nothing that is unpacked
			err = r.skip(size + -size&(block-1))
		case 'L':
			longName, err = r.take(size, "name")
		case 'K':
			longLink, err = r.take(size, "link target")
		default:
			return r.entry(b, size, longName, longLink)
		}
		if err != nil {
			return nil, truncated(err)
		}
	}
}

var zeros [block]byte

// header takes the next header block; two blocks of zeros, or none left, are the end.
func (r *Reader) header() ([]byte, error) {
	b, err := r.block()
	if err != nil {
		return nil, err
	}
	if bytes.Equal(b, zeros[:]) {
		if b, err = r.block(); err != nil {
			return nil, err
		}
		if bytes.Equal(b, zeros[:]) {
			return nil, io.EOF
		}
		return nil, bad("a single block of zeros")
	}
	if !validChecksum(b) {
		return nil, bad("a header's checksum is wrong")
	}
	return b, nil
}

// validChecksum compares a header's checksum, which old programs took over signed bytes.
func validChecksum(b []byte) bool {
	want, err := number(b[148:156])
	if err != nil {
		return false
	}
	var unsigned, high int64
	for _, c := range b[:block] {
		unsigned += int64(c)
		high += int64(c >> 7)
	}
	for _, c := range b[148:156] {
		unsigned += ' ' - int64(c)
		high -= int64(c >> 7)
	}
	return want == unsigned || want == unsigned-256*high
}

// entry makes a Header of a header block and what came before it.
func (r *Reader) entry(b []byte, size int64, longName, longLink []byte) (*Header, error) {
	h := &r.h
	*h = Header{Type: b[156], Size: size, stored: size, Xattrs: h.Xattrs[:0]}
	r.name = append(r.name[:0], r.headerName(b)...)
	r.link = append(r.link[:0], cstring(b[157:257])...)
	h.Name, h.Link = r.name, r.link
	if err := h.numbers(b); err != nil {
		return nil, err
	}
	if longName != nil {
		h.Name = cstring(longName)
	}
	if longLink != nil {
		h.Link = cstring(longLink)
	}
	if err := r.pax.apply(h); err != nil {
		return nil, err
	}
	if err := h.classify(); err != nil {
		return nil, err
	}
	if len(h.Name) > maxName || len(h.Link) > maxName {
		return nil, bad("a name of %d bytes", max(len(h.Name), len(h.Link)))
	}
	if bytes.IndexByte(h.Name, 0) >= 0 || bytes.IndexByte(h.Link, 0) >= 0 {
		return nil, bad("name %q -> %q with a zero byte", h.Name, h.Link)
	}
	r.left, r.pad = h.stored, -h.stored&(block-1)
	r.pos, r.seg = 0, 0
	if h.Type == TypeFile {
		if err := r.sparse(b); err != nil {
			return nil, fmt.Errorf("sparse file %q: %w", h.Name, err)
		}
	}
	return h, nil
}

// headerName puts ustar's two fields together. GNU's format has other things where the prefix is.
func (r *Reader) headerName(b []byte) []byte {
	name := cstring(b[:100])
	if string(b[257:263]) != "ustar\x00" || b[345] == 0 {
		return name
	}
	prefix := cstring(b[345:500])
	if string(b[508:512]) == "tar\x00" { // star(1): times follow the shorter prefix
		prefix = cstring(b[345:476])
	}
	r.name = append(append(append(r.name[:0], prefix...), '/'), name...)
	return r.name
}

// numbers reads a header's numeric fields but the size.
func (h *Header) numbers(b []byte) error {
	field := func(b []byte, what string) (int64, error) {
		n, err := number(b)
		if err != nil {
			return 0, bad("%s %q", what, b)
		}
		return n, nil
	}
	mode, err := field(b[100:108], "mode")
	if err != nil {
		return err
	}
	h.Mode = uint32(mode) & 0o7777
	uid, err := field(b[108:116], "owner")
	if err != nil {
		return err
	}
	gid, err := field(b[116:124], "group")
	if err != nil {
		return err
	}
	if h.UID, err = id(uid); err != nil {
		return err
	}
	if h.GID, err = id(gid); err != nil {
		return err
	}
	if h.Sec, err = field(b[136:148], "time"); err != nil {
		return err
	}
	if h.Type != TypeChar && h.Type != TypeBlock {
		return nil
	}
	major, err := field(b[329:337], "device number")
	if err != nil {
		return err
	}
	minor, err := field(b[337:345], "device number")
	h.Major, h.Minor = uint32(major), uint32(minor)
	return err
}

// id takes a user or group number. Negative ones are written for what a program knew as a 32-bit number (-2: nobody);
// all ones would mean "do not change" to chown(2), and larger numbers would come out as another user's, root's even.
func id(n int64) (uint32, error) {
	if n < math.MinInt32 || n == -1 || n >= math.MaxUint32 {
		return 0, bad("user or group number %d", n)
	}
	return uint32(n), nil
}

// classify brings the type flag to one of the known.
func (h *Header) classify() error {
	switch h.Type {
	case 0, TypeFile, '7', 'S': // 7: contiguous; S: GNU sparse, its map is read later
		// Before ustar a directory was a file whose name ends in a slash.
		if len(h.Name) > 0 && h.Name[len(h.Name)-1] == '/' && h.Type != 'S' {
			h.Type = TypeDir
			break
		}
		h.Type = TypeFile
		return nil
	case TypeHardlink, TypeSymlink, TypeChar, TypeBlock, TypeDir, TypeFifo:
	default:
		return bad("%q is of unknown type %q", h.Name, h.Type)
	}
	// The size of a directory is a hint for allocation, that of a link the size of the file: no content follows
	// (pax(1p); archive/tar and GNU tar read it so).
	h.Size, h.stored = 0, 0
	return nil
}

// sparse reads the map of a sparse file, where the entry is one.
func (r *Reader) sparse(b []byte) error {
	h := &r.h
	switch {
	case b[156] == 'S':
		return r.oldSparse(append([]byte(nil), b...))
	case r.pax.sparseMajor == 1:
		return r.sparseInContent()
	case r.pax.hasMap:
		h.sparse = r.pax.segments
		return h.checkSparse(r.pax.realSize)
	}
	return nil
}

// oldSparse reads GNU's old form: four segments in the header, 21 in each block that follows.
func (r *Reader) oldSparse(b []byte) error {
	real, err := number(b[483:495])
	if err != nil {
		return bad("size %q", b[483:495])
	}
	h := &r.h
	h.sparse = []segment{}
	list, more := b[386:482], b[482] != 0
	for {
		for ; len(list) >= 24 && list[0] != 0; list = list[24:] {
			offset, err := number(list[:12])
			if err != nil {
				return bad("offset %q", list[:12])
			}
			length, err := number(list[12:24])
			if err != nil {
				return bad("length %q", list[12:24])
			}
			if h.sparse = append(h.sparse, segment{offset, length}); len(h.sparse) > maxSegments {
				return bad("too many segments")
			}
		}
		if !more {
			return h.checkSparse(real)
		}
		next, err := r.block()
		if err != nil {
			return truncated(err)
		}
		list, more = next[:504], next[504] != 0
	}
}

// sparseInContent reads GNU's PAX form 1.0: the content begins with the map, decimal numbers one a line.
func (r *Reader) sparseInContent() error {
	line := make([]byte, 0, 24)
	var b []byte
	next := func() (int64, error) {
		for line = line[:0]; ; b = b[1:] {
			if len(b) == 0 {
				if r.left < block {
					return 0, bad("the map has no end")
				}
				var err error
				if b, err = r.block(); err != nil {
					return 0, truncated(err)
				}
				r.left -= block
			}
			if b[0] == '\n' {
				b = b[1:]
				return decimal(line)
			}
			if line = append(line, b[0]); len(line) > 20 {
				return 0, bad("the map has no numbers")
			}
		}
	}
	n, err := next()
	if err != nil || n < 0 || n > maxSegments {
		return bad("%d segments: %v", n, err)
	}
	h := &r.h
	h.sparse = []segment{}
	for range n {
		var s segment
		if s.offset, err = next(); err != nil {
			return err
		}
		if s.length, err = next(); err != nil {
			return err
		}
		h.sparse = append(h.sparse, s)
	}
	h.stored = r.left
	return h.checkSparse(r.pax.realSize)
}

// checkSparse accepts a map whose segments come in order, lie inside the file, and hold just what is stored.
func (h *Header) checkSparse(real int64) error {
	var end, sum int64
	for _, s := range h.sparse {
		if s.offset < end || s.length < 0 || s.length > real || s.offset > real-s.length {
			return bad("segment %d+%d of %d", s.offset, s.length, real)
		}
		end = s.offset + s.length
		sum += s.length
	}
	if sum != h.stored || real < 0 {
		return bad("segments of %d bytes, %d stored", sum, h.stored)
	}
	h.Size = real
	return nil
}

// content hands out the next piece of what is stored for the current entry, without copying; io.EOF after the last.
func (r *Reader) content(most int64) ([]byte, error) {
	if r.left == 0 {
		return nil, io.EOF
	}
	if err := r.fill(); err != nil {
		return nil, truncated(err)
	}
	n := min(r.left, int64(len(r.chunk)), most)
	b := r.chunk[:n]
	r.chunk = r.chunk[n:]
	r.left -= n
	return b, nil
}

// Data returns the next piece of the current entry's content that the stream holds, and where in the file it begins. It
// leaves out the holes of a sparse file. The piece is valid until the next call. The error is io.EOF after the last piece.
// Data and Read are not both called for one entry.
func (r *Reader) Data() (offset int64, b []byte, err error) {
	h := &r.h
	if r.err != nil {
		return 0, nil, r.err
	}
	most := int64(math.MaxInt64)
	if h.sparse != nil {
		for r.seg < len(h.sparse) && r.pos >= h.sparse[r.seg].offset+h.sparse[r.seg].length {
			r.seg++
		}
		if r.seg == len(h.sparse) {
			return 0, nil, io.EOF
		}
		s := h.sparse[r.seg]
		r.pos = max(r.pos, s.offset)
		most = s.offset + s.length - r.pos
	}
	offset = r.pos
	b, err = r.content(most)
	if err != nil && err != io.EOF {
		r.err = err
	}
	r.pos += int64(len(b))
	return offset, b, err
}

// Read reads the current entry's content, holes as zeros.
func (r *Reader) Read(p []byte) (int, error) {
	h := &r.h
	if r.err != nil {
		return 0, r.err
	}
	if h.sparse == nil {
		return r.readStored(p)
	}
	for r.seg < len(h.sparse) && r.pos >= h.sparse[r.seg].offset+h.sparse[r.seg].length {
		r.seg++
	}
	hole := h.Size - r.pos
	if r.seg < len(h.sparse) {
		s := h.sparse[r.seg]
		if r.pos >= s.offset {
			n, err := r.readStored(p[:min(int64(len(p)), s.offset+s.length-r.pos)])
			r.pos += int64(n)
			return n, err
		}
		hole = s.offset - r.pos
	}
	if hole == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), hole)
	clear(p[:n])
	r.pos += n
	return int(n), nil
}

func (r *Reader) readStored(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := r.content(int64(len(p)))
	if err != nil {
		if err != io.EOF {
			r.err = err
		}
		return 0, err
	}
	return copy(p, b), nil
}

func cstring(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// number reads a numeric field: octal digits, or a binary number marked by its first bit (GNU, star).
func number(b []byte) (int64, error) {
	if b[0]&0x80 != 0 {
		return binaryNumber(b)
	}
	b = bytes.Trim(cstring(bytes.TrimLeft(b, " \x00")), " ")
	if len(b) == 0 {
		return 0, nil
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '7' || n > math.MaxInt64>>3 {
			return 0, ErrFormat
		}
		n = n<<3 | int64(c-'0')
	}
	return n, nil
}

// binaryNumber reads a number in two's complement, whose top bit is the mark.
func binaryNumber(b []byte) (int64, error) {
	var invert byte
	if b[0]&0x40 != 0 {
		invert = 0xff
	}
	var n uint64
	for i, c := range b {
		c ^= invert
		if i == 0 {
			c &= 0x7f
		}
		if n>>55 != 0 {
			return 0, ErrFormat
		}
		n = n<<8 | uint64(c)
	}
	if n > math.MaxInt64 {
		return 0, ErrFormat
	}
	if invert == 0xff {
		return ^int64(n), nil
	}
	return int64(n), nil
}

func decimal(b []byte) (int64, error) {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0, bad("number %q", b)
	}
	return n, nil
}

// IsTar says whether head, the first 512 bytes of something, begin a tar stream.
func IsTar(head []byte) bool {
	return len(head) >= block && !bytes.Equal(head[:block], zeros[:]) && validChecksum(head[:block])
}
