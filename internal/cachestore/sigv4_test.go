package cachestore

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSign compares signatures with the examples of the Amazon S3 API reference, "Examples:
// Signature Calculations".
func TestSign(t *testing.T) {
	keys := awsKeys{id: "AKIAIOSFODNN7EXAMPLE",
		secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	at := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		method, url, payload string
		header               map[string]string
		signed, signature    string
	}{
		{"GET", "/test.txt", emptySum, map[string]string{"Range": "bytes=0-9"},
			"host;range;x-amz-content-sha256;x-amz-date",
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{"PUT", "/" + escapePath("test$file.text"),
			"44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
			map[string]string{"Date": "Fri, 24 May 2013 00:00:00 GMT",
				"X-Amz-Storage-Class": "REDUCED_REDUNDANCY"},
			"date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
			"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
		{"GET", "/?lifecycle=", emptySum, nil, "host;x-amz-content-sha256;x-amz-date",
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
		{"GET", "/?max-keys=2&prefix=J", emptySum, nil, "host;x-amz-content-sha256;x-amz-date",
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
	} {
		r, err := http.NewRequest(tt.method, "https://examplebucket.s3.amazonaws.com"+tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range tt.header {
			r.Header.Set(k, v)
		}
		r.Header.Set("User-Agent", "layerbuild") // is not signed
		keys.sign(r, "us-east-1", tt.payload, at)
		want := "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/" +
			"aws4_request,SignedHeaders=" + tt.signed + ",Signature=" + tt.signature
		if got := r.Header.Get("Authorization"); got != want {
			t.Errorf("%s %s:\n got %s\nwant %s", tt.method, tt.url, got, want)
		}
	}
}

// TestSignNames checks that headers are sorted by their names, that spaces in values are joined,
// and that the token of temporary keys is signed.
func TestSignNames(t *testing.T) {
	sign := func(token, value string) string {
		r, err := http.NewRequest("PUT", "https://h/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Copy", value)
		r.Header.Set("X-Amz-Copy-Source", "b")
		awsKeys{"id", "secret", token}.sign(r, "r", unsigned, time.Unix(0, 0))
		return r.Header.Get("Authorization")
	}
	a := sign("token", "a  b")
	if want := "SignedHeaders=host;x-amz-content-sha256;x-amz-copy;x-amz-copy-source;x-amz-date;" +
		"x-amz-security-token,"; !strings.Contains(a, want) {
		t.Errorf("%s, want %s", a, want)
	}
	if b := sign("token", " a b "); a != b {
		t.Errorf("%s and %s", a, b)
	}
	if b := sign("other", "a b"); a == b {
		t.Error("the token is not signed")
	}
}

func TestEscapePath(t *testing.T) {
	if got, want := escapePath("/a b/ü+~._-$%"), "/a%20b/%C3%BC%2B~._-%24%25"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
