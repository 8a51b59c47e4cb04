// Package dist tests scripts/install and scripts/dist: what is installed, that the files of a
// release are the same bit for bit when they are made twice, and what they contain.
//
// It imports no other package of the module. It copies the source, makes a commit and a tag of it,
// and starts git, the go command with the module scripts/dist, and dpkg-deb if it is installed. It
// writes to temporary directories. The go command uses the network to fetch the modules of
// scripts/dist if they are not in the module cache.
//
// To run it: go test ./test/dist, as root. With LAYERBUILD_DIST=1 TestTwice makes the files of one
// architecture and the image :inplace. With LAYERBUILD_DIST=all it makes those of both
// architectures, and compiles them again with an empty cache, which takes many minutes. It does not
// make the ordinary image, which has Debian packages that are downloaded.
package dist
