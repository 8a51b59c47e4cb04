package cachestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// s3Store is a Store in a bucket of S3, or of a server that speaks its protocol: documents are at
// PREFIX/doc/NAME, blobs at PREFIX/cas/sha256/HEX, and leases at PREFIX/lease/NAME.
type s3Store struct {
	base
	bucket, prefix string // prefix is "" or ends with a slash
	pathStyle      string // "true", "false" or "": it depends on the server
	config         func() (*awsConfig, error)
	now            func() time.Time
	// single is the size up to which a blob is sent in one request, and part that of the parts of
	// larger ones.
	single, part int64
	// touchAge is the age from which a blob that the store has is made young again, before a new
	// document names it. Sweep keeps blobs that are not older than keepAge.
	touchAge, keepAge time.Duration
	renew             time.Duration // the time after which a lease is renewed
}

var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$`)

// maxPut is the size of the largest object that S3 takes in one request.
const maxPut = 5 << 30

// openS3 returns the store at an address of the form s3://BUCKET[/PREFIX][?OPTION=VALUE&…].
func openS3(p remotecache.SharedPlace, u *url.URL, o Options) (*s3Store, error) {
	switch {
	case u.User != nil:
		return nil, errors.New("an address without a user is expected: the keys are those of " +
			"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or of ~/.aws/credentials")
	case u.Fragment != "":
		return nil, errors.New("an address without # is expected")
	case !bucketName.MatchString(u.Host):
		return nil, fmt.Errorf("%q is not the name of a bucket", u.Host)
	}
	s := &s3Store{base: base{place: p, Options: o}, bucket: u.Host, now: time.Now,
		single: maxPut, part: 512 << 20, touchAge: 24 * time.Hour, keepAge: 25 * time.Hour,
		renew: remotecache.LeaseTime / 3}
	if path := strings.Trim(u.Path, "/"); path != "" {
		s.prefix = path + "/"
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the options after ? are not of the form NAME=VALUE&NAME=VALUE")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		value := query.Get(name)
		switch name {
		case "endpoint":
			_, err = parseEndpoint(value)
		case "region":
			if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' }) {
				err = errors.New("the name of a region is expected")
			}
		case "path-style":
			if value != "true" && value != "false" {
				err = errors.New("true or false is expected")
			}
			s.pathStyle = value
		default:
			return nil, fmt.Errorf("option %q: endpoint, region and path-style are possible", name)
		}
		if err != nil {
			return nil, fmt.Errorf("option %s=%s: %w", name, value, err)
		}
	}
	s.config = sync.OnceValues(func() (*awsConfig, error) {
		return loadAWS(o.Getenv, query.Get("region"), query.Get("endpoint"))
	})
	return s, nil
}

// address returns the URL of an object, or of the bucket if key is "".
func (s *s3Store) address(c *awsConfig, key string, query url.Values) string {
	scheme, host, path := "https", "s3."+c.region+".amazonaws.com", ""
	if c.endpoint != nil {
		scheme, host, path = c.endpoint.Scheme, c.endpoint.Host, c.endpoint.Path
	}
	// A certificate for *.HOST is not valid for a bucket with a dot, and the servers of others
	// rarely have a name for each bucket.
	byPath := strings.Contains(s.bucket, ".") || net.ParseIP(strings.Trim(host, "[]")) != nil ||
		c.endpoint != nil && !strings.HasSuffix(c.endpoint.Hostname(), ".amazonaws.com")
	if s.pathStyle != "" {
		byPath = s.pathStyle == "true"
	}
	if byPath {
		path += "/" + s.bucket
	} else {
		host = s.bucket + "." + host
	}
	address := scheme + "://" + host + escapePath(path+"/"+key)
	if len(query) > 0 {
		address += "?" + escapeQuery(query)
	}
	return address
}

// object describes a request for an object, or for the bucket if key is "".
type object struct {
	method, key string
	query       url.Values
	header      http.Header
	body        func() (io.ReadCloser, error)
	size        int64
	sum         string // the SHA-256 of the body, or unsigned; "": there is no body
}

// emptySum is the SHA-256 of nothing.
const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// request returns the signed request for an object.
func (s *s3Store) request(o object) (registry.Request, error) {
	c, err := s.config()
	if err != nil {
		return registry.Request{}, err
	}
	return registry.Request{Method: o.method, URL: s.address(c, o.key, o.query), Header: o.header,
		Body: o.body, Size: o.size, Direct: true,
		Authorize: func(r *http.Request) error {
			c.keys.sign(r, c.region, cmp.Or(o.sum, emptySum), s.now())
			return nil
		}}, nil
}

// do sends a request, and returns the answer if its status is one of ok.
func (s *s3Store) do(ctx context.Context, o object, ok ...int) (*http.Response, error) {
	r, err := s.request(o)
	if err != nil {
		return nil, err
	}
	resp, err := s.Client.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	return resp, remedy(ended(resp, ok...))
}

// remedy adds to an error what the user can do about it.
func remedy(err error) error {
	e, ok := errors.AsType[*registry.Error](err)
	if !ok {
		return err
	}
	switch {
	case e.Status == http.StatusMovedPermanently || e.Code == "AuthorizationHeaderMalformed":
		return fmt.Errorf("%w; give the region of the bucket, as in s3://BUCKET?region=REGION", err)
	case e.Code == "AccessDenied":
		return fmt.Errorf("%w; S3 also answers this for objects that do not exist unless "+
			"s3:ListBucket is permitted", err)
	}
	return err
}

// isMissing reports whether a request failed because there is no such object.
func isMissing(err error) bool {
	e, ok := errors.AsType[*registry.Error](err)
	return ok && e.Status == http.StatusNotFound && e.Code != "NoSuchBucket"
}

// read returns the header and the content of a small object.
func (s *s3Store) read(ctx context.Context, o object) (http.Header, []byte, error) {
	r, err := s.request(o)
	if err != nil {
		return nil, nil, err
	}
	header, data, err := s.Client.Read(ctx, r, maxDocument)
	return header, data, remedy(err)
}

func (s *s3Store) doc(name string) string { return s.prefix + "doc/" + name }

func (s *s3Store) cas(hex string) string { return s.prefix + "cas/sha256/" + hex }

// Get implements remotecache.Store.
func (s *s3Store) Get(ctx context.Context, name string) ([]byte, *image.Artifact, error) {
	_, data, err := s.read(ctx, object{method: http.MethodGet, key: s.doc(name)})
	if isMissing(err) {
		return nil, nil, remotecache.ErrNoDocument
	}
	return data, s.artifact(s.open), err
}

// open opens a blob.
func (s *s3Store) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	hex, err := hexOf(d.Digest)
	if err != nil {
		return nil, err
	}
	r, err := s.request(object{method: http.MethodGet, key: s.cas(hex)})
	if err != nil {
		return nil, err
	}
	return s.Client.Open(ctx, r, d)
}

// Put implements remotecache.Store.
func (s *s3Store) Put(ctx context.Context, name string, data []byte,
	_ []ocispec.Descriptor) error {
	_, err := s.do(ctx, object{method: http.MethodPut, key: s.doc(name),
		header: http.Header{"Content-Type": {"application/json"}}, body: bytesBody(data),
		size: int64(len(data)), sum: digest.FromBytes(data).Encoded()}, http.StatusOK)
	return err
}

// Send implements remotecache.Store. A blob that the store has had for a day is made young, since
// Sweep may be about to delete it.
func (s *s3Store) Send(ctx context.Context, d ocispec.Descriptor) error {
	return s.once(ctx, d, func() error {
		key := s.cas(d.Digest.Encoded())
		// Without the permission to list the bucket, a missing object is answered with 403.
		resp, err := s.do(ctx, object{method: http.MethodHead, key: key}, http.StatusOK)
		if err == nil && resp.ContentLength == d.Size {
			if ageOf(resp.Header) < s.touchAge || s.touch(ctx, key, d) == nil {
				return nil
			}
		} else if err != nil && statusOf(err) == 0 {
			return err
		}
		if d.Size > s.single {
			return s.sendParts(ctx, key, d)
		}
		_, err = s.do(ctx, object{method: http.MethodPut, key: key, header: blobHeader(),
			body: s.blob(ctx, d), size: d.Size, sum: d.Digest.Encoded()}, http.StatusOK)
		return err
	})
}

func blobHeader() http.Header {
	return http.Header{"Content-Type": {"application/octet-stream"}}
}

// ageOf returns the age of an object by the clock of the server; 0 if it is not known.
func ageOf(h http.Header) time.Duration {
	at, err := http.ParseTime(h.Get("Date"))
	changed, err1 := http.ParseTime(h.Get("Last-Modified"))
	if err != nil || err1 != nil {
		return 0
	}
	return max(0, at.Sub(changed))
}

// touch makes a blob young by copying it onto itself.
func (s *s3Store) touch(ctx context.Context, key string, d ocispec.Descriptor) error {
	if d.Size > maxPut {
		return errors.New("the blob is too large to copy") // it is sent again
	}
	header := blobHeader()
	header.Set("X-Amz-Copy-Source", "/"+escapePath(s.bucket+"/"+key))
	header.Set("X-Amz-Metadata-Directive", "REPLACE") // S3 refuses a copy that changes nothing
	return s.post(ctx, object{method: http.MethodPut, key: key, header: header}, nil)
}

// post sends a request whose answer may be an error although its status is 200, and calls with with
// the answer.
func (s *s3Store) post(ctx context.Context, o object, with func([]byte) error) error {
	r, err := s.request(o)
	if err != nil {
		return err
	}
	resp, err := s.Client.Do(ctx, r)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return remedy(registry.Failure(resp))
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	resp.Body.Close()
	if err != nil {
		return err
	}
	if code, ok := element(string(data), "Code"); ok && strings.Contains(string(data), "<Error>") {
		return &registry.Error{Method: o.method, URL: s.place.Name(), Status: resp.StatusCode,
			Code: code}
	}
	if with == nil {
		return nil
	}
	return with(data)
}

// sendParts sends a blob in parts, one after the other.
func (s *s3Store) sendParts(ctx context.Context, key string, d ocispec.Descriptor) (err error) {
	var upload string
	err = s.post(ctx, object{method: http.MethodPost, key: key, header: blobHeader(),
		query: url.Values{"uploads": {""}}}, func(data []byte) error {
		var ok bool
		if upload, ok = element(string(data), "UploadId"); !ok || upload == "" {
			return errors.New("the server has begun an upload without an id")
		}
		return nil
	})
	if err != nil {
		return err
	}
	id := url.Values{"uploadId": {upload}}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			_, err1 := s.do(ctx, object{method: http.MethodDelete, key: key, query: id},
				http.StatusNoContent)
			if err1 != nil {
				err = fmt.Errorf("%w (and the parts that were sent remain: %w)", err, err1)
			}
		}
	}()
	var list strings.Builder
	src := &sections{open: s.blob(ctx, d)}
	defer src.close()
	for n, off := 1, int64(0); off < d.Size; n++ {
		size := min(s.part, d.Size-off)
		resp, err := s.do(ctx, object{method: http.MethodPut, key: key, body: src.at(off, size),
			query: url.Values{"uploadId": {upload}, "partNumber": {strconv.Itoa(n)}},
			size:  size, sum: unsigned}, http.StatusOK)
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n,
			escapeText(resp.Header.Get("ETag")))
		off += size
	}
	if err := src.finish(); err != nil {
		return err
	}
	body := []byte(`<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` +
		list.String() + "</CompleteMultipartUpload>")
	err = s.post(ctx, object{method: http.MethodPost, key: key, query: id, body: bytesBody(body),
		size: int64(len(body)), sum: digest.FromBytes(body).Encoded()}, nil)
	if isMissing(err) { // an earlier attempt has ended the upload, and its answer was lost
		resp, err1 := s.do(ctx, object{method: http.MethodHead, key: key}, http.StatusOK)
		if err1 == nil && resp.ContentLength == d.Size {
			return nil
		}
	}
	return err
}

// List implements remotecache.Catalog.
func (s *s3Store) List(ctx context.Context, f func(name string) error) error {
	return s.list(ctx, "doc/", func(o listed) error { return f(o.name) })
}

// list calls f with the objects whose keys begin with dir, without this beginning.
func (s *s3Store) list(ctx context.Context, dir string, f func(listed) error) error {
	query := url.Values{"list-type": {"2"}, "prefix": {s.prefix + dir}, "encoding-type": {"url"}}
	for {
		_, data, err := s.read(ctx, object{method: http.MethodGet, query: query})
		if err != nil {
			return err
		}
		page, err := parseListing(string(data))
		if err != nil {
			return err
		}
		for _, o := range page.objects {
			name, ok := strings.CutPrefix(o.name, s.prefix+dir)
			if !ok {
				return fmt.Errorf("the server lists %q, which was not asked for", o.name)
			}
			o.name = name
			if err := f(o); err != nil {
				return err
			}
		}
		if page.next == "" {
			return nil
		}
		if page.next == query.Get("continuation-token") {
			return errors.New("the server lists the same objects again")
		}
		query.Set("continuation-token", page.next)
	}
}

// Delete implements remotecache.Catalog.
func (s *s3Store) Delete(ctx context.Context, name string) error {
	// The answer of S3 is the same if there is no such object.
	_, err := s.do(ctx, object{method: http.MethodHead, key: s.doc(name)}, http.StatusOK)
	if isMissing(err) {
		return remotecache.ErrNoDocument
	}
	if err != nil {
		return err
	}
	return s.remove(ctx, s.doc(name))
}

func (s *s3Store) remove(ctx context.Context, key string) error {
	_, err := s.do(ctx, object{method: http.MethodDelete, key: key}, http.StatusNoContent,
		http.StatusOK)
	if isMissing(err) {
		return nil
	}
	return err
}

// Sweep implements remotecache.Catalog. It keeps blobs of the last keepAge, whatever before is: a
// build may have found one of them, and may be about to write the document that names it. Leases
// that were left behind are deleted, too.
func (s *s3Store) Sweep(ctx context.Context, before time.Time,
	used func(digest.Digest) bool) (n int, bytes int64, err error) {
	// young reports whether an object is not to be deleted now. It was listed some time ago.
	young := func(key string) (bool, error) {
		resp, err := s.do(ctx, object{method: http.MethodHead, key: key}, http.StatusOK)
		if isMissing(err) {
			return true, nil
		}
		if err != nil {
			return true, err
		}
		at, err := http.ParseTime(resp.Header.Get("Last-Modified"))
		return err != nil || !at.Before(before) || ageOf(resp.Header) < s.keepAge, nil
	}
	err = s.list(ctx, "cas/sha256/", func(o listed) error {
		d := digest.NewDigestFromEncoded(digest.SHA256, o.name)
		if d.Validate() != nil || !o.changed.Before(before) || used(d) {
			return nil
		}
		keep, err := young(s.cas(o.name))
		if keep || err != nil {
			return err
		}
		n, bytes = n+1, bytes+o.size
		return s.remove(ctx, s.cas(o.name))
	})
	if err != nil {
		return n, bytes, err
	}
	return n, bytes, s.list(ctx, "lease/", func(o listed) error {
		keep, err := young(s.lease(o.name))
		if keep || err != nil {
			return err
		}
		return s.remove(ctx, s.lease(o.name))
	})
}
