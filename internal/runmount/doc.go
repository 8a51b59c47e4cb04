// Package runmount turns the mounts of a RUN (--mount) into mounts and variables of its process:
// bind mounts of snapshots, caches, tmpfs, secrets and the sockets of ssh agents. AddDevices does
// the same for the devices of a command.
//
// The caller determines the snapshot of a bind mount, and the name and the initial files of a
// cache.
//
// It imports executor, cachemount, cdi, layers, mount, secret, parser and snapshot. It makes no
// system calls itself; the executor performs the mounts. It prepares snapshots, locks caches and
// starts proxies of ssh agents, and releases all of them when the command has ended.
//
// To test it, run go test ./internal/runmount as any user. go test ./internal/build has builds with
// mounts and a fake executor, and needs root, or a user who may make user namespaces.
package runmount
