// Package unpack turns a tar stream into a directory.
//
// Streams come from images and archives, so they may be hostile. Each name is resolved from a
// descriptor of the root, one part at a time and never through a link, or by openat2(2) with
// RESOLVE_IN_ROOT if a link is to be followed. The package does not access files outside the root.
//
// Attributes are set in the order that the kernel needs: owner, then mode (chown clears setuid),
// then extended attributes (chown clears security.capability), then time. Directories get them at
// the end, so that files can be made in a directory that its owner may not write to.
//
// It imports dirfd, gunzip and safepath. It makes system calls, writes only below the root, and
// starts no processes.
//
// To test it, run go test ./internal/unpack as root, for owners and devices, and as a user.
// FuzzTar, FuzzReader, FuzzHeaders and FuzzDecompress compare the package with archive/tar and with
// other decompressors.
package unpack
