// Package readers checks that other programs, skopeo, umoci, podman, docker, and several readers of
// tar, can read the images of the program.
//
// It imports fstree, imagetest and lab. It runs these programs, and daemons of docker and of
// docker-registry, in temporary directories.
//
// To run it: go test ./test/readers, as root. A test is skipped if its program is not installed.
package readers
