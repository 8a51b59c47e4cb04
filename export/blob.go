package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// fileReader is implemented by a Fetcher's readers of blobs that are files.
type fileReader interface {
	// Unchanged returns the file of the blob if its content is known to have the blob's digest
	// although it has not been read. Called again after the file was copied, it reports whether
	// that is still so. The caller must not close the file.
	Unchanged() (*os.File, bool)
}

// copyPiece is the number of bytes that the kernel copies before the export reports progress and
// looks whether it was cancelled.
const copyPiece = 64 << 20

// copyBlob writes a blob of size bytes to w, through buf if the program must read it. The kernel
// copies a file to a file (copy_file_range(2)), if the content need not be checked: then the
// file systems that can share blocks do so.
func copyBlob(ctx context.Context, w io.Writer, r io.Reader, size int64, buf []byte, j *job) error {
	if blob, ok := r.(fileReader); ok {
		if to, ok := w.(*os.File); ok {
			if from, ok := blob.Unchanged(); ok {
				return copyFile(ctx, to, from, blob, size, j)
			}
		}
	}
	// The anonymous struct hides the methods with which io.CopyBuffer would avoid buf.
	n, err := io.CopyBuffer(counting{ctx: ctx, move: w.Write, job: j}, struct{ io.Reader }{r}, buf)
	if err == nil && n != size {
		err = fmt.Errorf("it has %d bytes, not %d", n, size)
	}
	return err
}

// copyFile copies the content of blob, the file from, to the current position of to.
func copyFile(ctx context.Context, to, from *os.File, blob fileReader, size int64, j *job) error {
	for left := size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(to, from, min(left, copyPiece))
		j.advance(int(n))
		left -= n
		if err == io.EOF {
			return fmt.Errorf("it has %d bytes, not %d", size-left, size)
		}
		if err != nil {
			return err
		}
	}
	if _, ok := blob.Unchanged(); !ok {
		return errors.New("it was changed while it was copied")
	}
	return nil
}
