// Package rootless builds as users who are not root, with a range of subordinate ids and with a
// single id, and compares the digests with those of root's builds.
//
// It imports imagetest, golden and lab. It makes users and runs the program as them.
//
// To run it: go test ./test/rootless, as root, which makes the users.
package rootless
