// Package giturl parses the addresses of git repositories, as Dockerfiles and build contexts name
// them.
//
// It imports no other package of the module. It does no I/O.
//
// To test it, run go test ./internal/giturl as any user. FuzzParse checks that no part of an
// address becomes an option of git or a path outside of the repository.
package giturl
