// Package ocidoc interprets the documents of images: their media types in the OCI image
// specification and in Docker's format, the kind of a document, and the blobs to which a manifest
// or an index refers. It also has the limits of documents.
//
// It imports ocijson. It does no I/O: those who fetch, store, push and export images visit the
// documents in their own ways.
//
// To test it, run go test ./internal/ocidoc as any user. FuzzTypeOf reads hostile documents.
package ocidoc
