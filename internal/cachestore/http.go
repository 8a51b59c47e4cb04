package cachestore

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// httpStore is a Store on a server that Bazel can use as a remote cache
// (https://bazel.build/remote/caching#http-caching): blobs are at PREFIX/cas/SHA256, and documents
// at PREFIX/ac/SHA256-OF-NAME, as ActionResults whose files are the document and its layers. A
// server that knows ActionResults, such as bazel-remote, keeps and removes the files with them.
type httpStore struct {
	base
	prefix    string // an address without a slash at its end
	authorize func(*http.Request) error
}

func openHTTP(p remotecache.SharedPlace, u *url.URL, o Options) *httpStore {
	s := &httpStore{base: base{place: p, Options: o}}
	if u.User != nil {
		password, _ := u.User.Password()
		value := "Basic " + base64.StdEncoding.EncodeToString(
			[]byte(u.User.Username()+":"+password))
		s.authorize = func(r *http.Request) error {
			r.Header.Set("Authorization", value)
			return nil
		}
	}
	bare := *u
	bare.User = nil
	s.prefix = strings.TrimRight(bare.String(), "/")
	return s
}

// documentName is the path of the document in an ActionResult. A layer has its digest as its path.
const documentName = "layerbuild-cache.json"

// maxInline is the size up to which a document is also in its ActionResult, so that one request
// reads it.
const maxInline = 1 << 20

func (s *httpStore) ac(name string) string {
	sum := sha256.Sum256([]byte(name))
	return s.prefix + "/ac/" + hex.EncodeToString(sum[:])
}

func (s *httpStore) cas(hex string) string { return s.prefix + "/cas/" + hex }

// Get implements remotecache.Store.
func (s *httpStore) Get(ctx context.Context, name string) ([]byte, *image.Artifact, error) {
	_, data, err := s.Client.Read(ctx, s.request(s.ac(name)), maxDocument)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, nil, remotecache.ErrNoDocument
	}
	if err != nil {
		return nil, nil, err
	}
	files, err := decodeActionResult(data)
	if err != nil {
		return nil, nil, fmt.Errorf("ActionResult of %s: %w", name, err)
	}
	for _, f := range files {
		if f.path != documentName {
			continue
		}
		d := digest.NewDigestFromEncoded(digest.SHA256, f.hash)
		if _, err := hexOf(d); err != nil {
			return nil, nil, err
		}
		data := f.contents
		if len(data) == 0 {
			_, data, err = s.Client.Read(ctx, s.request(s.cas(f.hash)), maxDocument)
			if errors.Is(err, registry.ErrNotFound) { // the server has removed it
				return nil, nil, remotecache.ErrNoDocument
			}
		}
		if err == nil && digest.FromBytes(data) != d {
			err = fmt.Errorf("the document %s does not have the digest %s", name, d)
		}
		return data, s.artifact(s.open), err
	}
	return nil, nil, fmt.Errorf("the ActionResult of %s has no document", name)
}

// open opens a blob.
func (s *httpStore) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	hex, err := hexOf(d.Digest)
	if err != nil {
		return nil, err
	}
	return s.Client.Open(ctx, s.request(s.cas(hex)), d)
}

// request returns a request without a body.
func (s *httpStore) request(address string) registry.Request {
	return registry.Request{Method: http.MethodGet, URL: address, Authorize: s.authorize}
}

// Put implements remotecache.Store.
func (s *httpStore) Put(ctx context.Context, name string, data []byte,
	blobs []ocispec.Descriptor) error {
	sum := sha256.Sum256(data)
	doc := outputFile{path: documentName, hash: hex.EncodeToString(sum[:]),
		size: int64(len(data))}
	if len(data) <= maxInline {
		doc.contents = data
	}
	files := []outputFile{doc}
	for _, d := range blobs {
		hex, err := hexOf(d.Digest)
		if err != nil {
			return err
		}
		files = append(files, outputFile{path: d.Digest.String(), hash: hex, size: d.Size})
	}
	// A server that checks all files of an ActionResult also looks for one that it contains.
	if err := s.put(ctx, s.cas(doc.hash), int64(len(data)), bytesBody(data)); err != nil {
		return err
	}
	result := encodeActionResult(files)
	return s.put(ctx, s.ac(name), int64(len(result)), bytesBody(result))
}

// Send implements remotecache.Store.
func (s *httpStore) Send(ctx context.Context, d ocispec.Descriptor) error {
	return s.once(ctx, d, func() error {
		address := s.cas(d.Digest.Encoded())
		r := s.request(address)
		r.Method = http.MethodHead
		resp, err := s.Client.Do(ctx, r)
		if err != nil {
			return err
		}
		if resp.Body.Close(); resp.StatusCode == http.StatusOK &&
			(resp.ContentLength < 0 || resp.ContentLength == d.Size) {
			return nil
		}
		return s.put(ctx, address, d.Size, s.blob(ctx, d))
	})
}

// put writes a file.
func (s *httpStore) put(ctx context.Context, address string, size int64,
	body func() (io.ReadCloser, error)) error {
	r := s.request(address)
	r.Method, r.Body, r.Size = http.MethodPut, body, size
	r.Header = http.Header{"Content-Type": {"application/octet-stream"}}
	resp, err := s.Client.Do(ctx, r)
	if err != nil {
		return err
	}
	err = ended(resp, http.StatusOK, http.StatusCreated, http.StatusAccepted,
		http.StatusNoContent)
	switch statusOf(err) {
	case http.StatusConflict:
		err = fmt.Errorf("%w; with nginx, set create_full_put_path on", err)
	case http.StatusMethodNotAllowed:
		err = fmt.Errorf("%w; with nginx, set dav_methods PUT", err)
	case http.StatusRequestEntityTooLarge:
		err = fmt.Errorf("%w; with nginx, set client_max_body_size 0", err)
	case http.StatusUnauthorized, http.StatusForbidden:
		err = fmt.Errorf("%w; give a user in the address, as in https://USER:PASSWORD@HOST, or "+
			"log in with 'layerbuild login HOST', or use ,ro", err)
	}
	return err
}
