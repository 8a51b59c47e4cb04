// Package mount makes mounts that are described as data.
//
// A Mount is described by the package that knows the directories of a file system (a snapshotter),
// is sent as JSON to the process that needs it, and is made there, in that process's own mount
// namespace.
//
// It imports dirfd and safepath. It makes system calls and mounts, and starts fuse-overlayfs. It
// writes no files, but removes the mark of an earlier volatile mount from an overlay's work
// directory.
//
// To test it, run go test ./internal/mount as root, or as a user who may make user namespaces. The
// tests run in a mount namespace of their own. Each test uses the new mount API, and again
// mount(2).
package mount
