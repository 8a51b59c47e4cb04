package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Fetcher opens the blobs to push. The reader returns an error at its end if the content does
// not match the descriptor. store.Store and Source implement it.
type Fetcher interface {
	Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// PushOptions are the options of a push. The zero value works.
type PushOptions struct {
	// Jobs is the number of blobs that are sent at the same time; 0: 4.
	Jobs int
	// ByDigest pushes the image without a tag: it is found by its digest only.
	ByDigest bool
	// Insecure allows plain http, and TLS without verification of the certificate.
	Insecure bool
	// From returns the repositories ("docker.io/library/debian") that are known to have a blob.
	// If one is on the same server, no upload is needed. nil: only repositories that this
	// process has used are tried.
	From func(digest.Digest) []string
	// Progress is called with the progress of each blob, by several goroutines; may be nil.
	Progress func(PushProgress)
}

// PushProgress is the progress of a blob or a manifest.
type PushProgress struct {
	Descriptor ocispec.Descriptor
	Current    int64
	Done       bool
	Note       string // with Done: "exists", "mounted from library/debian", or "" if it was sent
}

// Pusher pushes to one repository. Blobs may be passed to it one by one, as each is ready, in
// any order and concurrently; manifests after the blobs that they refer to.
type Pusher struct {
	c     *Client
	name  reference.Name
	place endpoint
	host  *host
	o     PushOptions
	slots chan struct{}
	repo  *repository
}

// repository holds the uploads to a repository. The pushers of names with different tags share it.
type repository struct {
	blobs memo.Map[digest.Digest, struct{}] // those that are being pushed, or were

	mu      sync.Mutex
	streams []*stream // blobs that are sent while they are written
}

// Pusher returns a Pusher for an image name. It does not connect yet. Mirrors and locations of
// registries.conf apply to reading only; insecure and blocked apply here too.
func (c *Client) Pusher(name string, o PushOptions) (*Pusher, error) {
	n, err := reference.Full(name)
	if err != nil {
		return nil, err
	}
	if n.Digest != "" {
		return nil, fmt.Errorf("push %s: a name to push to has a tag, not a digest", name)
	}
	conf, err := c.config()
	if err != nil {
		return nil, err
	}
	e := endpoint{host: serverOf(n.Domain), repo: n.Path, insecure: o.Insecure}
	if t := conf.find(n.String()); t != nil {
		if t.Blocked {
			return nil, fmt.Errorf("push %s: registry %s is %w", n, t.Prefix, ErrBlocked)
		}
		e.insecure = e.insecure || t.Insecure
	}
	h, err := c.host(e.host, e.insecure)
	if err != nil {
		return nil, err
	}
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	if o.Progress == nil {
		o.Progress = func(PushProgress) {}
	}
	return &Pusher{c: c, name: n, place: e, host: h, o: o, slots: make(chan struct{}, o.Jobs),
		repo: c.repository(e)}, nil
}

// slot waits until fewer than Jobs blobs are being sent. The caller calls release when it has sent
// its blob.
func (p *Pusher) slot(ctx context.Context) (release func(), err error) {
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Name returns the full name that is pushed to.
func (p *Pusher) Name() string { return p.name.String() }

// Push copies an image and everything that it refers to, and then its tag.
func (c *Client) Push(ctx context.Context, name string, src Fetcher, root ocispec.Descriptor,
	o PushOptions) error {
	p, err := c.Pusher(name, o)
	if err != nil {
		return err
	}
	return p.Push(ctx, src, root)
}

// Push pushes the blobs of an image that have not been pushed yet, then its manifest or index
// under the pusher's tag.
func (p *Pusher) Push(ctx context.Context, src Fetcher, root ocispec.Descriptor) error {
	err := p.graph(ctx, src, root, "", 0)
	if errors.Is(err, ErrDenied) {
		err = p.denied(ctx, err)
	}
	if err != nil {
		return fmt.Errorf("push %s: %w", p.name, err)
	}
	return nil
}

// graph pushes a document after everything that it refers to.
func (p *Pusher) graph(ctx context.Context, src Fetcher, d ocispec.Descriptor,
	ref string, depth int) error {
	if depth > ocidoc.MaxNesting {
		return ocidoc.ErrNesting
	}
	data, err := readDocument(ctx, src, d)
	if err != nil {
		return err
	}
	doc, err := ocidoc.Parse(data)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	g, ctx1 := errgroup.WithContext(ctx)
	for _, m := range doc.Manifests {
		g.Go(func() error { return p.graph(ctx1, src, m, m.Digest.String(), depth+1) })
	}
	for _, b := range doc.Content() {
		if !ocidoc.IsForeign(b.MediaType) {
			g.Go(func() error { return p.Blob(ctx1, src, b) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return p.Manifest(ctx, d, data, ref)
}

func readDocument(ctx context.Context, src Fetcher, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > ocidoc.MaxManifest {
		return nil, fmt.Errorf("manifest %s: %d bytes are too many", d.Digest, d.Size)
	}
	r, err := src.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, ocidoc.MaxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	return data, nil
}

// Blob pushes a blob unless the repository or another one on the same server has it. It may be
// called several times for one blob: the work is done once.
func (p *Pusher) Blob(ctx context.Context, src Fetcher, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("push blob %q: %w", d.Digest, err)
	}
	_, err := p.repo.blobs.Try(ctx, d.Digest, func() (struct{}, error) {
		return struct{}{}, p.blob(ctx, src, d)
	})
	return err
}

func (p *Pusher) blob(ctx context.Context, src Fetcher, d ocispec.Descriptor) error {
	// Without a slot: the stream may be waiting for one.
	if p.streamed(ctx, d.Digest) {
		p.c.addHolder(p.place, d.Digest)
		p.o.Progress(PushProgress{Descriptor: d, Current: d.Size, Done: true})
		return nil
	}
	release, err := p.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	p.o.Progress(PushProgress{Descriptor: d})
	note, err := p.send(ctx, src, d)
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	p.c.addHolder(p.place, d.Digest)
	p.o.Progress(PushProgress{Descriptor: d, Current: d.Size, Done: true, Note: note})
	return nil
}

// Locate brings a blob into the repository if the repository or another one on the same server has
// it, without reading the blob, and reports whether the repository has it now. It returns false if
// the blob has another size there.
func (p *Pusher) Locate(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	if err := d.Digest.Validate(); err != nil {
		return false, fmt.Errorf("blob %q: %w", d.Digest, err)
	}
	release, err := p.slot(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	ok, note, err := p.locate(ctx, d)
	if err != nil {
		return false, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if !ok {
		return false, nil
	}
	p.c.addHolder(p.place, d.Digest)
	_, err = p.repo.blobs.Try(ctx, d.Digest, func() (struct{}, error) {
		p.o.Progress(PushProgress{Descriptor: d, Current: d.Size, Done: true, Note: note})
		return struct{}{}, nil
	})
	return err == nil, err
}

func (p *Pusher) locate(ctx context.Context, d ocispec.Descriptor) (ok bool, note string,
	err error) {
	note = "exists"
	size, ok, err := p.stat(ctx, d.Digest)
	if err != nil {
		return false, "", err
	}
	if !ok {
		var session string
		note, session, err = p.mountAny(ctx, d)
		if session != "" {
			p.abandon(ctx, session)
		}
		if err != nil || note == "" {
			return false, "", err
		}
		if size, ok, err = p.stat(ctx, d.Digest); err != nil {
			return false, "", err
		}
	}
	return ok && (size == d.Size || size < 0), note, nil
}

// send brings a blob into the repository in the cheapest way.
func (p *Pusher) send(ctx context.Context, src Fetcher,
	d ocispec.Descriptor) (note string, err error) {
	if _, ok, err := p.stat(ctx, d.Digest); err != nil {
		return "", err
	} else if ok {
		return "exists", nil
	}
	note, session, err := p.mountAny(ctx, d)
	if err != nil || note != "" {
		return note, err
	}
	for try := 1; ; try++ {
		if session == "" {
			if session, err = p.begin(ctx, ""); err != nil {
				return "", err
			}
		}
		err = p.upload(ctx, src, d, session)
		if err == nil {
			return "", nil
		}
		var e *Error
		again := retryable(err) || errors.As(err, &e) &&
			(retryableStatus(e.Status) || e.Status == http.StatusNotFound)
		if !again || try >= maxTries || ctx.Err() != nil {
			return "", err
		}
		session = "" // an incomplete upload is started again
		if err := p.c.sleep(ctx, p.c.o.Backoff<<(try-1)); err != nil {
			return "", err
		}
	}
}

// stat reports whether the repository has a blob, and returns its size, -1 if the server does not
// send it.
func (p *Pusher) stat(ctx context.Context, d digest.Digest) (size int64, ok bool, err error) {
	resp, err := p.host.do(ctx, call{method: http.MethodHead,
		url:    "/v2/" + p.place.repo + "/blobs/" + d.String(),
		header: http.Header{"Accept": accepted}, scope: pushScope(p.place.repo)})
	if err != nil {
		return 0, false, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		resp.Body.Close()
		return resp.ContentLength, true, nil
	case http.StatusNotFound:
		resp.Body.Close()
		return 0, false, nil
	}
	return 0, false, failure(resp)
}

func pushScope(repo string) string { return "repository:" + repo + ":pull,push" }

// mountable returns the repositories of this server that may have the blob.
func (p *Pusher) mountable(d digest.Digest) []string {
	repos := p.c.reposWith(p.place.host, d)
	if p.o.From != nil {
		for _, name := range p.o.From(d) {
			if n, err := reference.Full(name); err == nil && serverOf(n.Domain) == p.place.host {
				repos = append(repos, n.Path)
			}
		}
	}
	slices.Sort(repos)
	repos = slices.Compact(repos)
	repos = slices.DeleteFunc(repos, func(r string) bool { return r == p.place.repo })
	return repos[:min(len(repos), 3)]
}

// mountAny mounts a blob from another repository of the server, and returns a note with its name,
// or "" if that was not possible. session is then the URL of an upload, if a request has begun one.
func (p *Pusher) mountAny(ctx context.Context, d ocispec.Descriptor) (note, session string,
	err error) {
	for _, from := range p.mountable(d.Digest) {
		var ok bool
		if ok, session, err = p.mount(ctx, d, from); err != nil {
			return "", "", err
		}
		if ok {
			return "mounted from " + from, "", nil
		}
		if session != "" {
			break
		}
	}
	return "", session, nil
}

// mount asks the server to copy the blob from another of its repositories. If the server
// refuses, it may have begun an upload.
func (p *Pusher) mount(ctx context.Context, d ocispec.Descriptor,
	from string) (ok bool, session string, err error) {
	q := url.Values{"mount": {d.Digest.String()}, "from": {from}}
	resp, err := p.host.do(ctx, call{method: http.MethodPost,
		url:   "/v2/" + p.place.repo + "/blobs/uploads/?" + q.Encode(),
		scope: pushScope(p.place.repo) + " " + pullScope(from)})
	if err != nil {
		return false, "", err
	}
	switch resp.StatusCode {
	case http.StatusCreated:
		resp.Body.Close()
		return true, "", nil
	case http.StatusAccepted:
		session, err = p.location(resp)
		return false, session, err
	}
	resp.Body.Close() // most likely reading there is not allowed; the blob is uploaded then
	return false, "", nil
}

// begin begins an upload.
func (p *Pusher) begin(ctx context.Context, query string) (session string, err error) {
	resp, err := p.host.do(ctx, call{method: http.MethodPost,
		url: "/v2/" + p.place.repo + "/blobs/uploads/" + query, scope: pushScope(p.place.repo)})
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusAccepted {
		return "", failure(resp)
	}
	return p.location(resp)
}

// location returns the URL at which an upload continues.
func (p *Pusher) location(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	u, err := resp.Location()
	if err != nil {
		return "", fmt.Errorf("the server's answer has no valid upload location: %w", err)
	}
	at := resp.Request.URL
	if u.Scheme == "http" && at.Scheme == "https" && u.Hostname() == at.Hostname() {
		// The registry is behind a proxy that terminates TLS, and does not know about it.
		u.Scheme, u.Host = at.Scheme, at.Host
	}
	if u.Scheme != "https" && u.Scheme != at.Scheme {
		return "", fmt.Errorf("the server's upload location %s is not safe", u.Redacted())
	}
	return u.String(), nil
}

// upload sends a blob in one request.
func (p *Pusher) upload(ctx context.Context, src Fetcher, d ocispec.Descriptor,
	session string) error {
	var bad atomic.Pointer[error] // an error of the local content
	resp, err := p.complete(ctx, session, d, call{size: d.Size,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body: func() (io.ReadCloser, error) {
			r, err := src.Fetch(ctx, d)
			if err != nil {
				return nil, err
			}
			return &uploading{r: r, d: d, progress: p.o.Progress, bad: &bad}, nil
		},
	})
	if own := bad.Load(); own != nil {
		if err == nil {
			resp.Body.Close()
		}
		return *own
	}
	if err != nil {
		return err
	}
	return stored(resp)
}

// complete sends the request that ends an upload. q has its body, if the blob is sent with it.
func (p *Pusher) complete(ctx context.Context, session string, d ocispec.Descriptor,
	q call) (*http.Response, error) {
	u, err := url.Parse(session)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	query.Set("digest", d.Digest.String())
	u.RawQuery = query.Encode()
	q.method, q.url, q.wait = http.MethodPut, u.String(), p.c.o.Idle*20
	return p.toUpload(ctx, q)
}

// stored closes the answer to the end of an upload. It returns an error if the server has not
// stored the blob.
func stored(resp *http.Response) error {
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return failure(resp)
	}
	resp.Body.Close()
	return nil
}

// uploading is the body of an upload.
type uploading struct {
	r        io.ReadCloser
	d        ocispec.Descriptor
	progress func(PushProgress)
	n, told  int64
	bad      *atomic.Pointer[error]
}

func (u *uploading) Read(b []byte) (int, error) {
	n, err := u.r.Read(b)
	u.n += int64(n)
	if u.n-u.told >= 256<<10 {
		u.told = u.n
		u.progress(PushProgress{Descriptor: u.d, Current: u.n})
	}
	if err == nil && u.n == u.d.Size {
		// net/http does not read beyond the size; the content is verified at its end.
		var one [1]byte
		if _, err1 := u.r.Read(one[:]); err1 != io.EOF {
			err = err1
			if err == nil {
				err = fmt.Errorf("blob %s has more than %d bytes", u.d.Digest, u.d.Size)
			}
		}
	}
	if err != nil && err != io.EOF {
		u.bad.Store(&err)
	}
	return n, err
}

func (u *uploading) Close() error { return u.r.Close() }

// Manifest pushes a manifest or index. ref is its digest if an index refers to it; "" means the
// pusher's tag, or the digest with ByDigest.
func (p *Pusher) Manifest(ctx context.Context, d ocispec.Descriptor,
	data []byte, ref string) error {
	switch {
	case ref == "" && p.o.ByDigest:
		ref = d.Digest.String()
	case ref == "":
		ref = p.name.Tag
	}
	resp, err := p.host.do(ctx, call{
		method: http.MethodPut, url: "/v2/" + p.place.repo + "/manifests/" + ref,
		size:   int64(len(data)),
		header: http.Header{"Content-Type": {d.MediaType}}, scope: pushScope(p.place.repo),
		wait: p.c.o.Idle * 4,
		body: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(string(data))), nil
		},
	})
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK &&
		resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("manifest %s: %w", d.Digest, failure(resp))
	}
	resp.Body.Close()
	if got := digest.Digest(resp.Header.Get("Docker-Content-Digest")); got.Validate() == nil &&
		got.Algorithm() == d.Digest.Algorithm() && got != d.Digest {
		return fmt.Errorf("manifest %s: the server has stored it as %s", d.Digest, got)
	}
	return nil
}
