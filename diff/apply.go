package diff

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/unpack"
)

// ErrNeedsParent is wrapped by errors about layers that can only be applied to a directory that
// shows the layers below (Full), because they contain a hard link to a file of a lower layer, or a
// path through a symbolic link of a lower layer.
var ErrNeedsParent = unpack.ErrNeedsParent

// Apply unpacks a layer, with any supported compression, into dir. It reads r to its end and
// returns the layer's digests and sizes, which the caller compares. After an error, dir contains a
// part of the layer.
func Apply(ctx context.Context, r io.Reader, dir string, o ApplyOptions) (Applied, error) {
	root, err := openRoot(dir)
	if err != nil {
		return Applied{}, err
	}
	defer unix.Close(root)
	var stats unpack.Stats
	diffID, size, err := read(ctx, r, func(tar *unpack.Ahead) (err error) {
		stats, err = unpack.Tar(ctx, tar, root, o.unpack())
		return err
	})
	if err != nil {
		return Applied{}, err
	}
	return Applied{
		DiffID: diffID, Size: size,
		Entries: stats.Entries, Implied: stats.Implied, Replaced: stats.Replaced,
		Whiteouts: stats.Whiteouts,
	}, nil
}

// DiffID reads a layer, with any supported compression, to its end and returns the digest of its
// tar. It returns an error if the layer is no tar, or one that readers interpret in different ways.
func DiffID(ctx context.Context, r io.Reader) (digest.Digest, error) {
	return readHeaders(ctx, r, func(*unpack.Reader, *unpack.Header) error { return nil })
}

// ReadEntries is like DiffID, and calls visit for each entry. It stops when visit returns an error.
func ReadEntries(ctx context.Context, r io.Reader, visit func(Entry) error) (digest.Digest, error) {
	return readHeaders(ctx, r, func(rd *unpack.Reader, h *unpack.Header) error {
		return visit(entryOf(h, rd))
	})
}

func readHeaders(ctx context.Context, r io.Reader,
	visit func(*unpack.Reader, *unpack.Header) error) (digest.Digest, error) {
	diffID, _, err := read(ctx, r, func(tar *unpack.Ahead) error {
		rd := unpack.NewReader(tar)
		for {
			h, err := rd.Next()
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = visit(rd, h)
			}
			if err != nil {
				return fmt.Errorf("read layer: %w", err)
			}
		}
	})
	return diffID, err
}

// read calls use with the tar of a layer, and then reads the rest of the tar. It returns the tar's
// digest and size.
func read(ctx context.Context, r io.Reader,
	use func(*unpack.Ahead) error) (diffID digest.Digest, size int64, err error) {
	z, _, err := unpack.Decompress(r)
	if err != nil {
		return "", 0, fmt.Errorf("unpack layer: %w", err)
	}
	hash := sha256.New()
	a := unpack.ReadAhead(ctx, z, unpack.AheadOptions{Side: func(p []byte) { hash.Write(p) }})
	err = use(a)
	if err == nil {
		if err = a.Drain(); err != nil {
			err = fmt.Errorf("unpack layer: %w", err)
		}
	}
	a.Stop() // afterwards hash has all bytes
	z.Close()
	if err != nil {
		return "", 0, err
	}
	return digest.NewDigest(digest.SHA256, hash), a.Size, nil
}

func (o ApplyOptions) unpack() unpack.Options {
	u := unpack.Options{OnOwnerError: o.OnOwnerError, OnSkip: o.OnSkip,
		OnWhiteoutDevice: o.OnWhiteoutDevice, OnStandIn: o.OnStandIn, Whiteouts: unpack.Overlay}
	switch {
	case o.Full:
		u.Whiteouts = unpack.Delete
	case o.UserXattr:
		u.Whiteouts = unpack.OverlayUser
	}
	return u
}

// Entries iterates over the entries of an uncompressed layer. It stops after an error.
func Entries(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		rd := unpack.NewReader(r)
		for {
			h, err := rd.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Entry{}, fmt.Errorf("read layer: %w", err))
				return
			}
			if !yield(entryOf(h, rd), nil) {
				return
			}
		}
	}
}

// entryOf returns the entry of a header, whose content rd reads.
func entryOf(h *unpack.Header, rd io.Reader) Entry {
	e := Entry{
		Path: unpack.CleanName(h.Name), Type: h.Type, Mode: h.Mode,
		UID: int(h.UID), GID: int(h.GID),
		Size: h.Size, ModTime: time.Unix(h.Sec, h.Nsec), Link: string(h.Link),
		Major: h.Major, Minor: h.Minor,
		Content: rd,
	}
	if h.Type == unpack.TypeHardlink {
		e.Link = unpack.CleanName(h.Link)
	}
	for _, x := range h.Xattrs {
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[x.Name] = string(x.Value)
	}
	return e
}
