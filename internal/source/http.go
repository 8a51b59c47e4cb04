package source

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	digest "github.com/opencontainers/go-digest"

	"github.com/layerbuild/layerbuild/internal/fileentry"
)

// Download is a file at an http or https URL.
type Download struct {
	// Name is the file's name if the destination is a directory: the last part of the URL's path.
	// If that is empty, the name may be in the server's response.
	Name string
	// Digest is the digest of the content.
	Digest digest.Digest

	url   *url.URL
	o     HTTPOptions
	mtime time.Time // the modification time in the server's response; the epoch if there is none
	body  *Fetched  // set if the file was downloaded to compute its digest
}

// HTTP finds the digest of the file at a URL: from the checksum that it must have, from an earlier
// build, if the server confirms that the file is unchanged, or by downloading it.
func HTTP(ctx context.Context, address string, o HTTPOptions) (*Download, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("source %q: not an http or https URL", u.Redacted())
	}
	if o.Client == nil {
		o.Client = &http.Client{CheckRedirect: checkRedirect}
	}
	if o.Silence == 0 {
		o.Silence = 100 * time.Second
	}
	d := &Download{url: u, o: o, Name: safeName(path.Base(u.Path)), mtime: time.Unix(0, 0)}
	if o.Checksum != "" {
		if err := o.Checksum.Validate(); err != nil {
			return nil, fmt.Errorf("checksum %q of %s: %w", o.Checksum, u.Redacted(), err)
		}
		d.Digest = o.Checksum
		return d, nil
	}
	return d, d.resolve(ctx)
}

// unnamed is the name of a file whose URL has no name for it.
const unnamed = "__unnamed__"

// safeName returns a file name from a URL or a server's response, or "" if it is not valid.
func safeName(s string) string {
	name := filepath.Base(strings.TrimSpace(s))
	if name == "." || name == ".." || name == "/" || strings.ContainsFunc(name, unicode.IsControl) {
		return ""
	}
	return name
}

// Key returns a key of the content, its name and its time. With a checksum, the time is not
// known before the download and is not part of the key.
func (d *Download) Key() digest.Digest {
	b, err := json.Marshal([]any{"http", d.name(), d.Digest, d.mtime.Unix(), d.o.Checksum != ""})
	if err != nil {
		panic(err) // strings and numbers
	}
	return digest.FromBytes(b)
}

func (d *Download) name() string {
	if d.Name == "" {
		return unnamed
	}
	return d.Name
}

// seen is the information about a URL in the store.
type seen struct {
	URL    string        `json:"url"`
	ETag   string        `json:"etag"`
	Digest digest.Digest `json:"digest"`
	Name   string        `json:"name,omitempty"`
	MTime  int64         `json:"mtime"`
}

func (d *Download) storeName() string {
	h := sha256.Sum256([]byte(d.url.String()))
	return "http-" + hex.EncodeToString(h[:])
}

// remembered returns the information about the URL in the store, or nil if there is none that can
// be used.
func (d *Download) remembered() *seen {
	if d.o.Store == nil {
		return nil
	}
	s := new(seen)
	err := json.Unmarshal(d.o.Store.Load(d.storeName()), s)
	if err != nil || s.URL != d.url.String() || s.ETag == "" || s.Digest.Validate() != nil {
		return nil
	}
	return s
}

func (d *Download) resolve(ctx context.Context) error {
	old := d.remembered()
	etag := ""
	if old != nil {
		etag = old.ETag
		if d.unchanged(ctx, etag) {
			d.use(old)
			return nil
		}
	}
	resp, err := d.get(ctx, etag)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if old != nil && confirms(resp, etag) {
		d.use(old)
		return nil
	}
	if d.body, err = d.save(resp); err != nil {
		return err
	}
	if etag := resp.Header.Get("ETag"); etag != "" && d.o.Store != nil {
		b, err := json.Marshal(seen{URL: d.url.String(), ETag: etag, Digest: d.Digest, Name: d.Name,
			MTime: d.mtime.Unix()})
		if err != nil {
			panic(err) // strings and numbers
		}
		// If the value is not stored, the file is downloaded again.
		_ = d.o.Store.Store(ctx, d.storeName(), b)
	}
	return nil
}

// use sets the fields to those of an earlier build.
func (d *Download) use(old *seen) {
	d.Digest, d.mtime = old.Digest, time.Unix(old.MTime, 0)
	if d.Name == "" {
		d.Name = old.Name
	}
}

// unchanged reports whether the server confirms with HEAD that the file still has an ETag. Some
// servers ignore If-None-Match and would send the whole file as the response to GET. A server that
// does not answer HEAD is asked with GET.
func (d *Download) unchanged(ctx context.Context, etag string) bool {
	resp, err := d.request(ctx, http.MethodHead, etag)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return confirms(resp, etag)
}

// confirms reports whether the response to a request with If-None-Match means that the file still
// has the ETag. Some servers send 200 OK with the same ETag instead of 304 Not Modified.
func confirms(resp *http.Response, etag string) bool {
	return resp.StatusCode == http.StatusNotModified || sameETag(resp.Header.Get("ETag"), etag)
}

// sameETag compares ETags with the weak comparison of RFC 9110 section 8.8.3.2, as for caches.
func sameETag(a, b string) bool {
	return a != "" && strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/")
}

// attempts is the maximum number of attempts for a request that fails with an error that may be
// temporary.
const attempts = 3

// get makes the request. The status is 200, or 304 if etag is not "". The caller closes the
// body.
func (d *Download) get(ctx context.Context, etag string) (*http.Response, error) {
	wait := 200 * time.Millisecond
	for try := 1; ; try++ {
		resp, err := d.request(ctx, http.MethodGet, etag)
		var again *temporaryError
		if err == nil || try == attempts || !errors.As(err, &again) {
			return resp, err
		}
		select {
		case <-time.After(wait):
			wait *= 5
		case <-ctx.Done():
			return nil, fmt.Errorf("get %s: %w", d.url.Redacted(), context.Cause(ctx))
		}
	}
}

// temporaryError is an error that may not occur again in another attempt.
type temporaryError struct{ error }

func (e *temporaryError) Unwrap() error { return e.error }

func (d *Download) request(ctx context.Context, method,
	etag string) (_ *http.Response, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(d.o.Silence, func() { cancel(errStalled) })
	defer func() {
		timer.Stop()
		if err != nil {
			cancel(nil)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, method, d.url.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", d.url.Redacted(), err)
	}
	req.Header.Set("User-Agent", "layerbuild")
	if method == http.MethodHead {
		// net/http sets it for GET only, and some servers have an ETag for each encoding.
		req.Header.Set("Accept-Encoding", "gzip")
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	if d.o.Authorization != nil {
		if a := d.o.Authorization(ctx, d.url.Hostname()); a != "" {
			req.Header.Set("Authorization", a)
		}
	}
	resp, err := d.o.Client.Do(req)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("get %s: %w", d.url.Redacted(), context.Cause(ctx))
	case err != nil:
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which the message already contains, without a password
		}
		return nil, &temporaryError{fmt.Errorf("get %s: %w", d.url.Redacted(), err)}
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusNotModified && etag != "":
		resp.Body = &responseBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer,
			silence: d.o.Silence, left: d.o.Silence}
		return resp, nil
	}
	resp.Body.Close()
	err = fmt.Errorf("get %s: the server returned %s", d.url.Redacted(), resp.Status)
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		err = &temporaryError{err}
	}
	return nil, err
}

// checkRedirect makes sure that credentials are sent only to the server that they are for. net/http
// also sends them to subdomains, to other ports and from https to plain http.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("more than 10 redirects")
	}
	first := via[0].URL
	for _, r := range append(via[1:], req) {
		if r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
			req.Header.Del("Authorization")
			req.Header.Del("Referer") // it may contain a signed address
		}
	}
	return nil
}

// errStalled ends a download whose server sends nothing.
var errStalled = errors.New("the server has sent no data for too long")

// responseBody is the body of a response. Read returns an error if the server sends less than
// 64 KiB in the time silence. Close cancels the request.
type responseBody struct {
	io.ReadCloser
	ctx           context.Context // the request's, for the cause of its end
	cancel        context.CancelCauseFunc
	timer         *time.Timer
	silence, left time.Duration // left: until the end, if less than 64 KiB arrive
	got           int           // bytes since left was silence
}

func (b *responseBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.left)
	start := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop() // the caller spends the time between reads
	b.left -= time.Since(start)
	if b.got += n; b.got >= 64<<10 {
		b.left, b.got = b.silence, 0
	}
	if cause := context.Cause(b.ctx); cause != nil && err != nil && err != io.EOF {
		err = cause
	}
	return n, err
}

func (b *responseBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// save stores the body of a response and sets the fields that depend on the response.
func (d *Download) save(resp *http.Response) (_ *Fetched, err error) {
	if d.Name == "" {
		if _, p, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition")); err == nil {
			d.Name = safeName(p["filename"])
		}
	}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		d.mtime = t
	}
	f, err := newFetched(d.o.TempDir)
	if err != nil {
		return nil, err
	}
	if d.mtime.Unix() != 0 {
		f.modTime = d.mtime
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	file, err := os.OpenFile(filepath.Join(f.temp, d.name()),
		os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := file.Chmod(0o600); err != nil {
		return nil, err
	}
	verify := digest.SHA256.Digester()
	if d.Digest != "" {
		verify = d.Digest.Algorithm().Digester()
	}
	content, limit := io.Reader(resp.Body), 0
	if d.o.limit != nil {
		in := bufio.NewReader(resp.Body)
		head, _ := in.Peek(1024) // an error occurs again below
		if content, limit = in, d.o.limit(head); limit > 0 {
			content = io.LimitReader(in, int64(limit)+1)
		}
	}
	n, err := io.Copy(io.MultiWriter(file, verify.Hash()), content)
	if err != nil {
		return nil, fmt.Errorf("get %s: after %d bytes: %w", d.url.Redacted(), n, err)
	}
	if limit > 0 && n > int64(limit) {
		return nil, longError(limit)
	}
	if got := verify.Digest(); d.Digest == "" {
		d.Digest = got
	} else if got != d.Digest {
		return nil, fmt.Errorf("digest mismatch for %s: %s (expected: %s)", d.url.Redacted(), got,
			d.Digest)
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	if err := os.Chtimes(file.Name(), d.mtime, d.mtime); err != nil {
		return nil, err
	}
	f.Items = []Item{{Path: d.name(), Target: d.name(), Entries: oneEntry(
		fileentry.Entry{Size: n, MtimeNs: d.mtime.UnixNano(), Mode: regular | 0o600},
	)}}
	return f, nil
}

// ErrRemoteChanged is returned when a server sends a file that differs from the one that its
// earlier response described. A new call of HTTP downloads the file before it returns a key.
var ErrRemoteChanged = errors.New("the server sent another file than it had announced")

// Fetch downloads the file unless it was downloaded before. It returns an error if the content does
// not match Key. Without a checksum, the error is ErrRemoteChanged.
func (d *Download) Fetch(ctx context.Context) (*Fetched, error) {
	if f := d.body; f != nil {
		d.body = nil
		return f, nil
	}
	resp, err := d.get(ctx, "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	key, want := d.Key(), d.Digest
	if d.o.Checksum == "" {
		d.Digest = "" // it is compared below
	}
	f, err := d.save(resp)
	if err != nil || d.o.Checksum != "" || d.Key() == key {
		d.Digest = want
		return f, err
	}
	if d.o.Store != nil { // the stored information is wrong
		_ = d.o.Store.Store(ctx, d.storeName(), nil)
	}
	return nil, errors.Join(fmt.Errorf("get %s: %w", d.url.Redacted(), ErrRemoteChanged), f.Close())
}

// Close removes a downloaded file unless Fetch has returned it.
func (d *Download) Close() error {
	if d.body == nil {
		return nil
	}
	return d.body.Close()
}
