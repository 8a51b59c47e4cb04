// Package dirfd makes system calls with names relative to an open directory, without allocating
// memory.
//
// Names are byte slices that end in a NUL: trees are walked and unpacked with names that already
// lie in a buffer, and the wrappers of x/sys/unix would copy each into a new allocation. Results
// are bare errno values; the caller adds the path.
//
// It imports no other package of the module. It makes system calls, and does nothing else. The
// caller is responsible for names that lead out of the directory.
//
// To test it, run go test ./internal/dirfd as any user, and the tests of its users: go test
// ./internal/unpack ./diff, as root or as a user who may make user namespaces.
package dirfd
