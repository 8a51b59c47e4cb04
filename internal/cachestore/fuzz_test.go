package cachestore

import (
	"bytes"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/remotecache"
)

func FuzzActionResult(f *testing.F) {
	f.Add(encodeActionResult([]outputFile{{"a", "00ff", 7, []byte("x")}, {path: "b"}}))
	f.Add([]byte{0x20, 0x01, 0x12, 0x00, 0x4d, 1, 2, 3, 4, 0x49, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := decodeActionResult(data)
		if err != nil {
			return
		}
		again, err := decodeActionResult(encodeActionResult(files))
		if err != nil || len(again) != len(files) {
			t.Fatalf("%v, %v", again, err)
		}
		for i := range files {
			if len(files[i].contents) == 0 {
				files[i].contents, again[i].contents = nil, nil
			}
		}
		if !reflect.DeepEqual(files, again) {
			t.Errorf("%+v becomes %+v", files, again)
		}
	})
}

func FuzzListing(f *testing.F) {
	f.Add(`<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b` +
		`</NextContinuationToken><Contents><Key>a%2Fb+c</Key><Size>3</Size>` +
		`<LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents></ListBucketResult>`)
	f.Add(`<ListBucketResult xmlns="x"><Contents><Key>%zz</Key></Contents></ListBucketResult>`)
	f.Add(`<ListBucketResult><Contents></Contents`)
	f.Fuzz(func(t *testing.T, data string) {
		l, err := parseListing(data)
		if err != nil {
			return
		}
		if n := strings.Count(data, "<Contents>"); len(l.objects) > n {
			t.Errorf("%d objects of %d elements", len(l.objects), n)
		}
	})
}

func FuzzIni(f *testing.F) {
	f.Add("[default]\naws_access_key_id = AKID # a comment\n[profile x]\nregion=r\n", "default")
	f.Add("[ profile  x ]\r\ns3 =\r\n  region = nested\r\nregion = r\r\n", "profile x")
	f.Fuzz(func(t *testing.T, data, section string) {
		values := map[string]string{}
		if readIni(strings.NewReader(data), section, values) != nil {
			return
		}
		for k, v := range values {
			if strings.TrimSpace(v) != v || strings.ToLower(k) != k ||
				strings.ContainsAny(k+v, "\n") {
				t.Errorf("%q = %q", k, v)
			}
		}
	})
}

// FuzzParse checks that an address that is accepted makes addresses of requests that are valid, and
// that no message has the password.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"https://u:hunter2@h/p", "s3://b/p?endpoint=http://h&region=r",
		"s3://u:hunter2@b", "gha:x", "http://[::1]:80", "https://u:hunter2@h/%zz", "s3://b?x=%zz",
		"https://u:hunter2%@h", "http://u:hunter2@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		p, err := remotecache.ParseShared(ref)
		if err != nil || !p.HasScheme() {
			return
		}
		s, err := Open(p, Options{Getenv: func(string) string { return "" }})
		if err != nil {
			if strings.Contains(ref, ":hunter2@") && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: %v", ref, err)
			}
			return
		}
		var address string
		switch s := s.(type) {
		case *httpStore:
			address = s.cas(emptySum)
		case *s3Store:
			address = s.address(&awsConfig{region: "r"}, s.cas(emptySum), nil)
		default:
			return
		}
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.User != nil || !strings.HasSuffix(u.Path, emptySum) {
			t.Errorf("%q has the address %q: %v", ref, address, err)
		}
		if bytes.ContainsAny([]byte(p.Name()), "\n\r") {
			t.Errorf("%q has the name %q", ref, p.Name())
		}
	})
}
