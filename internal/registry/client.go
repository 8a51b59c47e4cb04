package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/layerbuild/layerbuild/internal/memo"
)

// Options are the options of a Client. The zero value is suitable for all uses except tests.
type Options struct {
	// Config is a containers-registries.conf; "": the file of CONTAINERS_REGISTRIES_CONF, or one
	// of the usual places.
	Config string
	// DockerConfig is a directory with a config.json; "": $DOCKER_CONFIG or ~/.docker.
	DockerConfig string
	// AuthFile is a file with credentials, as of containers-auth.json(5), that is read instead of
	// all others; "": the files of docker and podman.
	AuthFile string
	// Login is sent to each server that asks for a user name; the zero value: what the files have.
	Login Login
	// Logins are sent to their servers in place of Login and of what the files have. The keys are
	// those of Server.Domain.
	Logins map[string]Login
	// CertDir is a directory with certificates for all servers, as of containers-certs.d(5), that
	// is read instead of all others.
	CertDir string
	// Insecure allows plain http, and TLS without verification, for all servers. InsecureHosts
	// lists the servers for which it is allowed.
	Insecure      bool
	InsecureHosts []string
	// InsecurePull allows the same for all servers from which images are pulled.
	InsecurePull bool
	// Certificates are used for their servers besides those of CertDir and the usual directories.
	Certificates []Certificate
	// Mirrors are asked for images before those of the configuration, in their order. If
	// OnlyMirrors is set, and one of Mirrors is for an image, no other place is asked for it.
	Mirrors     []Mirror
	OnlyMirrors bool
	// UserAgent is the User-Agent header; "": "layerbuild".
	UserAgent string
	// Backoff is the wait before the first retry; each further one is twice as long. 0: 250 ms.
	Backoff time.Duration
	// Idle is the time after which a transfer without data counts as broken and is retried. 0:
	// 30 seconds.
	Idle time.Duration
	// MaxWait is the total time that all attempts of a download may wait for the server. 0: 100
	// seconds.
	MaxWait time.Duration
	// Ranges is the size from which a blob is downloaded in pieces of Piece bytes, several at once,
	// if the server allows it. 0: 32 MiB and 4 MiB.
	Ranges, Piece int64
	// Dial opens connections; nil: net.Dialer with a limit of 8 seconds, which includes the name
	// lookup.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Proxy chooses a proxy; nil: HTTP_PROXY, HTTPS_PROXY and NO_PROXY choose it.
	Proxy func(*http.Request) (*url.URL, error)
}

// Certificate has the files for the TLS connections to a server, in the PEM format.
type Certificate struct {
	Host string // host[:port], as in names of images
	// Authorities has the certificates of authorities to trust besides those of the system; "":
	// none.
	Authorities string
	// Client has the certificate of the client, and Key its key; both "": none.
	Client, Key string
}

// Mirror is a place that may have the images whose names begin with Prefix. There, Location takes
// the place of Prefix in the name.
type Mirror struct {
	Prefix, Location string // host[:port][/path]
}

// Login is a user name with its password.
type Login struct{ Username, Password string }

// Client sends requests to registries. It is safe for concurrent use. The caller closes it.
type Client struct {
	o      Options
	config func() (*config, error)
	creds  func() (*credentialStore, error)

	mu      sync.Mutex
	hosts   map[hostKey]*host
	holders map[blobIn]bool // blobs that this process has seen in a repository
	repos   map[endpoint]*repository
}

// hostKey identifies a server. insecure is the user's option: for a server on loopback it makes no
// difference.
type hostKey struct {
	name     string
	insecure bool
	web      bool // see host
}

// blobIn is a blob in a repository of a host.
type blobIn struct {
	host, repo, digest string
}

// New returns a Client. It does not read files or connect to a server yet.
func New(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "layerbuild"
	}
	if o.Backoff == 0 {
		o.Backoff = 250 * time.Millisecond
	}
	if o.Idle == 0 {
		o.Idle = 30 * time.Second
	}
	if o.MaxWait == 0 {
		o.MaxWait = 100 * time.Second
	}
	if o.Ranges == 0 {
		o.Ranges = 32 << 20
	}
	if o.Piece == 0 {
		o.Piece = 4 << 20
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: 8 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	return &Client{
		o: o,
		config: sync.OnceValues(func() (*config, error) {
			c, err := loadConfig(o.Config)
			if err == nil {
				c.mirrors, c.onlyMirrors, c.insecure = o.Mirrors, o.OnlyMirrors, o.InsecurePull
			}
			return c, err
		}),
		creds: sync.OnceValues(func() (*credentialStore, error) {
			return loadCredentials(o)
		}),
		hosts:   map[hostKey]*host{},
		holders: map[blobIn]bool{},
		repos:   map[endpoint]*repository{},
	}
}

// Close ends idle connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		h.transport.CloseIdleConnections()
	}
	return nil
}

// host is one server and the facts that are known about it.
type host struct {
	c         *Client
	name      string // host[:port] as connected to
	insecure  bool   // plain http and unverified certificates are allowed: see hostKey
	web       bool   // it is not a registry
	transport *http.Transport
	http      *http.Client
	direct    *http.Client // returns redirects
	auth      authState
	scheme    memo.Map[string, string] // that of name, once it is known
	noTLS     atomic.Pointer[error]    // why scheme is http, until a request has succeeded
}

// host returns the state of a server, which is created on first use.
func (c *Client) host(name string, insecure bool) (*host, error) {
	return c.hostOf(hostKey{name: name, insecure: insecure || c.o.Insecure ||
		slices.ContainsFunc(c.o.InsecureHosts,
			func(domain string) bool { return serverOf(domain) == name })})
}

// hostOf is host for any kind of server.
func (c *Client) hostOf(key hostKey) (*host, error) {
	if h := c.known(key); h != nil {
		return h, nil
	}
	made, err := c.newHost(key)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.hosts[key]; h != nil { // another goroutine was faster, and made has no connections
		return h, nil
	}
	c.hosts[key] = made
	return made, nil
}

// repository returns the uploads to a repository, which its pushers share.
func (c *Client) repository(e endpoint) *repository {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[e]
	if r == nil {
		r = &repository{}
		c.repos[e] = r
	}
	return r
}

// known returns the state of a server that was used before, or nil.
func (c *Client) known(key hostKey) *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hosts[key]
}

// newHost reads the certificates for a server, and returns its state.
func (c *Client) newHost(key hostKey) (*host, error) {
	h := &host{c: c, name: key.name, insecure: key.insecure || isLoopback(key.name),
		web: key.web}
	tlsConfig, err := tlsFor(key.name, h.insecure, c.o.CertDir)
	if err != nil {
		return nil, err
	}
	for _, cert := range c.o.Certificates {
		if serverOf(cert.Host) != key.name {
			continue
		}
		if err := cert.add(tlsConfig); err != nil {
			return nil, fmt.Errorf("certificates for %s: %w", cert.Host, err)
		}
	}
	h.transport = &http.Transport{
		Proxy:                  c.o.Proxy,
		OnProxyConnectResponse: checkProxy,
		DialContext:            c.o.Dial,
		// Several plain connections move blobs faster than the streams of one HTTP/2 connection,
		// which share a window.
		TLSClientConfig:     tlsConfig,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     30 * time.Second,
		// for requests with "Expect: 100-continue"
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // digests are computed over the stored bytes
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       64 << 10,
	}
	h.http = &http.Client{Transport: h.transport, CheckRedirect: h.checkRedirect}
	h.direct = &http.Client{Transport: h.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}
	h.auth.host = h
	return h, nil
}

// checkProxy returns an error if a proxy refuses a connection to a server. The error of net/http
// has only the text of the status.
func checkProxy(_ context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return fmt.Errorf("the proxy %s does not connect to %s: it answers %s", proxy.Host, req.Host,
		printable(resp.Status))
}

// isLoopback reports whether a server is on this machine.
func isLoopback(hostport string) bool {
	name := hostname(hostport)
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}

// isLinkLocal reports whether a host is a link-local address, where clouds serve the credentials of
// the machine, or the unspecified address.
func isLinkLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.IsLinkLocalUnicast() || ip.IsUnspecified())
}

// hostname returns a server's name without the port.
func hostname(hostport string) string {
	name := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		name = h
	}
	return strings.Trim(name, "[]")
}

// base returns the beginning of the server's URLs, "https://host". A server that may use plain
// http is probed once, without credentials.
func (h *host) base(ctx context.Context) (string, error) {
	scheme := "https"
	if h.insecure {
		var err error
		scheme, err = h.scheme.Try(ctx, h.name, func() (string, error) { return h.probe(ctx) })
		if err != nil {
			return "", err
		}
	}
	return scheme + "://" + h.name, nil
}

// address returns the whole URL of a call.
func (h *host) address(ctx context.Context, url string) (string, error) {
	if !strings.HasPrefix(url, "/") {
		return url, nil
	}
	base, err := h.base(ctx)
	return base + url, err
}

// probe returns "https" if the server answers to it, and otherwise "http". An https server that
// breaks one connection is not taken for a server of plain http.
func (h *host) probe(ctx context.Context) (string, error) {
	err := h.answersTLS(ctx)
	if err != nil && ctx.Err() == nil && !speaksPlainHTTP(err) && retryable(err) {
		err = h.answersTLS(ctx)
	}
	switch {
	case err == nil:
		return "https", nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	}
	h.noTLS.Store(&err)
	return "http", nil
}

// answersTLS returns an error if the server does not answer to https.
func (h *host) answersTLS(ctx context.Context) error {
	ctx1, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx1, http.MethodGet, "https://"+h.name+"/v2/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", h.c.o.UserAgent)
	resp, err := h.http.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// checkRedirect makes sure that credentials are sent only to the server that they are for.
// net/http also sends them to subdomains and to other ports of the same name, and takes the
// headers of each hop from the first request.
func (h *host) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("more than 10 redirects")
	}
	first := via[0].URL
	if before := via[len(via)-1].Method; req.Method != before && before != http.MethodPost {
		// net/http sends a GET in place of a PUT (301, 302, 303). Its answer, perhaps "204 No
		// Content" for the state of an upload, says nothing about the content.
		return fmt.Errorf("redirect that changes %s to %s, at %s", before, req.Method,
			via[len(via)-1].URL.Host)
	}
	req.Header.Del("Referer") // it may contain a signed address
	if req.URL.Scheme == "http" && first.Scheme == "https" && !h.insecure &&
		!isBlobRequest(via[0]) {
		return fmt.Errorf("redirect from https to plain http, at %s", req.URL.Host)
	}
	if isLinkLocal(req.URL.Hostname()) {
		return fmt.Errorf("redirect to a link-local address: %s", req.URL.Host)
	}
	for _, r := range append(via[1:], req) {
		if r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
			req.Header.Del("Authorization")
			if req.Body != nil && req.Body != http.NoBody &&
				req.Header.Get("Content-Type") == formType {
				return errors.New("redirect of a request with credentials to another server")
			}
		}
	}
	switch req.URL.Scheme {
	case "http", "https":
		return nil
	}
	return fmt.Errorf("redirect to a %q address", req.URL.Scheme)
}

// isBlobRequest reports whether a request is for a blob. Its digest is known, so any connection
// is safe.
func isBlobRequest(req *http.Request) bool {
	return req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/")
}

// call describes one request, so that it can be sent again.
type call struct {
	method string
	url    string // a whole URL, or its part from "/v2/" on
	header http.Header
	body   func() (io.ReadCloser, error) // nil: none
	size   int64                         // the size of the body
	// the scopes that a token must allow, separated by spaces; "": none
	scope string
	bare  bool // send no credentials: the address is of another server
	once  bool // the caller retries
	// authorize adds the headers of a bare call that authenticate it; nil: there are none
	authorize func(*http.Request) error
	direct    bool // return the answer if it is a redirect
	// the limit for the first bytes of the answer; 0: Options.Idle
	wait time.Duration

	// budget is shared by the requests of one download. nil: the call has its own.
	budget *waitBudget
}

// waitBudget limits the time that is spent waiting for a server, both for answers and for data.
type waitBudget struct {
	limit, used time.Duration
	bytes       int64 // that arrived in the time used
}

// refillBytes is the number of bytes after which the whole budget is available again. A transfer
// with fewer bytes in Options.MaxWait is given up.
const refillBytes = 64 << 10

func (b *waitBudget) left() time.Duration { return b.limit - b.used }

// spend subtracts the time that was spent waiting for n bytes.
func (b *waitBudget) spend(d time.Duration, n int) {
	b.used += d
	if b.bytes += int64(n); b.bytes >= refillBytes {
		b.used, b.bytes = 0, 0
	}
}

// maxRetryAfter is the longest total wait of one request that a server may require by Retry-After.
const maxRetryAfter = 2 * time.Minute

// maxTries is how often a request is sent, with waits of 1/4, 1/2, 1 and 2 seconds between.
const maxTries = 5

// do sends a request, with retries, and returns the answer, whatever its status is: a status
// that a retry may change has been retried. The caller closes the body.
func (h *host) do(ctx context.Context, q call) (*http.Response, error) {
	if q.budget == nil {
		q.budget = &waitBudget{limit: h.c.o.MaxWait}
		if q.body != nil {
			q.budget.limit = 1 << 62 // the time of an upload is limited by q.wait
		}
	}
	challenged := 0
	var required time.Duration // by Retry-After
	for try := 1; ; try++ {
		resp, sent, err := h.send(ctx, q)
		if err == nil && resp.StatusCode == http.StatusUnauthorized && !q.bare && challenged < 2 {
			challenged++
			again, err := h.auth.answer(ctx, resp, q.scope, sent)
			if err != nil {
				discard(resp)
				return nil, err
			}
			if again {
				discard(resp)
				try--
				continue
			}
		}
		if q.once || try >= maxTries || q.budget.left() <= 0 {
			return resp, err
		}
		var delay time.Duration
		switch {
		case err != nil:
			if !retryable(err) || ctx.Err() != nil || try >= 3 && isRefused(err) {
				return nil, err
			}
		case retryableStatus(resp.StatusCode):
			delay = retryAfter(resp)
			if required += delay; delay > time.Minute || required > maxRetryAfter {
				return resp, nil // too long to wait without a message
			}
			discard(resp)
		default:
			return resp, nil
		}
		if err := h.c.sleep(ctx, max(delay, h.c.o.Backoff<<(try-1))); err != nil {
			return nil, err
		}
	}
}

// send sends a request once. sent is its Authorization header.
func (h *host) send(ctx context.Context, q call) (resp *http.Response, sent string, err error) {
	if !q.bare {
		if err := h.auth.ready(ctx, q.scope); err != nil {
			return nil, "", err
		}
	}
	start := time.Now()
	defer func() { q.budget.spend(time.Since(start), 0) }()
	address, err := h.address(ctx, q.url)
	if err != nil {
		return nil, "", err
	}
	// A timer limits the wait for the answer: the limit of net/http would also end uploads that
	// a server acknowledges late.
	wait := q.wait
	if wait == 0 {
		wait = h.c.o.Idle
	}
	wait = min(wait, q.budget.left())
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(wait, func() { cancel(errNoAnswer) })
	answered := &atomic.Bool{}
	defer func() {
		answered.Store(true)
		timer.Stop()
	}()
	var body io.ReadCloser
	if q.body != nil {
		if body, err = q.body(); err != nil {
			cancel(nil)
			return nil, "", err
		}
		body = &resetting{ReadCloser: body, timer: timer, wait: wait, answered: answered}
	}
	req, err := http.NewRequestWithContext(ctx, q.method, address, nil)
	if err != nil {
		cancel(nil)
		if body != nil {
			body.Close()
		}
		return nil, "", err
	}
	if body != nil {
		req.Body, req.ContentLength = body, q.size
		if q.size == 0 {
			body.Close()
			req.Body = http.NoBody
		}
	}
	for k, v := range q.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", h.c.o.UserAgent)
	if !q.bare {
		if sent, err = h.auth.header(ctx, q.scope); err != nil {
			cancel(nil)
			if body != nil {
				body.Close()
			}
			return nil, "", err
		}
		if sent != "" {
			req.Header.Set("Authorization", sent)
		}
	}
	client := h.http
	if q.direct {
		client = h.direct
	}
	if q.authorize != nil {
		if err := q.authorize(req); err != nil {
			cancel(nil)
			if body != nil {
				body.Close()
			}
			return nil, "", err
		}
	}
	resp, err = client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, sent, explain(h, err)
	}
	if h.noTLS.Load() != nil {
		h.noTLS.Store(nil) // plain http was right
	}
	resp.Body = &answerBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, idle: h.c.o.Idle,
		budget: q.budget}
	return resp, sent, nil
}

// errNoAnswer ends a request that is not answered, errIdle a transfer without data. A retry may
// succeed.
var (
	errNoAnswer = errors.New("no answer in time")
	errIdle     = errors.New("no data arrived in time")
)

// resetting restarts the timer for the answer whenever the server reads data of the body.
type resetting struct {
	io.ReadCloser
	timer    *time.Timer
	wait     time.Duration
	answered *atomic.Bool // the answer arrived before the whole body was sent
}

func (r *resetting) Read(p []byte) (int, error) {
	if !r.answered.Load() {
		r.timer.Reset(r.wait)
	}
	return r.ReadCloser.Read(p)
}

// answerBody returns an error if no data arrives for a while, or too little for a longer time.
// Close cancels the request.
type answerBody struct {
	io.ReadCloser
	ctx    context.Context // the request's, for the cause of its end
	cancel context.CancelCauseFunc
	idle   time.Duration
	budget *waitBudget
	timer  *time.Timer
}

func (b *answerBody) Read(p []byte) (int, error) {
	idle := min(b.idle, b.budget.left())
	if b.timer == nil {
		b.timer = time.AfterFunc(idle, func() { b.cancel(errIdle) })
	} else {
		b.timer.Reset(idle)
	}
	start := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop() // the caller spends the time between reads
	b.budget.spend(time.Since(start), n)
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *answerBody) Close() error {
	if b.timer != nil {
		b.timer.Stop()
	}
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// discard reads the rest of a short answer, so that its connection can be used again.
func discard(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

// sleep waits, with some random variation, so that several builds do not retry at the same
// moment.
func (c *Client) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(jitter(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
