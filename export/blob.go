package export

import (
	"context"
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

// copyPiece is the number of bytes that the kernel copies before copyFile reports progress and
// checks whether ctx has ended.
const copyPiece = 64 << 20

// copyBlob writes a blob of size bytes to w, through buf if the program must read it. The kernel
// copies a file to a file (copy_file_range(2)), if the content need not be checked: then the
// file systems that can share blocks do so.
func copyBlob(ctx context.Context, w io.Writer, r io.Reader, size int64, buf []byte, j *job) error {
	if blob, ok := r.(fileReader); ok {
		if to, ok := w.(*os.File); ok {
			if from, ok := blob.Unchanged(); ok {
				if ok, err := copyUnread(ctx, to, from, blob, size, j); ok || err != nil {
					return err
				}
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

// copyUnread copies the content of blob, the file from, to the current position of to. It returns
// false if the file has changed meanwhile: another build may have stored the same blob again, which
// unlinks the file. Then both files are where they were before, and the blob must be read.
func copyUnread(ctx context.Context, to, from *os.File, blob fileReader, size int64,
	j *job) (ok bool, err error) {
	start, err := to.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, nil // a pipe, for example
	}
	n, err := copyFile(ctx, to, from, size, j)
	if err != nil {
		return false, err
	}
	if _, ok := blob.Unchanged(); ok && n == size {
		return true, nil
	}
	j.advance(int(-n))
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	if _, err := to.Seek(start, io.SeekStart); err != nil {
		return false, err
	}
	return false, to.Truncate(start)
}

// copyFile copies size bytes, or fewer if the file from is shorter. It returns their number.
func copyFile(ctx context.Context, to, from *os.File, size int64, j *job) (n int64, err error) {
	for n < size {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		piece, err := io.CopyN(to, from, min(size-n, copyPiece))
		j.advance(int(piece))
		n += piece
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
