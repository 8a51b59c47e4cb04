// Package dist tests scripts/install and scripts/dist: what is installed, that the files of a
// release are the same bit for bit when they are made twice, and what they contain.
//
// It imports no other package of the module. It copies the source, makes a commit and a tag of it,
// and starts git, the go command with the module scripts/dist, dpkg-deb if it is installed, and for
// the ordinary image mmdebstrap, skopeo and podman. It writes to temporary directories. The go
// command uses the network to fetch the modules of scripts/dist if they are not in the module
// cache, and mmdebstrap downloads Debian's packages. TestImage unmounts what podman leaves mounted
// in its directory.
//
// To run it: go test ./test/dist, as root. With LAYERBUILD_DIST=1 TestTwice makes the files of one
// architecture and the image :inplace, and TestImage makes the ordinary image and runs it. With
// LAYERBUILD_DIST=all they make those of both architectures, and TestTwice compiles them again with
// an empty cache, which takes many minutes. TestTwice does not make the ordinary image, because
// Debian's packages may change in between.
package dist
