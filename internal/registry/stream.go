package registry

import (
	"cmp"
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
	// Open returns a reader that waits for bytes that are not written yet. It may return an error
	// if the blob is complete and has no open reader.
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

var (
	// errExists ends the upload of a blob when the repository has the blob already.
	errExists = errors.New("the repository has the blob")
	// errComplete is returned for a blob that was complete before its upload could begin. Blob
	// then sends it, in one request, unless the repository has it or can mount it.
	errComplete = errors.New("the blob is complete")
)

// Stream sends a blob while it is written, as docker push does: the digest is only needed at the
// end of an upload (OCI distribution specification, "Pushing a blob in chunks"). A push of the
// blob waits for it. If Stream fails, Blob sends the blob again. Stream does nothing if another
// Pusher of the repository sends the blob.
func (p *Pusher) Stream(ctx context.Context, g Growing) error {
	s := &stream{g: g, done: make(chan struct{})}
	if !p.repo.add(s) {
		return nil
	}
	defer close(s.done)
	err := p.stream(ctx, g)
	s.ok = err == nil
	return err
}

// add records the upload of a blob, unless one is recorded. It reports whether it has recorded s.
func (r *repository) add(s *stream) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.streams, func(other *stream) bool { return other.g == s.g }) {
		return false
	}
	r.streams = append(r.streams, s)
	return true
}

func (r *repository) list() []*stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.streams)
}

// streamed reports whether a blob was sent by Stream. It waits for the end of its upload.
func (p *Pusher) streamed(ctx context.Context, d digest.Digest) bool {
	for _, s := range p.repo.list() {
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
	release, err := p.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	if _, done := g.Result(); done {
		return errComplete
	}
	// Without an open reader, the blob could not be opened any more when the upload has begun.
	reader, err := g.Open(ctx)
	if err != nil {
		return err
	}
	defer reader.Close() // nothing was read
	session, err := p.begin(ctx, "")
	if err != nil {
		return err
	}
	next, err := p.patch(ctx, g, session)
	if err == nil {
		err = p.end(ctx, g, next)
	}
	if err != nil {
		p.abandon(ctx, cmp.Or(next, session))
	}
	if errors.Is(err, errExists) {
		return nil
	}
	return err
}

// end ends the upload of a blob whose bytes were sent.
func (p *Pusher) end(ctx context.Context, g Growing, session string) error {
	d, err := g.Wait(ctx)
	if err != nil {
		return err
	}
	resp, err := p.complete(ctx, session, d, call{})
	if err != nil {
		return err
	}
	return stored(resp)
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
// continues, also with an error if the server has given one, and errExists if the repository has
// the blob.
//
// If the upload is to end early, patch first ends the body and waits for the answer: a registry
// that has read a part of a body keeps it, and refuses to delete it at the earlier URL
// (docker-registry 2.8 has the size in the URL).
func (p *Pusher) patch(ctx context.Context, g Growing, session string) (next string, err error) {
	body, stop := context.WithCancelCause(ctx)
	request, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var sent atomic.Int64
	answered, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		err := p.watch(body, g, &sent)
		stop(err)
		select {
		case <-answered:
		case <-time.After(p.c.o.Idle / 15):
			cancel(err)
		}
	}()
	resp, err := p.toUpload(request, call{
		method: http.MethodPatch, url: session, size: -1, wait: 24 * time.Hour, // see watch
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body: func() (io.ReadCloser, error) {
			r, err := g.Open(body)
			if err != nil {
				return nil, err
			}
			return &streamBody{r, &sent, body, stop}, nil
		},
	})
	stopped := context.Cause(body)
	close(answered)
	stop(nil)
	<-watched
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusAccepted || resp.StatusCode == http.StatusNoContent:
		next, err = p.location(resp)
	default:
		err = failure(resp)
	}
	if stopped != nil {
		err = stopped // whatever the server has answered, it has not got the whole blob
	}
	return next, err
}

// watch returns the reason for which an upload must end early: the blob will not be written, the
// repository has it, or the server takes no more bytes. It limits the wait for the server only when
// the blob is complete: until then the server may be waiting for bytes that are not written yet.
// watch returns the cause when ctx ends.
func (p *Pusher) watch(ctx context.Context, g Growing, sent *atomic.Int64) error {
	d, err := g.Wait(ctx)
	if err != nil {
		return err
	}
	if _, ok, err := p.stat(ctx, d.Digest); ok && err == nil {
		return errExists
	}
	for {
		before := sent.Load()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(p.c.o.Idle * 20):
		}
		if sent.Load() == before {
			return errNoAnswer
		}
	}
}

// streamBody is the body of an upload. It ends, without an error, when its context ends or its
// source fails: stop then gets the error.
type streamBody struct {
	io.ReadCloser
	n *atomic.Int64 // counts the bytes
	// ctx ends when the body must end. It is stored because net/http calls Read without one.
	ctx  context.Context
	stop context.CancelCauseFunc
}

func (s *streamBody) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, io.EOF
	}
	n, err := s.ReadCloser.Read(p)
	s.n.Add(int64(n))
	if err != nil && err != io.EOF {
		s.stop(err)
		err = io.EOF
	}
	return n, err
}
