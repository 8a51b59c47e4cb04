// Package ocidoc knows the documents of images: the media types of the OCI image specification and
// Docker's equivalents, which kind of document some bytes are, and which blobs a manifest or an
// index refers to.
//
// It imports ocijson. It does no I/O: those who fetch, store, push and export images visit the
// documents in their own ways.
//
// To test it, run go test ./internal/ocidoc as any user. FuzzTypeOf reads hostile documents.
package ocidoc
