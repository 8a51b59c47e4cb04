package cachestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options have the parts of the program that a store uses.
type Options struct {
	// Client sends the requests.
	Client *registry.Client
	// Blobs has the blobs of this machine.
	Blobs registry.Fetcher
	// Getenv returns the variables of the environment.
	Getenv func(string) string
}

// Check returns an error if the address of a store is not valid.
func Check(p remotecache.SharedPlace) error {
	_, err := Open(p, Options{Getenv: func(string) string { return "" }})
	return err
}

// Open returns the store at an address. It sends no request and reads no file yet.
func Open(p remotecache.SharedPlace, o Options) (remotecache.Store, error) {
	if strings.HasPrefix(p.Ref, "gha") && !strings.Contains(p.Ref, "://") {
		return openActions(p, o)
	}
	u, err := url.Parse(p.Ref)
	if err != nil {
		// The error of url.Parse has the address, and the password in it.
		return nil, errors.New("the address is not a URL: escape special characters of a " +
			"password with %, as in %40 for @")
	}
	for _, c := range u.Path {
		if c < ' ' || c == 0x7f {
			return nil, errors.New("the address has a control character")
		}
	}
	switch {
	case u.Scheme == "s3":
		return openS3(p, u, o)
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%q: http, https and s3 are possible", u.Scheme+"://")
	case u.Hostname() == "":
		return nil, errors.New("the address has no host")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("an address without ? and # is expected")
	}
	return openHTTP(p, u, o), nil
}

// maxDocument limits the size of a document. The largest are hints, with a few MB.
const maxDocument = 32 << 20

// base has what all stores share.
type base struct {
	place remotecache.SharedPlace
	Options
	sent memo.Map[digest.Digest, struct{}]
}

// artifact returns the artifact from which the layers of a document are fetched.
func (b *base) artifact(open func(context.Context,
	ocispec.Descriptor) (io.ReadCloser, error)) *image.Artifact {
	return image.ArtifactOf(b.place.Name(), open)
}

// once calls send for a blob, once for each blob that it does not fail for.
func (b *base) once(ctx context.Context, d ocispec.Descriptor, send func() error) error {
	if _, err := hexOf(d.Digest); err != nil {
		return err
	}
	_, err := b.sent.Try(ctx, d.Digest, func() (struct{}, error) { return struct{}{}, send() })
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return nil
}

// blob opens a blob of this machine.
func (b *base) blob(ctx context.Context, d ocispec.Descriptor) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return b.Blobs.Fetch(ctx, d) }
}

// hexOf returns the hexadecimal form of a digest. Only SHA-256 is possible: the names in stores are
// such sums.
func hexOf(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w", d, err)
	}
	if d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("blob %s: a cache has only blobs with digests of SHA-256", d)
	}
	return d.Encoded(), nil
}

// bytesBody returns a body that has data.
func bytesBody(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// ended closes the answer to a request that changes something. It returns an error if the status is
// not one of ok.
func ended(resp *http.Response, ok ...int) error {
	if !slices.Contains(ok, resp.StatusCode) {
		return registry.Failure(resp)
	}
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is used again
	return resp.Body.Close()
}

// statusOf returns the status of an answer that was not expected; 0 for other errors.
func statusOf(err error) int {
	if e, ok := errors.AsType[*registry.Error](err); ok {
		return e.Status
	}
	return 0
}
