package registry

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Request is a request to a server that is not a registry, such as the server of a cache.
type Request struct {
	Method string
	// URL is the whole address, without a user name.
	URL    string
	Header http.Header
	// Body opens the body, once for each attempt; nil: there is none. Size is its size.
	Body func() (io.ReadCloser, error)
	Size int64
	// Authorize adds the headers that authenticate the request, each time it is sent. nil: if the
	// server requires a user, the credentials that the files have for it are sent.
	Authorize func(*http.Request) error
	// Direct is set if the answer is returned when it is a redirect.
	Direct bool
}

// Do sends a request, with the retries, limits, proxies and certificates of a request to a
// registry, and returns the answer, whatever its status is. The caller closes the body. The header
// Authorization is not sent along a redirect to another server.
func (c *Client) Do(ctx context.Context, r Request) (*http.Response, error) {
	h, q, err := c.callOf(r)
	if err != nil {
		return nil, err
	}
	return h.do(ctx, q)
}

// callOf returns the call of a request and its server.
func (c *Client) callOf(r Request) (*host, call, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, call{}, err
	}
	h, err := c.hostOf(hostKey{name: u.Host, insecure: u.Scheme == "http", web: true})
	if err != nil {
		return nil, call{}, err
	}
	header := maps.Clone(r.Header)
	if header == nil {
		header = http.Header{}
	}
	if r.Size >= askFirst {
		header.Set("Expect", "100-continue")
	}
	wait := c.o.Idle
	if r.Body != nil {
		wait *= 4 // a server may copy or check what was sent before it answers
	}
	return h, call{method: r.Method, url: r.URL, header: header, body: r.Body, size: r.Size,
		bare: r.Authorize != nil, authorize: r.Authorize, direct: r.Direct, wait: wait}, nil
}

// askFirst is the size of a body from which the server is asked for its consent before the body is
// sent: a server that requires credentials then need not read the body before it answers.
const askFirst = 256 << 10

// Read sends a GET request and returns the header and the body of the answer, which has at most
// limit bytes. If the connection breaks, the request is sent again. The error is an *Error if the
// status is not 200.
func (c *Client) Read(ctx context.Context, r Request, limit int64) (http.Header, []byte, error) {
	r.Method = http.MethodGet
	h, q, err := c.callOf(r)
	if err != nil {
		return nil, nil, err
	}
	return h.read(ctx, q, limit, "GET "+withoutSecrets(r.URL))
}

// Open opens the blob that the answer to a GET request has. A large blob is downloaded in pieces,
// several at once, if the server allows it, and a broken transfer is resumed where it stopped. The
// size is verified, and the caller verifies the digest and closes the reader.
func (c *Client) Open(ctx context.Context, r Request,
	d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("fetch blob %q: %w", d.Digest, err)
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, err
	}
	r.Method = http.MethodGet
	s := &Source{c: c, request: &r,
		places: []endpoint{{host: u.Host, repo: strings.Trim(u.Path, "/")}}}
	d.URLs = nil // the blob is fetched from this server only
	return s.openBlob(ctx, d)
}

// Failure turns an unexpected answer into an *Error, and closes it.
func Failure(resp *http.Response) error { return failure(resp) }

// withoutSecrets returns an address without the password and the query, which has the signature of
// a signed address.
func withoutSecrets(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an invalid address"
	}
	u.RawQuery = ""
	return u.Redacted()
}
