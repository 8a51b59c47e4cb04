// Package dirfd makes system calls on names relative to an open directory without leaving garbage
// behind.
//
// Names are byte slices that end in a NUL: trees are walked and unpacked with names that already
// lie in a buffer, and the wrappers of x/sys/unix would copy each into a new allocation. Results
// are bare errno values; the caller knows the path and says it.
//
// It imports no other package of the module. It makes system calls, and those only. The caller is
// responsible for names that lead out of the directory.
//
// It is tested by its users: go test ./internal/unpack ./diff, as root or as a user who may make
// user namespaces.
package dirfd
