package image

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/layerbuild/layerbuild/internal/unpack"
	"github.com/opencontainers/go-digest"
)

// Read calls use with the blob of a layer, in its stored form, and verifies its digest. The caller
// must discard the result of use if Read returns an error. Read stores a blob from a registry, but
// not a blob from a layout or an archive.
func (r *Resolver) Read(ctx context.Context, img *Image, layer int,
	use func(io.Reader) error) error {
	d := img.Manifest.Layers[layer]
	there, err := r.store.Exists(ctx, d)
	if err != nil {
		return err
	}
	if there || img.Origin != FromLayout || img.source == nil {
		u := r.newUnpacking(img, UnpackOptions{})
		_, err := u.read(ctx, d, func(body io.Reader) error { return toEnd(body, use) })
		return err
	}
	body, err := img.source.Open(ctx, d)
	if err != nil {
		return err
	}
	defer body.Close()
	v := digest.Digest(d.Digest).Verifier()
	read := &counted{r: io.TeeReader(io.LimitReader(body, d.Size+1), v)}
	if err := toEnd(read, use); err != nil {
		return err
	}
	if read.n != d.Size || !v.Verified() {
		return fmt.Errorf("blob %s is damaged: its content has another digest", d.Digest)
	}
	return nil
}

// toEnd calls use and then reads the rest of body, so that the digest covers the whole blob.
func toEnd(body io.Reader, use func(io.Reader) error) error {
	if err := use(body); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, body)
	return err
}

type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// readWhole reads a blob to its end, writes all of it to w (nil: discards it), and calls use (may
// be nil) with a reader of the same bytes. An error of r or w takes precedence over an error of
// use, which is often a consequence. When use fails, r is still read to its end, so that w can
// check the digest of the whole content.
func readWhole(ctx context.Context, r io.Reader, w io.Writer, use func(io.Reader) error) error {
	var o unpack.AheadOptions
	if w != nil {
		o.Tee = func(p []byte) error { _, err := w.Write(p); return err }
	}
	a := unpack.ReadAhead(ctx, r, o)
	defer a.Stop()
	var used error
	if use != nil {
		used = use(a)
	}
	return cmp.Or(a.Drain(), used)
}
