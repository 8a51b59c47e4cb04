// Package outputs makes the images of a finished build and sends them where they are to go.
//
// The steps of a build run once, and their layers are sealed once, in the format of the image in
// the store. Each -o may ask for another image: another compression, Docker's media types, no dead
// bytes, annotations of its own. A Recipe is what the bytes of an image depend on besides the
// layers. Writer makes one image for each recipe from the layers of the build, names the image in
// the store and runs the exporters.
//
// The package reads and writes blobs of the store. It runs nothing and makes no snapshots. Its
// tests are in this directory, and internal/build tests it together with builds by a fake executor.
package outputs
