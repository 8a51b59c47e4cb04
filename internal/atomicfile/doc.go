// Package atomicfile replaces files atomically: a reader, also after a crash, sees either the old
// content or the new one.
//
// Write is for the files of users, Own for those of a directory that belongs to the program, such
// as the state directory: its temporary files have names by which a collection recognizes them, and
// it repairs a damaged directory on the way.
//
// Write writes the new content to a file without a name (O_TMPFILE), which the kernel removes if
// the process dies. The file gets a temporary name only immediately before rename(2) moves it over
// the old file. On file systems without unnamed files (NFS, and overlayfs before Linux 6.3) it has
// the temporary name from the beginning.
//
// It imports hostfile. It makes the system call that gives a file without a name its name. It
// writes only the file that it is called for, and in its directory.
//
// To test it, run go test ./internal/atomicfile as any user.
package atomicfile
