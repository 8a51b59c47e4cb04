// Command dist makes the files of a release: static programs in archives, Debian and RPM packages,
// lists of the software in them, container images, and the file of checksums.
//
// Everyone who makes the files from the same commit gets the same bytes, in any place at any time:
// programs are built by the toolchain that go.mod names, all times are that of the commit, and
// owners, modes and the order of files do not depend on the machine. dist writes the archives and
// packages itself, so that they do not depend on the versions of tar, gzip, dpkg and rpm either.
//
// It is a module of its own, so that what it needs is no dependency of layerbuild. It runs the go
// command and git, and for images mmdebstrap; it imports no package of layerbuild.
//
// To test it, run go test in this directory; test/dist makes the files of a release twice.
package main
