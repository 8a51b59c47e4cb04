// Package volume reports, by the times of a file, whether the file has changed.
//
// What was read from a file still holds while its ctime is the same, if the kernel of this machine
// sets ctime at each change. Of identifies the file system of a file and tells whether its ctime
// can be trusted; Volume.Racy reports whether the last change is too recent to rely on; Stamp
// combines both.
//
// It imports smallfile. It makes system calls to identify file systems, and writes nothing.
//
// To test it, run go test ./internal/volume as any user. internal/source tests it with images of
// file systems, which need root.
package volume
