// Package stagedir makes a tree of files in a temporary directory and moves it to its destination
// when it is complete.
//
// A destination that does not exist appears by one rename(2). If the destination exists, the
// entries are moved into it, each by rename(2). A name that the destination does not have is moved
// together with everything below it, so only directories that both have are walked. Until Commit
// nothing at the destination changes, and from then on each file there is either the old one or the
// complete new one.
//
// The temporary directory is on the file system of the destination, beside it if possible, and
// otherwise in it. A lock on it shows other processes that its owner is alive. New removes those of
// processes that were killed.
//
// It imports dirfd and lock. It makes system calls to move files and to set their
// attributes. It writes in the destination and its parent directory only.
//
// To test it, run go test ./internal/stagedir as any user. test/faults ends outputs at random
// moments.
package stagedir
