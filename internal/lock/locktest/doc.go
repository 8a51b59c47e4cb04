// Package locktest tests that calls which wait for a lock end with their context.
//
// It imports no other package of the module. It makes the system call flock(2), and makes the lock
// files that its callers name. It is for tests only.
//
// It is tested by its users: go test ./internal/lock ./internal/store ./internal/state ./snapshot,
// as any user.
package locktest
