// Package atomicfile replaces files atomically: a reader, also after a crash, reads either the old
// content or the new one.
//
// Write is for the files of users. Own is for files in a directory that belongs to the program,
// such as the state directory: a garbage collection recognizes its temporary files by their names,
// and Own repairs a damaged directory.
//
// Write writes the new content to a file without a name (O_TMPFILE), which the kernel removes if
// the process dies. The file gets a temporary name only immediately before rename(2) moves it over
// the old file. On file systems without unnamed files (NFS, and overlayfs before Linux 6.3) it has
// the temporary name from the beginning.
//
// It imports dirfd and hostfile. It makes the system call that links an unnamed file to a name. It
// writes only the given file, and temporary files in its directory.
//
// To test it, run go test ./internal/atomicfile as any user.
package atomicfile
