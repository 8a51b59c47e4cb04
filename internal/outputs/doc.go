// Package outputs makes the images of a finished build and sends them to their destinations.
//
// The steps of a build run once, and their layers are sealed once, in the format of the image in
// the store. Each -o may request a different image: another compression, Docker's media types, no
// dead bytes, annotations of its own. A Recipe has the options that, together with the layers,
// determine the bytes of an image. Writer makes one image for each recipe from the layers of the
// build, names the image in the store and runs the exporters.
//
// It imports the packages that internal/arch lists. It makes no system calls. It reads and writes
// blobs of the store, sends layers to registries and runs exporters. It runs no steps and makes no
// snapshots.
//
// To test it, run go test ./internal/outputs as any user. go test ./internal/build has builds with
// outputs and a fake executor, and needs root, or a user who may make user namespaces.
package outputs
