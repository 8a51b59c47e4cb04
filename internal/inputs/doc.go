// Package inputs turns what a build takes files from into file trees: base images, images of COPY
// --from and of mounts, and build contexts. It also checks a plan before the build: all images that
// the plan names are resolved.
//
// Each image is resolved and unpacked once in a build, and each context and snapshot is opened
// once, when it is first used.
//
// The package opens mounts and directories for reading, and runs nothing. internal/build tests it
// with fake images and with images of the store.
package inputs
