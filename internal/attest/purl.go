package attest

import (
	"path"
	"strings"

	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PURL returns the package URL of an image, such as pkg:docker/alpine@3.22?platform=linux%2Famd64
// (https://github.com/package-url/purl-spec). kind is docker, or oci for an image of a layout.
// p is the platform; nil: none is named.
func PURL(kind string, n reference.Name, p *ocispec.Platform) string {
	if n.Digest == "" {
		n = n.OrLatest()
	}
	version, id := n.Tag, n.Digest
	n.Tag, n.Digest = "", ""
	namespace, name := path.Split(n.Familiar())
	var b strings.Builder
	b.WriteString("pkg:" + kind + "/")
	for part := range strings.SplitSeq(strings.TrimSuffix(namespace, "/"), "/") {
		if part != "" {
			b.WriteString(escape(part) + "/")
		}
	}
	b.WriteString(escape(name))
	if version != "" {
		b.WriteString("@" + escape(version))
	}
	separator := "?"
	if id != "" {
		b.WriteString(separator + "digest=" + escape(id.String()))
		separator = "&"
	}
	if p != nil {
		b.WriteString(separator + "platform=" + escape(platform.Short(platform.Normalize(*p))))
	}
	return b.String()
}

// escape encodes a part of a package URL. A colon is not encoded.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9',
			strings.IndexByte("-._~:", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
