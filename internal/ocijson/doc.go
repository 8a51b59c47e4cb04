// Package ocijson decodes the JSON documents of images, which may be hostile: manifests, indexes,
// configurations and the indexes of layouts.
//
// Two readers of one document must not see two images. encoding/json takes the last of several
// equal keys and ignores their case; other readers take the first, or know the case (CVE-2021-41190
// is of this kind). Such a document is refused. A document of a few megabytes must not take
// gigabytes of memory: an empty object of two bytes becomes a struct of hundreds.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/ocijson as any user. FuzzUnmarshal compares it with
// encoding/json.
package ocijson
