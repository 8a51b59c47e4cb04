package image

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// Read calls use with the blob of one of an image's layers, as it is stored, and verifies its
// digest. The caller must discard the result of use if Read returns an error. A blob from a
// registry is stored on the way, one from a layout or an archive is not.
func (r *Resolver) Read(ctx context.Context, img *Image, layer int, use func(io.Reader) error) error {
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

// toEnd calls use and then reads the rest of body, so that the digest is that of the whole blob.
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
