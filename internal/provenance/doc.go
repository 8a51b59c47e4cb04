// Package provenance describes the inputs, the parameters and the steps of a build: the provenance
// of its image.
//
// [Build.Record] walks a plan after the build. It asks package inputs for the digests of images,
// repositories and downloads, and writes each instruction as a step in the form that BuildKit
// gives it. [Record.Predicate] adds the layers of an image, which depend on the output.
//
// No value of a secret gets into the record. Values of build arguments that have the name of a
// secret are left out, also where an instruction has them.
//
// It imports attest, image, inputs, platform, reference, source and parser. It makes no system
// calls itself. By way of inputs it may ask a server for the digest of a download that the build
// found in its cache.
//
// To test it, run go test ./internal/provenance as any user.
package provenance
