// Package gunzip reads gzip streams (RFC 1952, RFC 1951).
//
// Nearly all layers in registries are gzip streams, and reading them is most of the time of a pull.
// This reader needs half the CPU time of klauspost/compress/gzip (docs/BENCHMARKS.md, "Reading gzip
// layers"): it looks up codes in 56 bits of input at a time, and looks for the end of its buffers
// once for several symbols. It is written without package unsafe: a stream that is not valid is an
// error and cannot touch other memory.
//
// It imports no other package of the module. It makes no system calls and writes nothing.
//
// To test it, run go test ./internal/gunzip as any user. FuzzReader and FuzzRoundTrip compare it
// with the standard library.
package gunzip
