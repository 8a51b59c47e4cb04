// Package scanner runs an SBOM generator, an image, on the results of a build.
//
// A generator gets the file systems as read-only mounts, and writes in-toto statements to a
// directory, as BuildKit's protocol wants it
// (https://github.com/moby/buildkit/blob/v0.34.2/docs/attestations/sbom-protocol.md). It runs as a
// step of its own, isolated like a RUN, and its result is cached like that of a RUN.
//
// It imports attest, build, event, inputs, platform and parser. It makes no system calls and starts
// no processes itself: a Solver of package build does.
//
// To test it, run go test ./internal/scanner as root, or as a user who may make user namespaces.
package scanner
