// Package stagedir makes a tree of files in a temporary directory and moves it to its destination
// when it is complete.
//
// A destination that does not exist appears by one rename(2). If the destination exists, the
// entries are moved into it, each by rename(2). A name that the destination does not have is moved
// together with everything below it, so that only common directories are walked. Nothing changes at
// the destination before Commit. From then on, each file there is either the old one or the
// complete new one.
//
// The temporary directory is on the file system of the destination, beside the destination if
// possible, and otherwise in it. A lock on it shows other processes that its owner is alive. New
// removes the temporary directories of processes that were killed.
//
// It imports dirfd and lock. It makes system calls to move files and to set their attributes. It
// writes only to the destination and its parent directory.
//
// To test it, run go test ./internal/stagedir as any user. test/faults ends outputs at random
// moments.
package stagedir
