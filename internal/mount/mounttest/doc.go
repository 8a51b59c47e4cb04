// Package mounttest runs tests in mount namespaces of their own, so that their mounts neither
// appear on the host nor remain afterwards.
//
// It imports no other package of the module. It makes system calls and mounts, and starts the test
// program again in the namespaces. It is for tests only.
//
// It is tested by its users: go test ./internal/mount ./snapshot ./diff, as root or as a user who
// may make user namespaces.
package mounttest
