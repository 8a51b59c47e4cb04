// Package ocijson decodes the JSON documents of images, which may be hostile: manifests, indexes,
// configurations and the indexes of layouts.
//
// All readers must find the same image in a document. For equal keys, encoding/json uses the last
// value, and it ignores the case of keys; other readers use the first value, or distinguish the
// case (CVE-2021-41190 is of this kind). Such a document is refused. A document of a few megabytes
// must not take gigabytes of memory: an empty object of two bytes becomes a struct of hundreds.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/ocijson as any user. FuzzUnmarshal compares it with
// encoding/json.
package ocijson
