package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Growing is a blob that is being written. *store.Growing implements it.
type Growing interface {
	// Open returns a reader that waits for bytes that are not written yet.
	Open(ctx context.Context) (io.ReadCloser, error)
	// Result returns the blob's descriptor and reports whether the blob is complete.
	Result() (ocispec.Descriptor, bool)
	// Wait waits until the blob is complete. It returns an error if it will not be.
	Wait(ctx context.Context) (ocispec.Descriptor, error)
}

// stream is a blob that is sent while it is written.
type stream struct {
	g    Growing
	done chan struct{} // closed when the upload has ended
	ok   bool          // the repository has the blob
}

// errExists ends the upload of a blob that the repository turned out to have.
var errExists = errors.New("the repository has the blob")

// Stream sends a blob while it is written, as docker push does: the digest is only needed at the
// end of an upload (OCI distribution specification, "Pushing a blob in chunks"). A push of the
// blob waits for it. If Stream fails, Blob sends the blob again.
func (p *Pusher) Stream(ctx context.Context, g Growing) error {
	s := &stream{g: g, done: make(chan struct{})}
	p.mu.Lock()
	p.streams = append(p.streams, s)
	p.mu.Unlock()
	defer close(s.done)
	err := p.stream(ctx, g)
	s.ok = err == nil
	return err
}

// streamed reports whether a blob was sent by Stream. It waits for the end of its upload.
func (p *Pusher) streamed(ctx context.Context, d digest.Digest) bool {
	p.mu.Lock()
	list := slices.Clone(p.streams)
	p.mu.Unlock()
	for _, s := range list {
		if got, ok := s.g.Result(); !ok || got.Digest != d {
			continue
		}
		select {
		case <-s.done:
		case <-ctx.Done():
			return false
		}
		if s.ok {
			return true
		}
	}
	return false
}

func (p *Pusher) stream(ctx context.Context, g Growing) error {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.slots }()
	session, err := p.begin(ctx, "")
	if err != nil {
		return err
	}
	next, err := p.patch(ctx, g, session)
	if err != nil {
		p.abandon(ctx, session)
		if errors.Is(err, errExists) {
			return nil
		}
		return err
	}
	d, err := g.Wait(ctx)
	if err != nil {
		return err
	}
	u, err := url.Parse(next)
	if err != nil {
		return err
	}
	q := u.Query()
	q.Set("digest", d.Digest.String())
	u.RawQuery = q.Encode()
	resp, err := p.toUpload(ctx, call{method: http.MethodPut, url: u.String(),
		wait: p.c.o.Idle * 20})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return failure(resp)
	}
	resp.Body.Close()
	return nil
}

// toUpload sends a request to the URL of an upload, which may be on another server.
func (p *Pusher) toUpload(ctx context.Context, q call) (*http.Response, error) {
	u, err := url.Parse(q.url)
	if err != nil {
		return nil, err
	}
	base, err := p.host.base(ctx)
	if err != nil {
		return nil, err
	}
	q.once, q.scope, q.bare = true, pushScope(p.place.repo), u.Scheme+"://"+u.Host != base
	return p.host.do(ctx, q)
}

// abandon ends an upload. Registries also end it themselves, after some days.
func (p *Pusher) abandon(ctx context.Context, session string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if resp, err := p.toUpload(ctx, call{method: http.MethodDelete, url: session}); err == nil {
		resp.Body.Close()
	}
}

// patch sends the bytes of a blob as they are written. It returns the URL at which the upload
// continues, or errExists if the repository has the blob.
func (p *Pusher) patch(ctx context.Context, g Growing, session string) (next string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sent atomic.Int64
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.watch(watching, g, &sent, cancel)
	}()
	defer func() { stop(); <-watched }()
	resp, err := p.toUpload(ctx, call{
		method: http.MethodPatch, url: session, size: -1, wait: 24 * time.Hour, // see watch
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body: func() (io.ReadCloser, error) {
			r, err := g.Open(ctx)
			if err != nil {
				return nil, err
			}
			return &counted{r, &sent}, nil
		},
	})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return "", err
	}
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent {
		return "", failure(resp)
	}
	return p.location(resp)
}

// watch cancels the upload of a blob that is complete: if the repository has it, or if the server
// takes no more bytes. While the blob is written, the server cannot be blamed for a wait. watch
// returns when ctx ends.
func (p *Pusher) watch(ctx context.Context, g Growing, sent *atomic.Int64,
	cancel context.CancelCauseFunc) {
	d, err := g.Wait(ctx)
	if err != nil {
		cancel(err) // without an effect if the upload has ended
		return
	}
	if ok, err := p.exists(ctx, "blobs", d); ok && err == nil {
		cancel(errExists)
		return
	}
	for {
		before := sent.Load()
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.c.o.Idle * 20):
		}
		if sent.Load() == before {
			cancel(errNoAnswer)
			return
		}
	}
}

// counted counts the bytes of a body.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
