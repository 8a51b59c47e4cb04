// Package atomicfile replaces files atomically: a reader, also after a crash, sees either the old
// content or the new one.
//
// The new content is written to a file without a name (O_TMPFILE), which the kernel removes if the
// process dies. The file gets a temporary name only immediately before rename(2) moves it over the
// old file. On file systems without unnamed files (NFS, and overlayfs before Linux 6.3) it has the
// temporary name from the beginning.
//
// It imports hostfile. It makes the system call that gives a file without a name its name. It
// writes only the file that it is called for, and in its directory.
//
// To test it, run go test ./internal/atomicfile as any user.
package atomicfile
