// Package runverb tests the verb run: signals, terminals and exit statuses.
//
// It imports lab. It runs the program as root and as a user, on terminals that it makes.
//
// To run it: go test ./test/runverb, as root.
package runverb
