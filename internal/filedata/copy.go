package filedata

import (
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// Copier copies the contents of files in the cheapest way that the two file systems support: it
// shares the blocks, or copies in the kernel (copy_file_range(2)), or reads and writes. It
// remembers which of these work, so that a Copier is for files of the same two file systems. It is
// not safe for concurrent use.
type Copier struct {
	// Small is the size below which files are only read and written, without regard to holes. For
	// small files that is cheaper than to try the other ways.
	Small int64
	// Ended returns the reason to stop, or nil. It is called between pieces of a file. nil: copies
	// do not stop.
	Ended func() error

	clone, ranged ability
	buf           []byte
}

// ability records whether the file systems support a way to copy.
type ability int

const (
	untried ability = iota
	works
	fails
)

// failed records a failure. If the way has worked before, the failure concerns only one file.
func (a *ability) failed() {
	if *a == untried {
		*a = fails
	}
}

// The number of bytes that are copied between calls of Ended: in the kernel, and by read and write.
const (
	rangeSize  = 64 << 20
	bufferSize = 256 << 10
)

// Copy copies size bytes, or fewer if in ends first. It begins at the offsets of the files, which
// must be 0. blocks is the number of blocks of in, as in stat(2). Errors are bare errno values, or
// that of Ended.
func (c *Copier) Copy(in, out int, size, blocks int64) error {
	if size == 0 {
		return nil
	}
	if size < c.Small {
		return c.piece(in, out, size)
	}
	if c.clone != fails {
		if err := unix.IoctlFileClone(out, in); err == nil {
			c.clone = works
			return nil
		}
		c.clone.failed()
	}
	if blocks*512 < size {
		return c.sparse(in, out, size)
	}
	return c.piece(in, out, size)
}

func (c *Copier) ended() error {
	if c.Ended == nil {
		return nil
	}
	return c.Ended()
}

// piece copies n bytes at the offsets of the files, or fewer if in ends first.
func (c *Copier) piece(in, out int, n int64) error {
	for n > 0 && n >= c.Small && c.ranged != fails {
		if err := c.ended(); err != nil {
			return err
		}
		m, err := unix.CopyFileRange(in, nil, out, nil, int(min(n, rangeSize)), 0)
		if err == unix.EINTR {
			continue
		}
		// The errors differ between file systems and kernels. The rest is read and written, which
		// returns the actual error.
		if err != nil {
			c.ranged.failed()
		}
		if err != nil || m == 0 {
			break
		}
		c.ranged = works
		n -= int64(m)
	}
	if n > 0 && c.buf == nil {
		c.buf = make([]byte, bufferSize)
	}
	for n > 0 {
		if err := c.ended(); err != nil {
			return err
		}
		m, err := dirfd.Read(in, c.buf[:min(n, bufferSize)])
		if err != nil {
			return err
		}
		if m == 0 {
			return nil
		}
		if err := dirfd.Write(out, c.buf[:m]); err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

// sparse copies the data between holes.
func (c *Copier) sparse(in, out int, size int64) error {
	for at := int64(0); at < size; {
		data, end, err := dirfd.NextData(in, at, size)
		if err != nil {
			return err
		}
		for _, fd := range []int{in, out} {
			if _, err := unix.Seek(fd, data, unix.SEEK_SET); err != nil {
				return err
			}
		}
		if err := c.piece(in, out, end-data); err != nil {
			return err
		}
		at = end
	}
	return unix.Ftruncate(out, size)
}
