package analyze

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math"
	"path"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/unpack"
)

// Scan returns the table of a layer. It reads r, with any or no compression, once and to its
// end, and hashes every file on the way.
func Scan(ctx context.Context, r io.Reader) (*Table, error) {
	z, _, err := unpack.Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	defer z.Close()
	a := unpack.ReadAhead(ctx, z, unpack.AheadOptions{})
	defer a.Stop()
	s := scanner{r: unpack.NewReader(a), hash: sha256.New(), buf: make([]byte, 128<<10)}
	if err := s.scan(); err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	if err := a.Drain(); err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	s.w.table.Tar = a.Size
	return &s.w.table, nil
}

type scanner struct {
	r     *unpack.Reader
	w     tableWriter
	e     Entry
	hash  hash.Hash
	buf   []byte
	attrs []string
}

func (s *scanner) scan() error {
	for {
		h, err := s.r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.entry(h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

var types = map[byte]Type{
	unpack.TypeFile: Regular, unpack.TypeHardlink: Regular, unpack.TypeSymlink: Symlink,
	unpack.TypeChar:  Device,
	unpack.TypeBlock: Device, unpack.TypeDir: Dir, unpack.TypeFifo: Fifo,
}

func (s *scanner) entry(h *unpack.Header) error {
	e := &s.e
	*e = Entry{Path: unpack.CleanName(h.Name)}
	if handled, err := s.mark(); handled || err != nil {
		return err
	}
	e.Type, e.Hardlink = types[h.Type], h.Type == unpack.TypeHardlink
	e.Mode, e.UID, e.GID, e.Time = uint16(h.Mode), h.UID, h.GID, nanoseconds(h.Sec, h.Nsec)
	switch {
	case e.Hardlink:
		e.Link = unpack.CleanName(h.Link)
	case e.Type == Symlink:
		e.Link = string(h.Link)
	case e.Type == Device:
		e.Link = fmt.Sprintf("%c%d,%d", h.Type, h.Major, h.Minor)
	case e.Type == Regular:
		e.Size = h.Size
		if err := s.content(e); err != nil {
			return err
		}
	}
	if len(h.Xattrs) > 0 {
		s.attrs = s.attrs[:0]
		for _, x := range h.Xattrs {
			s.attrs = append(s.attrs, x.Name+"="+string(x.Value))
		}
		e.Xattrs = xattrs(s.attrs)
	}
	s.w.add(e)
	return nil
}

// largeFile is the size from which a file's Content is a hash of the blocks that are not all zero.
// The holes of a sparse file then cost nothing: a file of a tebibyte fits into a layer of some
// hundred bytes.
const largeFile = 64 << 20

// content computes e.Content.
func (s *scanner) content(e *Entry) error {
	s.hash.Reset()
	var err error
	if e.Size > largeFile {
		err = s.nonzero()
	} else {
		_, err = io.CopyBuffer(s.hash, onlyReader{s.r}, s.buf)
	}
	if err != nil {
		return err
	}
	var sum [sha256.Size]byte
	s.hash.Sum(sum[:0])
	copy(e.Content[:], sum[:])
	return nil
}

// zeroBlock is the size of the blocks that are skipped in the hash of a large file if they are
// all zero.
const zeroBlock = 4096

var zeros [zeroBlock]byte

// nonzero hashes each block of the current file that is not all zero, after the block's number. The
// result does not depend on whether the tar contains zeros or omits them as holes.
func (s *scanner) nonzero() error {
	part := s.buf[:zeroBlock] // a block that arrives in several pieces
	at := int64(-1)           // its number; -1: none
	add := func(n int64, b []byte) {
		if bytes.Equal(b, zeros[:]) {
			return
		}
		var number [8]byte
		binary.BigEndian.PutUint64(number[:], uint64(n))
		s.hash.Write(number[:])
		s.hash.Write(b)
	}
	for {
		offset, b, err := s.r.Data()
		if err != nil && err != io.EOF {
			return err
		}
		for len(b) > 0 {
			n, from := offset/zeroBlock, offset%zeroBlock
			if at >= 0 && at != n {
				add(at, part)
				at = -1
			}
			size := min(zeroBlock-from, int64(len(b)))
			switch {
			case size == zeroBlock:
				add(n, b[:size])
			default:
				if at < 0 {
					clear(part)
					at = n
				}
				copy(part[from:], b[:size])
			}
			b, offset = b[size:], offset+size
		}
		if err == io.EOF {
			if at >= 0 {
				add(at, part)
			}
			return nil
		}
	}
}

type onlyReader struct{ io.Reader }

// mark handles the names that have a special meaning in a layer (OCI image spec v1.1.1,
// layer.md, "Whiteouts").
func (s *scanner) mark() (handled bool, err error) {
	e := &s.e
	if !strings.Contains(e.Path, unpack.WhiteoutPrefix) {
		return false, nil
	}
	dir, base := path.Split(e.Path)
	for part := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		if strings.HasPrefix(part, ".wh..wh.") {
			return true, nil // internal data of aufs
		}
		if strings.HasPrefix(part, unpack.WhiteoutPrefix) {
			return true, fmt.Errorf("%w: a name below a whiteout", unpack.ErrFormat)
		}
	}
	name, ok := strings.CutPrefix(base, unpack.WhiteoutPrefix)
	switch {
	case !ok:
		return false, nil
	case base == unpack.OpaqueName:
		e.Path, e.Type, e.Opaque = cleanDir(dir), Dir, true
	case strings.HasPrefix(base, ".wh..wh."):
		return true, nil
	case name == "" || name == "." || name == "..":
		return true, fmt.Errorf("%w: a whiteout of %q", unpack.ErrFormat, name)
	default:
		e.Path, e.Type = dir+name, Gone
	}
	s.w.add(e)
	return true, nil
}

func cleanDir(dir string) string {
	if dir = strings.TrimSuffix(dir, "/"); dir == "" {
		return "."
	}
	return dir
}

func nanoseconds(sec, nsec int64) int64 {
	if sec > math.MaxInt64/int64(time.Second)-1 || sec < math.MinInt64/int64(time.Second)+1 {
		sec, nsec = 0, 0 // a time that no file system can hold
	}
	return sec*int64(time.Second) + nsec
}
