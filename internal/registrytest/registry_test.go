package registrytest

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

func do(t *testing.T, method, url string, body []byte,
	edit func(*http.Request)) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, raw
}

func TestPullAndPush(t *testing.T) {
	made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{}, []imagetest.Entry{
		{Path: "x", Header: &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}, Data: []byte("hello")},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := New(t)
	base := "http://" + r.Host + "/v2/"
	r.Add("library/x", "latest", made)
	res, raw := do(t, "GET", base+"library/x/manifests/latest", nil, nil)
	if res.StatusCode != 200 || digest.FromBytes(raw) != made.Descriptor.Digest {
		t.Fatalf("pull of a manifest: %s, %s", res.Status, raw)
	}
	for d, blob := range made.Blobs {
		if res, got := do(t, "GET", base+"library/x/blobs/"+d.String(), nil,
			nil); res.StatusCode != 200 || !bytes.Equal(got, blob) {
			t.Fatalf("pull of %s: %s", d, res.Status)
		}
	}
	if res, _ := do(t, "PUT", base+"new/y/manifests/v1",
		[]byte(`{"config":{"digest":"sha256:nowhere"}}`), nil); res.StatusCode != 404 {
		t.Errorf("push of a manifest whose config is not there: %s", res.Status)
	}
	blob := []byte("a blob in two parts")
	res, _ = do(t, "POST", base+"new/y/blobs/uploads/", nil, nil)
	at := "http://" + r.Host + res.Header.Get("Location")
	do(t, "PATCH", at, blob[:5], nil)
	d := digest.FromBytes(blob)
	if res, _ := do(t, "PUT", at+"?digest="+url.QueryEscape(d.String()), blob[5:],
		nil); res.StatusCode != 201 {
		t.Fatalf("push of a blob: %s", res.Status)
	}
	if res, got := do(t, "GET", base+"new/y/blobs/"+d.String(), nil, nil); res.StatusCode != 200 ||
		!bytes.Equal(got, blob) {
		t.Errorf("the pushed blob: %s %q", res.Status, got)
	}
	if !slices.Contains(r.Log(), "GET /v2/library/x/manifests/latest 200") {
		t.Error("the log does not show the first pull")
	}
}

func TestAuthAndFaults(t *testing.T) {
	r := New(t)
	base := "http://" + r.Host + "/v2/"
	r.Fail("GET /v2/", 1)
	if res, _ := do(t, "GET", base, nil, nil); res.StatusCode != 503 {
		t.Errorf("the request that has to fail: %s", res.Status)
	}
	r.Auth("me", "secret")
	if res, _ := do(t, "GET", base, nil, nil); res.StatusCode != 401 {
		t.Errorf("without credentials: %s", res.Status)
	}
	if res, _ := do(t, "GET", base, nil, func(q *http.Request) {
		q.SetBasicAuth("me", "secret")
	}); res.StatusCode != 200 {
		t.Errorf("with credentials: %s", res.Status)
	}
}

// TestSeparate checks that a blob is only in the repositories to which it was pushed or mounted.
func TestSeparate(t *testing.T) {
	r := New(t)
	r.Separate()
	base := "http://" + r.Host + "/v2/"
	blob := []byte("a blob")
	d := digest.FromBytes(blob).String()
	status := func(method, path string, body []byte) int {
		t.Helper()
		res, _ := do(t, method, base+path, body, nil)
		return res.StatusCode
	}
	mount := "blobs/uploads/?mount=" + d + "&from="
	for _, step := range []struct {
		method, path string
		want         int
	}{
		{"POST", "a/blobs/uploads/?digest=" + d, 201},
		{"GET", "a/blobs/" + d, 200},
		{"GET", "b/blobs/" + d, 404},
		{"POST", "c/" + mount + "b", 202},
		{"POST", "b/" + mount + "a", 201},
		{"GET", "b/blobs/" + d, 200},
		{"GET", "c/blobs/" + d, 404},
	} {
		if got := status(step.method, step.path, blob); got != step.want {
			t.Errorf("%s %s: %d, want %d", step.method, step.path, got, step.want)
		}
	}
}
