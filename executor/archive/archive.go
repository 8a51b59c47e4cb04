// Package archive unpacks what ADD finds to be an archive.
//
// It is apart from the executor because of what it needs: the decompressors' tables are made when a program starts,
// and a step's child that does not unpack anything should not wait for that.
package archive

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// Unpack is the executor's Unpacker: tar archives, plain or compressed with gzip, bzip2, xz or zstd, known by their
// contents and not by their names.
func Unpack(f io.Reader, o executor.UnpackOptions) (bool, error) {
	r, _, err := unpack.Decompress(f)
	if errors.Is(err, unpack.ErrLimit) {
		return false, err
	}
	if err != nil {
		return false, nil // what it is then, is not for us to say: it is copied
	}
	defer r.Close()
	tar := bufio.NewReaderSize(r, 64<<10)
	if head, _ := tar.Peek(512); !unpack.IsTar(head) {
		return false, nil
	}
	// An archive made by "tar -C d ." begins with an entry for d itself, which is not the destination (SkipRoot).
	opts := unpack.Options{FollowDirLinks: true, SkipRoot: true, OnOwnerError: o.OnOwnerError, OnStandIn: o.OnStandIn, OnSkip: o.OnSkip}
	if o.Owned {
		opts.Owner = &unpack.Owner{UID: o.UID, GID: o.GID}
	}
	dest, err := o.Dest()
	if err != nil {
		return true, err
	}
	opts.Links = &unpack.LinkRoot{Dir: dest.Root, Path: dest.Path}
	if _, err := unpack.Tar(context.Background(), tar, dest.Dir, opts); err != nil {
		return true, err
	}
	// Reading to the end is what verifies a compressed file's checksum.
	_, err = io.Copy(io.Discard, tar)
	return true, err
}
