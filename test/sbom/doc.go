// Package sbom compares the packages that `layerbuild sbom` finds in a Debian image with those that
// syft finds, and checks the lines of the Dockerfile to which they are attributed.
//
// It imports lab. It runs the program and syft, which it installs with the go command into a
// temporary directory, and Debian's package manager in an image.
//
// To test it, run go test ./test/sbom as root, after make rootfs, with LAYERBUILD_RECALL=1 in the
// environment and -timeout 60m. It downloads packages of Debian and the modules of syft.
package sbom
