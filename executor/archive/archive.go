package archive

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// Unpack is an copyfs.Unpacker for tar archives, plain or compressed with gzip, bzip2, xz or
// zstd. It recognizes them by their contents, not by their names.
func Unpack(f io.Reader, o copyfs.UnpackOptions) (bool, error) {
	r, _, err := unpack.Decompress(f)
	if errors.Is(err, unpack.ErrLimit) {
		return false, err
	}
	if err != nil {
		return false, nil // not a supported archive: the caller copies the file
	}
	defer r.Close()
	tar := bufio.NewReaderSize(r, 64<<10)
	if head, _ := tar.Peek(512); !unpack.IsTar(head) {
		return false, nil
	}
	// An archive made by "tar -C d ." begins with an entry for d itself, which does not apply to
	// the destination (SkipRoot).
	opts := unpack.Options{FollowDirLinks: true, SkipRoot: true, OnOwnerError: o.OnOwnerError,
		OnStandIn: o.OnStandIn, OnSkip: o.OnSkip}
	if o.Owner != nil {
		opts.Owner = &unpack.Owner{UID: o.Owner.UID, GID: o.Owner.GID}
	}
	dest, err := o.Dest()
	if err != nil {
		return true, err
	}
	opts.Links = &unpack.LinkRoot{Dir: dest.Root, Path: dest.Path}
	// A step's process unpacks, and is killed when the context of the step ends.
	if _, err := unpack.Tar(context.Background(), tar, dest.Dir, opts); err != nil {
		return true, err
	}
	// Reading to the end verifies the checksum of a compressed file.
	_, err = io.Copy(io.Discard, tar)
	return true, err
}
