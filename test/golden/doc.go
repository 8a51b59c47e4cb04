// Package golden has a set of small images whose digests are known: the same on every machine, for
// every user and on every driver.
//
// It imports imagetest and lab. It makes system calls to set attributes, and runs the program, on
// each driver, with one and with two threads. testdata/digests.txt has the digests. A change of one
// is a change for every user, and -update is a decision.
//
// To run it: go test ./test/golden, as root. test/rootless builds the same images as other users.
package golden
