package export

import (
	"archive/tar"
	"bufio"
	"bytes"
	"io"
	"strings"
)

const (
	tarBlock = 512
	// Contents of at least alignedSize bytes begin at a multiple of fsBlock, the block size of the
	// file systems that can share blocks between files (btrfs, XFS). The padding is at most 0.9 %
	// of such a file.
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
	if h.Size >= alignedSize && (t.pos+int64(len(head)))%fsBlock != 0 {
		if head, err = t.aligned(h); err != nil {
			return err
		}
	}
	_, err = t.Write(head)
	return err
}

// aligned returns a header with a comment, a PAX record that readers ignore (POSIX.1-2017, pax). It
// has the length with which the header ends at a multiple of fsBlock.
func (t *tarFile) aligned(h *tar.Header) ([]byte, error) {
	padded := *h
	comment := 1
	for {
		padded.PAXRecords = map[string]string{"comment": strings.Repeat(" ", comment)}
		head, err := encode(&padded)
		if err != nil {
			return nil, err
		}
		end := int(t.pos+int64(len(head))) % fsBlock
		if end == 0 {
			return head, nil
		}
		// A comment that is longer by a multiple of tarBlock makes the header as much longer, but
		// for the digits of its record's length: then another round makes it longer again.
		comment += fsBlock - end
	}
}

func encode(h *tar.Header) ([]byte, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(h)
	return b.Bytes(), err
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
