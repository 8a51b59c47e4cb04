package registry

import (
	"bytes"
	"context"
	_ "crypto/sha512" // the other algorithm of the image specification
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// accepted are the supported types of manifests.
var accepted = ocidoc.Accepted()

// Document is a manifest or an index, and its bytes.
type Document struct {
	Descriptor ocispec.Descriptor
	Data       []byte
}

// Resolved is an image that was found in a registry.
type Resolved struct {
	// Name is the full name under which the image was found.
	Name string
	// Documents are the documents from the one that the name refers to down to the manifest for
	// the platform: a single manifest, or an index, perhaps a nested one, and the manifest.
	Documents []Document
	// Source fetches the image's blobs.
	Source *Source
}

// Root returns the document that the name refers to.
func (r *Resolved) Root() Document { return r.Documents[0] }

// Manifest returns the manifest for the platform.
func (r *Resolved) Manifest() Document { return r.Documents[len(r.Documents)-1] }

// Resolve finds an image. It tries each name that ref may refer to, and for each name the
// mirrors and then the registry, until one has the image. From an index it selects the manifest
// for the platform. Errors wrap ErrNotFound, ErrDenied, ErrBlocked or ErrNoPlatform if they
// apply, and list the places that were tried.
func (c *Client) Resolve(ctx context.Context, ref string,
	platform ocispec.Platform) (*Resolved, error) {
	var found *Resolved
	err := c.each(ctx, ref, func(n reference.Name, s *Source) error {
		docs, err := s.documents(ctx, selector(n), platform)
		if err == nil {
			found = &Resolved{Name: n.String(), Documents: docs, Source: s}
		}
		return err
	})
	return found, err
}

// Root is like Resolve without a platform: it returns only the document that the name refers to.
func (c *Client) Root(ctx context.Context, ref string) (*Resolved, error) {
	var found *Resolved
	err := c.each(ctx, ref, func(n reference.Name, s *Source) error {
		doc, err := s.document(ctx, s.places[0], selector(n), nil)
		if err == nil {
			found = &Resolved{Name: n.String(), Documents: []Document{doc}, Source: s}
		}
		return err
	})
	return found, err
}

// Head returns the descriptor that a name refers to now, without fetching the manifest.
// Registries do not count this as a pull. The digest is empty if the registry does not send it.
func (c *Client) Head(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	var found ocispec.Descriptor
	err := c.each(ctx, ref, func(n reference.Name, s *Source) error {
		var err error
		found, err = s.head(ctx, selector(n))
		return err
	})
	return found, err
}

// each calls try for the places of a name until one succeeds.
func (c *Client) each(ctx context.Context, ref string,
	try func(reference.Name, *Source) error) error {
	conf, err := c.config()
	if err != nil {
		return err
	}
	names, err := conf.candidates(ref)
	if err != nil {
		return err
	}
	var errs []error
	var tried []endpoint
	for _, n := range names {
		places, err := conf.endpoints(n)
		if err != nil {
			errs, tried = append(errs, err), append(tried, endpoint{host: n.Domain, repo: n.Path})
			continue
		}
		for i, e := range places {
			// Blobs come from the place that has the manifest, and from the others if that
			// fails.
			order := append([]endpoint{e}, slices.Delete(slices.Clone(places), i, i+1)...)
			err := try(n, &Source{c: c, name: n, places: order})
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(err, ErrDenied) {
				err = c.denied(ctx, e, err)
			}
			errs, tried = append(errs, err), append(tried, e)
		}
	}
	return notFound(names, tried, errs)
}

// notFound returns an error that lists what was tried. For one place with one error it needs no
// list.
func notFound(names []reference.Name, tried []endpoint, errs []error) error {
	what := make([]string, len(names))
	for i, n := range names {
		what[i] = n.String()
	}
	title := strings.Join(what, ", ")
	if len(errs) == 1 {
		err := errs[0]
		switch {
		case errors.Is(err, ErrNotFound):
			return fmt.Errorf("no such image %s: %w", title, err)
		case errors.Is(err, ErrDenied):
			return fmt.Errorf("no such image %s, or it needs a login: %w", title, err)
		}
		return fmt.Errorf("image %s: %w", title, err)
	}
	e := &triedError{title: "image " + title, errs: errs}
	if !slices.ContainsFunc(errs, func(err error) bool { return !errors.Is(err, ErrNotFound) }) {
		e.title = "no such image " + title
	}
	for _, t := range tried {
		e.places = append(e.places, t.String())
	}
	return e
}

// triedError lists the places that were tried, on one line.
type triedError struct {
	title  string
	places []string
	errs   []error
}

func (e *triedError) Error() string {
	var b strings.Builder
	b.WriteString(e.title + ": tried ")
	for i, err := range e.errs {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %v", e.places[i], err)
	}
	return b.String()
}

func (e *triedError) Unwrap() []error { return e.errs }

// Source is a repository to fetch from, with the mirrors that may have its blobs too.
type Source struct {
	c      *Client
	name   reference.Name
	places []endpoint
	// request is the request for the only blob of a server that is not a registry; nil: places are
	// of registries.
	request *Request
}

// Source returns the repository of a name without a request. It is not known then which of its
// places has the image, so a fetch may try several.
func (c *Client) Source(ref string) (*Source, error) {
	conf, err := c.config()
	if err != nil {
		return nil, err
	}
	n, err := reference.Full(ref)
	if err != nil {
		return nil, err
	}
	places, err := conf.endpoints(n)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", n, err)
	}
	return &Source{c: c, name: n, places: places}, nil
}

// Repository returns the repository's name: "docker.io/library/busybox".
func (s *Source) Repository() string { return s.name.Repository() }

// documents fetches a manifest, and the indexes that lead to it.
func (s *Source) documents(ctx context.Context, ref string,
	platform ocispec.Platform) ([]Document, error) {
	root, err := s.document(ctx, s.places[0], ref, nil)
	if err != nil {
		return nil, err
	}
	next := func(ctx context.Context, d ocispec.Descriptor) (Document, error) {
		return s.document(ctx, s.places[0], d.Digest.String(), &d)
	}
	return Descend(ctx, root, platform, next, s.read)
}

// read fetches a small blob or a manifest and verifies it.
func (s *Source) read(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	body, err := s.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, ocidoc.MaxManifest))
	if err == nil && d.Digest.Algorithm().FromBytes(data) != d.Digest {
		err = fmt.Errorf("blob %s is damaged", d.Digest)
	}
	return data, err
}

// document fetches a manifest or an index from one place and verifies its digest and type.
func (s *Source) document(ctx context.Context, e endpoint, ref string,
	want *ocispec.Descriptor) (Document, error) {
	header, data, err := s.documentBytes(ctx, e, ref)
	if err != nil {
		return Document{}, err
	}
	d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	for _, s := range []string{ref, header.Get("Docker-Content-Digest")} {
		expected := digest.Digest(s)
		if expected.Validate() != nil {
			continue
		}
		if got := expected.Algorithm().FromBytes(data); got != expected {
			return Document{}, fmt.Errorf("manifest %s from %s is damaged: its digest is %s",
				expected, e, got)
		}
		if s == ref {
			d.Digest = expected
		}
	}
	if want != nil && want.Size != d.Size {
		return Document{}, fmt.Errorf("manifest %s from %s is damaged: it has %d bytes, not %d",
			ref, e, d.Size, want.Size)
	}
	contentType, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	types := []string{contentType}
	if want != nil {
		types = append(types, want.MediaType)
	}
	d.MediaType, err = ocidoc.TypeOf(data, types...)
	if err != nil {
		return Document{}, fmt.Errorf("manifest %s from %s: %w", ref, e, err)
	}
	return Document{Descriptor: d, Data: data}, nil
}

// documentBytes fetches a manifest or an index, with retries if the connection breaks.
func (s *Source) documentBytes(ctx context.Context, e endpoint,
	ref string) (http.Header, []byte, error) {
	h, err := s.c.host(e.host, e.insecure)
	if err != nil {
		return nil, nil, err
	}
	q := call{method: http.MethodGet, url: "/v2/" + e.repo + "/manifests/" + ref,
		header: http.Header{"Accept": accepted}, scope: pullScope(e.repo), budget: s.waitBudget()}
	return h.read(ctx, q, ocidoc.MaxManifest, "manifest "+ref)
}

// read sends a call and returns the header and the body of the answer, which has at most limit
// bytes. If the connection breaks, it sends the call again. what is the document, for errors.
func (h *host) read(ctx context.Context, q call, limit int64, what string) (http.Header, []byte,
	error) {
	if q.budget == nil {
		q.budget = &waitBudget{limit: h.c.o.MaxWait}
	}
	for try := 1; ; try++ {
		resp, err := h.do(ctx, q)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, nil, failure(resp)
		}
		data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
		resp.Body.Close()
		switch {
		case err == nil && int64(len(data)) > limit:
			return nil, nil, fmt.Errorf("%s has more than %d bytes", what, limit)
		case err == nil:
			return resp.Header, data, nil
		case ctx.Err() != nil || !retryable(err) || try >= maxTries || q.budget.left() <= 0:
			return nil, nil, fmt.Errorf("%s: %w", what, err)
		}
		if err := h.c.sleep(ctx, h.c.o.Backoff<<(try-1)); err != nil {
			return nil, nil, err
		}
	}
}

// waitBudget returns the share of one place in Options.MaxWait, so that all places together wait
// no longer than a single one.
func (s *Source) waitBudget() *waitBudget {
	return &waitBudget{limit: s.c.o.MaxWait / time.Duration(len(s.places))}
}

func (s *Source) head(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	e := s.places[0]
	h, err := s.c.host(e.host, e.insecure)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	resp, err := h.do(ctx, call{method: http.MethodHead, url: "/v2/" + e.repo + "/manifests/" + ref,
		header: http.Header{"Accept": accepted}, scope: pullScope(e.repo), budget: s.waitBudget()})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return ocispec.Descriptor{}, failure(resp)
	}
	resp.Body.Close()
	t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	d := ocispec.Descriptor{MediaType: t, Size: resp.ContentLength}
	if got := digest.Digest(resp.Header.Get("Docker-Content-Digest")); got.Validate() == nil {
		d.Digest = got
	}
	return d, nil
}

func pullScope(repo string) string { return "repository:" + repo + ":pull" }

// Fetch opens a blob or a manifest. The reader returns an error instead of io.EOF if size or
// digest are not those of the descriptor; a broken transfer is resumed where it stopped. The
// caller closes the reader.
func (s *Source) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	r, err := s.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	return &verifying{r: r, want: d, hash: d.Digest.Algorithm().Hash()}, nil
}

// Open is Fetch for a caller that verifies the digest itself. The size is verified.
func (s *Source) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("fetch blob %q: %w", d.Digest, err)
	}
	if slices.Contains(accepted, d.MediaType) {
		return s.openDocument(ctx, d)
	}
	return s.openBlob(ctx, d)
}

// openBlob is Open for a blob that is not a manifest.
func (s *Source) openBlob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b := &download{ctx: ctx, s: s, d: d, end: d.Size}
	if d.Size >= s.c.o.Ranges {
		b.end = s.c.o.Piece
	}
	var errs []error
	for range s.places {
		b.budget = s.waitBudget()
		err := b.open()
		if err == nil && b.end < d.Size {
			return newPieces(ctx, b), nil
		}
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.places[b.place], err))
		b.place = (b.place + 1) % len(s.places)
	}
	// Layers that must not be distributed are fetched from the addresses in their descriptors.
	b.end = d.Size
	for _, u := range d.URLs {
		b.foreign, b.budget = u, &waitBudget{limit: s.c.o.MaxWait / time.Duration(len(d.URLs))}
		err := b.open()
		if err == nil {
			return b, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("fetch blob %s: %w", d.Digest, errors.Join(errs...))
}

func (s *Source) openDocument(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	var errs []error
	for _, e := range s.places {
		doc, err := s.document(ctx, e, d.Digest.String(), &d)
		if err == nil {
			return io.NopCloser(bytes.NewReader(doc.Data)), nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("fetch manifest %s: %w", d.Digest, errors.Join(errs...))
}

// download is the transfer of a blob, or of a part of it. It is resumed after a broken connection.
type download struct {
	// ctx is that of Open, whose caller ends the download by it. It is stored because Read, which
	// gets none, sends further requests.
	ctx     context.Context
	s       *Source
	d       ocispec.Descriptor
	place   int
	foreign string // an address outside of registries
	body    io.ReadCloser
	off     int64 // of the next byte in the blob
	end     int64 // of the last byte, plus 1
	fails   int   // the number of failures since the last byte
	err     error

	budget *waitBudget
}

// open requests the blob, or the rest of it.
func (b *download) open() error {
	e := b.s.places[b.place]
	h, q, err := b.s.blobCall(e, b.d.Digest)
	if err != nil {
		return err
	}
	q.budget = b.budget
	if b.foreign != "" {
		if !strings.HasPrefix(b.foreign, "https://") && !strings.HasPrefix(b.foreign, "http://") {
			return fmt.Errorf("%s: not an address to fetch from", printable(b.foreign))
		}
		q.url, q.bare = b.foreign, true
	}
	switch {
	case b.end < b.d.Size:
		q.header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.off, b.end-1))
	case b.off > 0:
		q.header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	resp, err := h.do(b.ctx, q)
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode == http.StatusPartialContent && q.header.Get("Range") != "":
		if err := b.checkRange(resp.Header.Get("Content-Range")); err != nil {
			resp.Body.Close()
			return err
		}
	case resp.StatusCode == http.StatusOK:
		if n := resp.ContentLength; n >= 0 && n != b.d.Size {
			resp.Body.Close()
			return fmt.Errorf("blob has %d bytes, not %d", n, b.d.Size)
		}
		// A server that does not support ranges sends the whole blob again.
		if _, err := io.CopyN(io.Discard, resp.Body, b.off); err != nil {
			resp.Body.Close()
			return err
		}
		if b.off == 0 {
			b.end = b.d.Size // it is sent in one piece
		}
	default:
		return failure(resp)
	}
	b.body = resp.Body
	if b.s.request == nil {
		b.s.c.addHolder(e, b.d.Digest)
	}
	return nil
}

// blobCall returns the call that gets a blob from a place, and the server.
func (s *Source) blobCall(e endpoint, d digest.Digest) (*host, call, error) {
	if s.request != nil {
		return s.c.callOf(*s.request)
	}
	h, err := s.c.host(e.host, e.insecure)
	return h, call{method: http.MethodGet, url: "/v2/" + e.repo + "/blobs/" + d.String(),
		scope: pullScope(e.repo), header: http.Header{}}, err
}

// checkRange checks the range that a server sends: "bytes FIRST-LAST/SIZE", or "*" as the size.
func (b *download) checkRange(got string) error {
	rest, ok := strings.CutPrefix(got, fmt.Sprintf("bytes %d-", b.off))
	if !ok {
		return fmt.Errorf("requested bytes from %d on, got %q", b.off, printable(got))
	}
	if _, size, ok := strings.Cut(rest, "/"); ok && size != "*" && size != fmt.Sprint(b.d.Size) {
		return fmt.Errorf("blob has %s bytes, not %d", printable(size), b.d.Size)
	}
	return nil
}

func (b *download) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.body == nil {
			if b.err = b.again(); b.err != nil {
				break
			}
		}
		n, err := b.body.Read(p)
		if more := b.off + int64(n) - b.end; more > 0 {
			if b.end == b.d.Size {
				b.err = fmt.Errorf("blob %s is damaged: it has more than %d bytes",
					b.d.Digest, b.d.Size)
				return n - int(more), b.err
			}
			n, err = n-int(more), io.EOF // the server has sent the rest of the blob, too
		}
		b.off += int64(n)
		if n > 0 {
			b.fails = 0
		}
		if err == io.EOF && b.off < b.end {
			err = io.ErrUnexpectedEOF
		}
		switch {
		case err == io.EOF:
			b.err = err
			return n, err
		case err != nil && (b.ctx.Err() != nil || !retryable(err)):
			b.err = fmt.Errorf("fetch blob %s: %w", b.d.Digest, err)
		case err != nil:
			b.body.Close()
			b.body = nil
			b.fails++
			if b.fails >= maxTries || b.budget.left() <= 0 {
				b.err = fmt.Errorf(
					"fetch blob %s: the connection broke %d times after %d of %d bytes: %w",
					b.d.Digest, b.fails, b.off, b.d.Size, err)
			}
		}
		if n > 0 {
			return n, nil
		}
		if err == nil {
			return 0, nil
		}
	}
	return 0, b.err
}

// again requests the rest after a wait. If the current place does not answer any more, it tries
// the next one.
func (b *download) again() error {
	if err := b.s.c.sleep(b.ctx, b.s.c.o.Backoff<<max(0, b.fails-1)); err != nil {
		return err
	}
	if b.fails > 1 && b.foreign == "" {
		b.place = (b.place + 1) % len(b.s.places)
	}
	if err := b.open(); err != nil {
		return fmt.Errorf("fetch blob %s after %d of %d bytes: %w", b.d.Digest,
			b.off, b.d.Size, err)
	}
	return nil
}

func (b *download) Close() error {
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}

// verifying verifies size and digest of the data that is read.
type verifying struct {
	r    io.ReadCloser
	want ocispec.Descriptor
	hash hash.Hash
	n    int64
	err  error
}

func (v *verifying) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.n += int64(n)
	if err == io.EOF {
		got := digest.NewDigestFromEncoded(v.want.Digest.Algorithm(),
			hex.EncodeToString(v.hash.Sum(nil)))
		switch {
		case v.n != v.want.Size:
			err = fmt.Errorf("blob %s is damaged: it has %d bytes, not %d",
				v.want.Digest, v.n, v.want.Size)
		case got != v.want.Digest:
			err = fmt.Errorf("blob %s is damaged: its digest is %s", v.want.Digest, got)
		}
	}
	v.err = err
	return n, err
}

func (v *verifying) Close() error { return v.r.Close() }

// addHolder records that a repository has a blob, for mounting it into another one.
func (c *Client) addHolder(e endpoint, d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holders[blobIn{e.host, e.repo, d.String()}] = true
}

// reposWith returns the repositories of a host that have a blob.
func (c *Client) reposWith(host string, d digest.Digest) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for k := range c.holders {
		if k.host == host && k.digest == d.String() {
			out = append(out, k.repo)
		}
	}
	slices.Sort(out)
	return out
}
