package cachestore

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/remotecache/remotecachetest"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func s3Address(url string) string { return "s3://bucket/a b/c?endpoint=" + url }

func TestS3Store(t *testing.T) {
	f := &fakeS3{page: 3}
	srv := startS3(t, f)
	for _, limit := range []int64{maxPut, 10_000} { // in one request, and in parts
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			f.objects = map[string]s3Object{}
			remotecachetest.Test(t,
				func(t *testing.T, m *remotecachetest.Machine) remotecache.Store {
					s := opened(t, s3Address(srv.URL), m, s3Env).(*s3Store)
					s.single, s.part = limit, 70_000
					return s
				})
			if len(f.uploads) != 0 {
				t.Errorf("%d uploads were not ended", len(f.uploads))
			}
		})
	}
}

// TestS3Requests checks the requests of each operation, and that old blobs are made young.
func TestS3Requests(t *testing.T) {
	f := &fakeS3{}
	srv := startS3(t, f)
	m := remotecachetest.NewMachine(t)
	d, _ := m.Layer(t, 1, 100)
	blob, doc := "a b/c/cas/sha256/"+d.Digest.Encoded(), "a b/c/doc/n"
	for _, step := range []struct {
		name string
		wait time.Duration
		do   func(s remotecache.Store) error
		want []string
	}{
		{"send", 0, func(s remotecache.Store) error { return s.Send(t.Context(), d) },
			[]string{"HEAD " + blob + " 404", "PUT " + blob + " 200"}},
		{"put", 0, func(s remotecache.Store) error {
			return s.Put(t.Context(), "n", []byte("data"), nil)
		}, []string{"PUT " + doc + " 200"}},
		{"get", 0, func(s remotecache.Store) error {
			_, _, err := s.Get(t.Context(), "n")
			return err
		}, []string{"GET " + doc + " 200"}},
		{"send again", 23 * time.Hour, func(s remotecache.Store) error {
			return s.Send(t.Context(), d)
		}, []string{"HEAD " + blob + " 200"}},
		{"touch", 2 * time.Hour, func(s remotecache.Store) error { return s.Send(t.Context(), d) },
			[]string{"HEAD " + blob + " 200", "PUT " + blob + " 200"}},
		{"send when it is young", 0, func(s remotecache.Store) error {
			return s.Send(t.Context(), d)
		}, []string{"HEAD " + blob + " 200"}},
	} {
		f.forward(step.wait)
		err := step.do(opened(t, s3Address(srv.URL), m, s3Env))
		if got := f.lines(); err != nil || !slices.Equal(got, step.want) {
			t.Errorf("%s: %v, requests %q, want %q", step.name, err, got, step.want)
		}
	}
	if got := f.objects[blob].data; digest.FromBytes(got) != d.Digest {
		t.Error("the blob has changed")
	}
}

// TestS3Sweep checks that Sweep deletes old blobs only, and none that a build finds at the same
// time.
func TestS3Sweep(t *testing.T) {
	f := &fakeS3{}
	srv := startS3(t, f)
	m := remotecachetest.NewMachine(t)
	open := func() *s3Store { return opened(t, s3Address(srv.URL), m, s3Env).(*s3Store) }
	var blobs []ocispec.Descriptor
	send := func(d ocispec.Descriptor) {
		t.Helper()
		if err := open().Send(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		d, _ := m.Layer(t, uint64(i), 100)
		blobs = append(blobs, d)
	}
	unused, used, found, fresh := blobs[0], blobs[1], blobs[2], blobs[3]
	for _, d := range blobs[:3] {
		send(d)
	}
	lease, err := open().Lease(t.Context(), "left behind")
	if err != nil || lease == nil {
		t.Fatal(lease, err)
	}
	close(lease.(*s3Lease).stopped)
	f.forward(26 * time.Hour)
	send(fresh)
	n, size, err := open().Sweep(t.Context(), f.now.Add(time.Hour), func(d digest.Digest) bool {
		if d == found.Digest {
			send(found)
		}
		return d == used.Digest
	})
	if err != nil || n != 1 || size != unused.Size {
		t.Errorf("%d blobs, %d bytes, %v", n, size, err)
	}
	for i, d := range blobs {
		if _, ok := f.objects["a b/c/cas/sha256/"+d.Digest.Encoded()]; ok != (i > 0) {
			t.Errorf("blob %d: %v", i, ok)
		}
	}
	if len(f.objects) != 3 {
		t.Errorf("%d objects: the lease was not deleted", len(f.objects))
	}
}

// TestS3Leases checks that a lease is renewed, ends by the clock of the server if it is not, and is
// taken over by one machine.
func TestS3Leases(t *testing.T) {
	f := &fakeS3{}
	srv := startS3(t, f)
	m := remotecachetest.NewMachine(t)
	take := func(renew time.Duration) *s3Lease {
		t.Helper()
		s := opened(t, s3Address(srv.URL), m, s3Env).(*s3Store)
		s.renew = renew
		l, err := s.Lease(t.Context(), "n")
		if err != nil {
			t.Fatal(err)
		}
		if l == nil {
			return nil
		}
		return l.(*s3Lease)
	}
	first := take(10 * time.Millisecond)
	for range 3 {
		f.forward(remotecache.LeaseTime - time.Second)
		f.lines()
		for !slices.ContainsFunc(f.lines(), func(l string) bool {
			return strings.HasPrefix(l, "PUT a b/c/lease/n 200")
		}) {
			time.Sleep(time.Millisecond)
		}
		if take(time.Hour) != nil {
			t.Fatal("a lease that is renewed was taken over")
		}
	}
	close(first.stopped) // the machine stops
	<-first.done
	f.forward(remotecache.LeaseTime - time.Second)
	if take(time.Hour) != nil {
		t.Error("a lease was taken over before it ended")
	}
	f.forward(2 * time.Second)
	second := take(time.Hour)
	if second == nil || take(time.Hour) != nil {
		t.Fatal("a lease that has ended is not taken over, or is by two")
	}
	if _, err := first.write(t.Context(), "If-Match", first.etag); !errors.Is(err, errTaken) {
		t.Errorf("the first machine renews the lease of the second one: %v", err)
	}
	first.stopped = make(chan struct{})
	if err := first.Close(); err != nil || len(f.objects) != 1 {
		t.Errorf("the first machine ends the lease of the second one: %v", err)
	}
	if err := second.Close(); err != nil || len(f.objects) != 0 {
		t.Errorf("%v, and %d objects remain", err, len(f.objects))
	}
}

// TestS3LeaseAnswers checks leases on servers whose answers get lost, or that lack conditions.
func TestS3LeaseAnswers(t *testing.T) {
	f := &fakeS3{}
	srv := startS3(t, f)
	m := remotecachetest.NewMachine(t)
	s := opened(t, s3Address(srv.URL), m, s3Env).(*s3Store)
	lost := false
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || lost {
			return false
		}
		lost = true
		data, _ := io.ReadAll(r.Body)
		f.objects["a b/c/lease/n"] = s3Object{data, f.now}
		panic(http.ErrAbortHandler)
	}
	l, err := s.Lease(t.Context(), "n")
	if l == nil || err != nil {
		t.Fatalf("the lease of an answer that was lost: %v, %v", l, err)
	}
	if err := l.Close(); err != nil || len(f.objects) != 0 {
		t.Errorf("%v, %d objects", err, len(f.objects))
	}
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("If-None-Match") == "" {
			return false
		}
		w.WriteHeader(http.StatusNotImplemented)
		return true
	}
	if l, err := s.Lease(t.Context(), "n"); l != nil || err == nil {
		t.Errorf("a server without conditions: %v, %v", l, err)
	}
}

// TestS3Errors checks messages.
func TestS3Errors(t *testing.T) {
	f := &fakeS3{}
	srv := startS3(t, f)
	m := remotecachetest.NewMachine(t)
	for _, tt := range []struct {
		name   string
		env    map[string]string
		status int
		body   string
		want   string
	}{
		{"wrong keys", map[string]string{"AWS_ACCESS_KEY_ID": "id",
			"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, 0, "", "signaturedoesnotmatch: x & y"},
		{"half of the keys", map[string]string{"AWS_ACCESS_KEY_ID": "id"}, 0, "", "only one of"},
		{"no keys", nil, 0, "", "there are no credentials for S3"},
		{"region", s3Env, 400, "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the " +
			"region 'us-east-1' is wrong; expecting 'eu-west-1'</Message></Error>",
			"expecting 'eu-west-1'; give the region"},
		{"redirect", s3Env, 301, "<Error><Code>PermanentRedirect</Code></Error>",
			"give the region"},
		{"bucket", s3Env, 404, "<Error><Code>NoSuchBucket</Code></Error>", "nosuchbucket"},
		{"denied", s3Env, 403, "<Error><Code>AccessDenied</Code></Error>", "s3:ListBucket"},
	} {
		f.before = nil
		if tt.status != 0 {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
				return true
			}
		}
		_, _, err := opened(t, s3Address(srv.URL), m, tt.env).Get(t.Context(), "n")
		if err == nil || errors.Is(err, remotecache.ErrNoDocument) ||
			!strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tt.want)) ||
			strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestS3Parts checks that an upload in parts that fails is ended.
func TestS3Parts(t *testing.T) {
	f := &fakeS3{}
	srv := startS3(t, f)
	m := remotecachetest.NewMachine(t)
	d, _ := m.Layer(t, 1, 100_000)
	parts := 0
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !r.URL.Query().Has("partNumber") {
			return false
		}
		if parts++; parts%2 == 0 { // each part is sent twice
			return false
		}
		io.CopyN(io.Discard, r.Body, 1000)
		panic(http.ErrAbortHandler)
	}
	s := opened(t, s3Address(srv.URL), m, s3Env).(*s3Store)
	s.single, s.part = 1000, 30_000
	if err := s.Send(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got := f.objects["a b/c/cas/sha256/"+d.Digest.Encoded()].data; digest.FromBytes(got) !=
		d.Digest {
		t.Errorf("the blob has %d bytes, not %d", len(got), d.Size)
	}
	clear(f.objects)
	lost := false // the answer to the end of the upload
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if lost || r.Method != http.MethodPost || !r.URL.Query().Has("uploadId") {
			return false
		}
		lost = true
		body, _ := io.ReadAll(r.Body)
		f.part(httptest.NewRecorder(), r, strings.TrimPrefix(r.URL.Path, "/bucket/"),
			r.URL.Query(), body)
		panic(http.ErrAbortHandler)
	}
	s = opened(t, s3Address(srv.URL), m, s3Env).(*s3Store)
	s.single, s.part = 1000, 30_000
	if err := s.Send(t.Context(), d); err != nil || !lost || len(f.objects) != 1 {
		t.Errorf("the answer to the end was lost: %v, %d objects", err, len(f.objects))
	}
	clear(f.objects)
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") != "3" {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	s = opened(t, s3Address(srv.URL), m, s3Env).(*s3Store)
	s.single, s.part = 1000, 30_000
	if err := s.Send(t.Context(), d); err == nil || len(f.uploads) != 0 || len(f.objects) != 0 {
		t.Errorf("%v, %d uploads, %d objects", err, len(f.uploads), len(f.objects))
	}
}

// TestAWSConfig checks which keys, region and endpoint are used.
func TestAWSConfig(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"credentials": "[default]\naws_access_key_id=c\naws_secret_access_key = cs\n" +
			"[both]\naws_access_key_id=b\naws_secret_access_key=bs\naws_session_token=bt\n",
		"config": "[default]\nregion = eu-1\n[profile both]\nregion=eu-2\n" +
			"endpoint_url = https://files.example.com/\ns3 =\n  region = nested\n" +
			"[profile sso]\nsso_session = me\n[profile process]\ncredential_process = /x\n" +
			"[profile inconfig]\naws_access_key_id=i\naws_secret_access_key=is\n",
	} {
		err := os.WriteFile(filepath.Join(home, ".aws", name), []byte(text), 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		env              map[string]string
		region, endpoint string
		want             string // keys region endpoint, or an error
	}{
		{nil, "", "", "c cs  eu-1 <nil>"},
		{nil, "r", "http://e", "c cs  r http://e"},
		{s3Env, "", "", "id secret token eu-1 <nil>"},
		{map[string]string{"AWS_PROFILE": "both"}, "", "",
			"b bs bt eu-2 https://files.example.com"},
		{map[string]string{"AWS_PROFILE": "both", "AWS_DEFAULT_REGION": "d",
			"AWS_ENDPOINT_URL": "https://a"}, "", "", "b bs bt d https://a"},
		{map[string]string{"AWS_REGION": "x", "AWS_DEFAULT_REGION": "d",
			"AWS_ENDPOINT_URL": "https://a", "AWS_ENDPOINT_URL_S3": "https://b"}, "", "",
			"c cs  x https://b"},
		{map[string]string{"AWS_PROFILE": "inconfig"}, "", "", "i is  us-east-1 <nil>"},
		{map[string]string{"AWS_PROFILE": "sso"}, "", "",
			"profile sso has its credentials from SSO (sso_session), which is not supported"},
		{map[string]string{"AWS_PROFILE": "process"}, "", "", "from a process"},
		{map[string]string{"AWS_PROFILE": "none"}, "", "", "there are no credentials for S3"},
		{map[string]string{"AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
			"AWS_CONFIG_FILE": "/nowhere"}, "", "", "into profile default of /nowhere"},
		{map[string]string{"AWS_ENDPOINT_URL": "ftp://x"}, "", "", "the endpoint of S3"},
	} {
		getenv := func(name string) string {
			if name == "HOME" {
				return home
			}
			return tt.env[name]
		}
		c, err := loadAWS(getenv, tt.region, tt.endpoint)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprint(c.keys.id, " ", c.keys.secret, " ", c.keys.token, " ", c.region, " ",
				c.endpoint)
		}
		if got != tt.want && (err == nil || !strings.Contains(got, tt.want)) {
			t.Errorf("%v: %s, want %s", tt.env, got, tt.want)
		}
	}
}

func TestS3Addresses(t *testing.T) {
	for _, tt := range []struct{ ref, want string }{
		{"s3://bucket", "https://bucket.s3.r.amazonaws.com/k"},
		{"s3://bucket/", "https://bucket.s3.r.amazonaws.com/k"},
		{"s3://bucket/a b/?region=x", "https://bucket.s3.x.amazonaws.com/a%20b/k"},
		{"s3://a.bucket/p", "https://s3.r.amazonaws.com/a.bucket/p/k"},
		{"s3://bucket?path-style=true", "https://s3.r.amazonaws.com/bucket/k"},
		{"s3://bucket?endpoint=http://h:1/x/", "http://h:1/x/bucket/k"},
		{"s3://bucket?endpoint=http://h:1&path-style=false", "http://bucket.h:1/k"},
		{"s3://bucket?endpoint=https://s3.dualstack.r.amazonaws.com",
			"https://bucket.s3.dualstack.r.amazonaws.com/k"},
		{"s3://bucket?endpoint=http://127.0.0.1:9", "http://127.0.0.1:9/bucket/k"},
	} {
		env := map[string]string{"AWS_REGION": "r", "AWS_ACCESS_KEY_ID": "id",
			"AWS_SECRET_ACCESS_KEY": "secret"}
		store, err := Open(remotecache.SharedPlace{Ref: tt.ref},
			Options{Getenv: func(name string) string { return env[name] }})
		if err != nil {
			t.Errorf("%s: %v", tt.ref, err)
			continue
		}
		s := store.(*s3Store)
		c, err := s.config()
		if err != nil {
			t.Fatal(err)
		}
		if got := s.address(c, s.prefix+"k", nil); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.ref, got, tt.want)
		}
	}
}
