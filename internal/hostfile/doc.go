// Package hostfile opens the files of this machine that the user names, also those that the process
// has open already (/dev/fd/3, /dev/stdin) and may not open again.
//
// open(2) of /proc/self/fd/N opens the file anew and checks its permissions. A pipe belongs to the
// user who made it and has the mode 0600: where sudo or runuser starts the program as another user,
// only the descriptor gives access.
//
// It imports no other package of the module. It makes one system call, to duplicate a descriptor.
// It opens what it is asked for and nothing else.
//
// To test it, run go test ./internal/hostfile: as root for descriptors of another user, as any user
// for the rest.
package hostfile
