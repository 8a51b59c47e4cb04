// Package fstree defines the notation of file trees in tests: one entry a line.
//
//	dir usr/bin 0755
//	file etc/a 0644 root:root @1700000000 [user.colour=red] hello
//	link b -> a
//	hardlink c => etc/a
//	whiteout etc/old
//	opaque var/lib
//	char dev/null 0666 1:3
//	block dev/sda 0660 root:6 8:0
//	fifo run/pipe 0600
//	socket run/sock
//
// Mode, owner, time and extended attributes may be left out, but stand in this order. A file's
// content is the rest of the line. Any field may be written as a Go string ("with spaces\n"), and
// must be written as one if it would have another meaning without quotes. Empty lines and lines
// that begin with # are ignored. The path "." is the tree's root.
//
// Make makes a tree from the notation and Print prints one in it, so that a test compares trees as
// text. Both access only the given directory.
//
// It imports no other package of the module. It makes system calls for devices, owners, times and
// attributes. It is for tests only.
//
// To test it, run go test ./internal/fstree: as root for owners, devices and trusted attributes, as
// any user for the rest.
package fstree
