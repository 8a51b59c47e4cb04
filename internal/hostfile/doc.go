// Package hostfile opens the files of this machine that the user names. This includes files that
// the process has already open (/dev/fd/3, /dev/stdin) and may not open again.
//
// open(2) of /proc/self/fd/N opens the file again and checks its permissions. A pipe belongs to the
// user who made it and has the mode 0600: if sudo or runuser starts the program as another user,
// the file is accessible only through the descriptor.
//
// It imports no other package of the module. It makes one system call, to duplicate a descriptor.
// It opens only the given files.
//
// To test it, run go test ./internal/hostfile: as root for descriptors of another user, as any user
// for the rest.
package hostfile
