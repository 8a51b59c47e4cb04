// Package runmount turns the mounts of a RUN (--mount) into mounts and variables of its process:
// bind mounts of snapshots, caches, tmpfs, secrets and the sockets of ssh agents.
//
// The caller decides which snapshot a bind mount shows, and how a cache is named and filled. The
// package prepares snapshots, locks caches and starts proxies, and releases all of them when the
// command has ended. internal/build tests it with a fake executor; package secret and package
// cachemount have tests of their own.
package runmount
