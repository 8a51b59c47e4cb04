package cachestore

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeS3 is a server of S3 with a bucket named "bucket", by path. Its clock is its own.
type fakeS3 struct {
	mu      sync.Mutex
	now     time.Time
	objects map[string]s3Object
	uploads map[string]map[string][]byte // the parts of uploads, by number
	log     []string                     // "METHOD KEY[?QUERY] STATUS"
	page    int                          // the number of objects in a list; 0: 1000
	before  func(w http.ResponseWriter, r *http.Request) bool
}

type s3Object struct {
	data    []byte
	changed time.Time
}

func (o s3Object) etag() string { return fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum(o.data))) }

func startS3(t testing.TB, f *fakeS3) *httptest.Server {
	f.objects, f.uploads = map[string]s3Object{}, map[string]map[string][]byte{}
	f.now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) // not the time of this machine
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return srv
}

// forward moves the clock.
func (f *fakeS3) forward(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *fakeS3) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log
	f.log = nil
	return log
}

var s3Env = map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret",
	"AWS_SESSION_TOKEN": "token"}

func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.before != nil && f.before(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Date", f.now.Format(http.TimeFormat))
	key := strings.TrimPrefix(r.URL.Path, "/bucket/")
	status, data := http.StatusBadRequest, []byte("<Error><Code>BadDigest</Code></Error>")
	if sum := r.Header.Get("X-Amz-Content-Sha256"); err == nil && (sum == unsigned ||
		sum == fmt.Sprintf("%x", sha256.Sum256(body))) {
		status, data = f.answer(w, r, key, body)
	}
	if !f.signed(r) {
		status, data = http.StatusForbidden,
			[]byte("<Error><Code>SignatureDoesNotMatch</Code><Message>x &amp; y</Message></Error>")
	}
	line := r.Method + " " + key
	if r.URL.RawQuery != "" {
		line += "?" + r.URL.RawQuery
	}
	f.log = append(f.log, fmt.Sprint(line, " ", status))
	if status == http.StatusOK && r.Method == http.MethodGet && key != "" {
		http.ServeContent(w, r, "", f.objects[key].changed, strings.NewReader(string(data)))
		return
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(data)
	}
}

// signed reports whether a request has the signature that sign makes. The examples of AWS and a
// real server test sign itself.
func (f *fakeS3) signed(r *http.Request) bool {
	got := r.Header.Get("Authorization")
	_, list, _ := strings.Cut(got, "SignedHeaders=")
	list, _, _ = strings.Cut(list, ",")
	again := &http.Request{Method: r.Method, URL: &url.URL{Host: r.Host, Path: r.URL.Path,
		RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}, Header: http.Header{}}
	for name, values := range r.Header {
		if slices.Contains(strings.Split(list, ";"), strings.ToLower(name)) {
			again.Header[name] = values
		}
	}
	at, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	awsKeys{"id", "secret", "token"}.sign(again, "us-east-1",
		r.Header.Get("X-Amz-Content-Sha256"), at)
	return err == nil && again.Header.Get("Authorization") == got
}

func (f *fakeS3) answer(w http.ResponseWriter, r *http.Request, key string,
	body []byte) (int, []byte) {
	query := r.URL.Query()
	old, exists := f.objects[key]
	conditional := func(write func()) (int, []byte) {
		if r.Header.Get("If-None-Match") == "*" && exists ||
			r.Header.Get("If-Match") != "" && (!exists || r.Header.Get("If-Match") != old.etag()) {
			return http.StatusPreconditionFailed,
				[]byte("<Error><Code>PreconditionFailed</Code></Error>")
		}
		write()
		return http.StatusOK, nil
	}
	switch {
	case key == "" && query.Get("list-type") == "2":
		return f.list(query)
	case r.Method == http.MethodPost && query.Has("uploads"):
		id := fmt.Sprint("up&", len(f.uploads))
		f.uploads[id] = map[string][]byte{}
		return http.StatusOK, []byte("<X><UploadId>" + escapeText(id) + "</UploadId></X>")
	case query.Has("uploadId"):
		return f.part(w, r, key, query, body)
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		from, err := url.PathUnescape(r.Header.Get("X-Amz-Copy-Source"))
		source, ok := f.objects[strings.TrimPrefix(from, "/bucket/")]
		if err != nil || !ok || r.Header.Get("X-Amz-Metadata-Directive") != "REPLACE" {
			return http.StatusNotFound, []byte("<Error><Code>NoSuchKey</Code></Error>")
		}
		f.objects[key] = s3Object{source.data, f.now}
		return http.StatusOK, []byte("<CopyObjectResult></CopyObjectResult>")
	case r.Method == http.MethodPut:
		return conditional(func() {
			f.objects[key] = s3Object{body, f.now}
			w.Header().Set("ETag", f.objects[key].etag())
		})
	case !exists && r.Method != http.MethodDelete:
		return http.StatusNotFound, []byte("<Error><Code>NoSuchKey</Code></Error>")
	case r.Method == http.MethodDelete:
		status, data := conditional(func() { delete(f.objects, key) })
		if status == http.StatusOK {
			status = http.StatusNoContent
		}
		return status, data
	}
	w.Header().Set("ETag", old.etag())
	w.Header().Set("Last-Modified", old.changed.Format(http.TimeFormat))
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", fmt.Sprint(len(old.data)))
	}
	return http.StatusOK, old.data
}

// part answers requests for an upload in parts.
func (f *fakeS3) part(w http.ResponseWriter, r *http.Request, key string, query url.Values,
	body []byte) (int, []byte) {
	id := query.Get("uploadId")
	parts, ok := f.uploads[id]
	switch {
	case !ok:
		return http.StatusNotFound, []byte("<Error><Code>NoSuchUpload</Code></Error>")
	case r.Method == http.MethodPut:
		parts[query.Get("partNumber")] = body
		w.Header().Set("ETag", s3Object{data: body}.etag())
		return http.StatusOK, nil
	case r.Method == http.MethodDelete:
		delete(f.uploads, id)
		return http.StatusNoContent, nil
	}
	var all []byte
	for n := 1; n <= len(parts); n++ {
		part := parts[fmt.Sprint(n)]
		want := fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n,
			s3Object{data: part}.etag())
		if !strings.Contains(string(body), want) { // with status 200, as S3 does
			return http.StatusOK, []byte("<Error><Code>InvalidPart</Code></Error>")
		}
		all = append(all, part...)
	}
	f.objects[key] = s3Object{all, f.now}
	delete(f.uploads, id)
	return http.StatusOK, []byte("<CompleteMultipartUploadResult/>")
}

func (f *fakeS3) list(query url.Values) (int, []byte) {
	var names []string
	for name := range f.objects {
		if strings.HasPrefix(name, query.Get("prefix")) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	page := f.page
	if page == 0 {
		page = 1000
	}
	var b strings.Builder
	b.WriteString(`<?xml version="1.0"?><ListBucketResult xmlns="x">`)
	n := 0
	last, _ := hex.DecodeString(query.Get("continuation-token"))
	for _, name := range names {
		if name <= string(last) {
			continue
		}
		if n++; n > page {
			fmt.Fprintf(&b, "<NextContinuationToken>%x</NextContinuationToken>"+
				"<IsTruncated>true</IsTruncated>", before(names, name))
			break
		}
		o := f.objects[name]
		fmt.Fprintf(&b, "<Contents><Key>%s</Key><LastModified>%s</LastModified>"+
			"<Size>%d</Size></Contents>", url.QueryEscape(name),
			o.changed.Format("2006-01-02T15:04:05.000Z"), len(o.data))
	}
	b.WriteString("</ListBucketResult>")
	return http.StatusOK, []byte(b.String())
}

// before returns the name before another one in a list.
func before(names []string, name string) string { return names[slices.Index(names, name)-1] }
