package cachestore

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/sorting"
)

// awsKeys authenticate requests to S3.
type awsKeys struct{ id, secret, token string }

const (
	amzDate = "20060102T150405Z"
	// unsigned is the value of X-Amz-Content-Sha256 for a body whose sum is not known.
	unsigned = "UNSIGNED-PAYLOAD"
)

// The signer of aws-sdk-go-v2 1.48 would add 107 kB, 11 package initializations and 2 modules to a
// program with net/http; this file adds 29 kB and none.

// sign adds the headers of signature version 4 to a request for S3 (Amazon S3 API reference,
// "Authenticating Requests: Using the Authorization Header"). payload is the SHA-256 of the body,
// or unsigned. The path of the URL is escaped as escapePath does it, and the query as escapeQuery.
// All headers that are set are signed, except those that a proxy or net/http may change.
func (k awsKeys) sign(r *http.Request, region, payload string, now time.Time) {
	at := now.UTC().Format(amzDate)
	r.Header.Set("X-Amz-Date", at)
	r.Header.Set("X-Amz-Content-Sha256", payload)
	if k.token != "" {
		r.Header.Set("X-Amz-Security-Token", k.token)
	}
	lines := []string{"host:" + r.URL.Host}
	names := []string{"host"}
	for name, values := range r.Header {
		switch name = strings.ToLower(name); name {
		case "authorization", "user-agent", "expect":
			continue
		}
		names = append(names, name)
		lines = append(lines, name+":"+strings.Join(strings.Fields(strings.Join(values, ",")), " "))
	}
	slices.Sort(names)
	sorting.Func(lines, func(a, b string) int { return cmp.Compare(nameOf(a), nameOf(b)) })
	signed := strings.Join(names, ";")
	path := cmp.Or(r.URL.EscapedPath(), "/")
	canonical := strings.Join([]string{r.Method, path, r.URL.RawQuery,
		strings.Join(lines, "\n"), "", signed, payload}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	scope := at[:8] + "/" + region + "/s3/aws4_request"
	text := "AWS4-HMAC-SHA256\n" + at + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + k.secret)
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+k.id+"/"+scope+
		",SignedHeaders="+signed+",Signature="+hex.EncodeToString(mac(key, text)))
}

// nameOf returns the name of a header's line. Lines are sorted by it: ':' is greater than '-'.
func nameOf(line string) string {
	name, _, _ := strings.Cut(line, ":")
	return name
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// escapePath escapes the bytes of a path as a signature requires it: all but letters, digits and
// "-._~/".
func escapePath(path string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// escapeQuery returns a query in the form that a signature requires.
func escapeQuery(q url.Values) string { return strings.ReplaceAll(q.Encode(), "+", "%20") }
