package export

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
)

const (
	tarBlock = 512
	// Contents of at least alignedSize bytes begin at a multiple of fsBlock, the block size of the
	// file systems that can share blocks between files (btrfs, XFS). The padding costs at most
	// 4,608 bytes, 0.5 % of such a file.
	alignedSize = 1 << 20
	fsBlock     = 4096
)

// tarFile writes a tar whose contents can be copied by the kernel. archive/tar.Writer encodes the
// headers, but copies the contents through the program.
type tarFile struct {
	w   io.Writer
	buf *bufio.Writer // in front of w; empty while the contents of a file are written
	pos int64
}

func newTarFile(w io.Writer) *tarFile {
	return &tarFile{w: w, buf: bufio.NewWriterSize(w, 64<<10)}
}

// Write writes a part of a header.
func (t *tarFile) Write(p []byte) (int, error) {
	n, err := t.buf.Write(p)
	t.pos += int64(n)
	return n, err
}

// header writes the header of an entry, and moves the end of a large file's header to a multiple
// of fsBlock.
func (t *tarFile) header(h *tar.Header) error {
	head, err := encode(h)
	if err != nil {
		return err
	}
	if end := (t.pos + int64(len(head))) % fsBlock; end != 0 && h.Size >= alignedSize {
		padded := *h
		padded.PAXRecords = map[string]string{"comment": padding(fsBlock-int(end), len(head))}
		if head, err = encode(&padded); err != nil {
			return err
		}
	}
	_, err = t.Write(head)
	return err
}

func encode(h *tar.Header) ([]byte, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(h)
	return b.Bytes(), err
}

// padding returns the value of a PAX record that makes a header of size bytes longer by n bytes, a
// multiple of tarBlock, or by n + fsBlock bytes. Readers ignore the record (POSIX.1-2017, pax,
// "comment").
func padding(n, size int) string {
	record := n
	if size == tarBlock { // the extended header that contains the record has a header of its own
		if n == tarBlock {
			n += fsBlock
		}
		record = n - tarBlock
	}
	// A record is its own length, a space, "comment=", the value and a newline.
	return strings.Repeat(" ", record-len(fmt.Sprintf("%d comment=\n", record)))
}

// file writes an entry with contents. content writes exactly h.Size bytes.
func (t *tarFile) file(h *tar.Header, content func(io.Writer) error) error {
	if err := t.header(h); err != nil {
		return err
	}
	to := io.Writer(t.buf)
	if h.Size >= alignedSize {
		// Without the buffer, so that content finds a file.
		if err := t.buf.Flush(); err != nil {
			return err
		}
		to = t.w
	}
	if err := content(to); err != nil {
		return err
	}
	t.pos += h.Size
	if rest := h.Size % tarBlock; rest > 0 {
		_, err := t.Write(make([]byte, tarBlock-rest))
		return err
	}
	return nil
}

// close writes the end of the tar. It does not close the file.
func (t *tarFile) close() error {
	if err := tar.NewWriter(t).Close(); err != nil {
		return err
	}
	return t.buf.Flush()
}
