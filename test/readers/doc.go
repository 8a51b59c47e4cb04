// Package readers gives images to programs of other origins: skopeo, umoci, podman and docker must
// read what the program writes.
//
// It imports fstree, imagetest and lab. It runs these programs, and daemons of docker and of
// docker-registry, in temporary directories.
//
// To run it: go test ./test/readers, as root. A test is skipped where its program is not installed.
package readers
