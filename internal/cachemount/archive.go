package cachemount

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/unpack"
	digest "github.com/opencontainers/go-digest"
)

// Format is the format of the archives of caches: that of layers, compressed with zstd, which reads
// and writes caches faster than gzip.
const Format = "zstd"

// seal writes the files in a directory as a layer on the empty file system.
func seal(ctx context.Context, ing diff.Ingester, dir string) (diff.Layer, error) {
	return diff.Seal(ctx, ing, diff.Tree{Dir: dir, Full: true}, diff.Options{Compression: Format})
}

// Unpack unpacks an archive into an empty directory. It reads r to its end, and returns the digest
// of the uncompressed archive. The archive may come from anyone: files outside of the directory are
// not accessed, names of whiteouts have no meaning, and an archive with a device node, or with more
// than limit bytes, is an error. After an error there may be some of the files.
//
// An owner or an attribute that cannot be set on this machine is left out: a user namespace may
// have too few ids.
func Unpack(ctx context.Context, r io.Reader, dir string, limit int64) (digest.Digest, error) {
	root, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	z, _, err := unpack.Decompress(r)
	if err != nil {
		return "", err
	}
	defer z.Close()
	hash := sha256.New()
	a := unpack.ReadAhead(ctx, &limited{r: z, left: limit, limit: limit},
		unpack.AheadOptions{Side: func(p []byte) { hash.Write(p) }})
	_, err = unpack.Tar(ctx, a, int(root.Fd()), unpack.Options{NoDevices: true,
		OnOwnerError: func(string, int, int, error) {}, OnSkip: func(string, string, error) {}})
	if err == nil {
		err = a.Drain()
	}
	a.Stop() // afterwards hash has all bytes
	if err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, hash), nil
}

// limited is a reader that returns an error after a number of bytes.
type limited struct {
	r           io.Reader
	left, limit int64
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("it has more than %d bytes", l.limit)
	}
	return n, err
}
