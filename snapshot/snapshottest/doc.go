// Package snapshottest is the conformance suite for snapshot drivers.
//
// It imports fstree, mount, mount/mounttest and snapshot. It makes system calls, snapshots and
// mounts below temporary directories, and starts the test program again to kill it. It is for tests
// only.
//
// It is run by go test ./snapshot, as root or as a user who may make user namespaces.
package snapshottest
