// Package inputs turns what a build takes files from into file trees: base images, images of COPY --from and of mounts, and
// build contexts.
//
// Each image is resolved and unpacked once in a build, and each context and snapshot opened once, when it is first used.
package inputs
