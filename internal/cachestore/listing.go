package cachestore

import (
	"errors"
	"html"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// listing is an answer of ListObjectsV2.
type listing struct {
	objects []listed
	next    string // the token for the objects that follow; "": these are the last
}

// listed is an object of a listing.
type listed struct {
	name    string
	size    int64
	changed time.Time
}

// parseListing parses an answer of ListObjectsV2, whose names are escaped as in URLs
// (encoding-type=url). The servers of S3 write elements without attributes and without prefixes.
// encoding/xml would make the program 220 kB larger.
func parseListing(data string) (listing, error) {
	var l listing
	if !strings.Contains(data, "<ListBucketResult") {
		return l, errors.New("the list of objects is not a ListBucketResult")
	}
	rest := data
	for {
		_, after, ok := strings.Cut(rest, "<Contents>")
		if !ok {
			break
		}
		entry, end, ok := strings.Cut(after, "</Contents>")
		if !ok {
			return l, errors.New("the list of objects ends too early")
		}
		rest = end
		key, _ := element(entry, "Key")
		name, err := url.QueryUnescape(key)
		if err != nil {
			return l, err
		}
		o := listed{name: name}
		size, _ := element(entry, "Size")
		if o.size, err = strconv.ParseInt(size, 10, 64); err != nil {
			return l, err
		}
		changed, _ := element(entry, "LastModified")
		if o.changed, err = time.Parse(time.RFC3339, changed); err != nil {
			return l, err
		}
		l.objects = append(l.objects, o)
	}
	if more, _ := element(data, "IsTruncated"); more == "true" {
		if l.next, _ = element(data, "NextContinuationToken"); l.next == "" {
			return l, errors.New("the list of objects has no token for the rest")
		}
	}
	return l, nil
}

// element returns the text of the first XML element with a name.
func element(data, name string) (string, bool) {
	_, rest, _ := strings.Cut(data, "<"+name+">")
	text, _, ok := strings.Cut(rest, "</"+name+">")
	return html.UnescapeString(text), ok
}

var textEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// escapeText returns the text of an XML element.
func escapeText(s string) string { return textEscaper.Replace(s) }
