// Package attest has the documents of attestations: in-toto statements, the provenance of a build,
// and the manifests that keep statements in the index of an image.
//
// [Parse] reads the values of --provenance, --sbom and --attest. A [Predicate] is the provenance of
// one image; [Provenance.Encode] writes it in the version and with the detail that the user wants.
// [NewStatement] wraps a predicate, and [NewManifest] makes the manifest that refers to statements.
// The documents have the form that BuildKit gives them
// (https://github.com/moby/buildkit/tree/v0.34.2/docs/attestations), so that the tools that read
// attestations of BuildKit read these.
//
// It imports ocijson, platform, reference and suggest. It does no I/O.
//
// To test it, run go test ./internal/attest as any user. FuzzParse reads values of flags,
// FuzzReadStatement the statements of a scanner. The other tests compare the documents with the
// types of BuildKit, in-toto and package-url.
package attest
