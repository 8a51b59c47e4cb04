package snapshot

import (
	"context"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// driver is how snapshots are kept on disk. A snapshot's directory dir holds the file system in dir/fs; the driver may
// have more in it while the snapshot is active. Chains are lists of fs directories, topmost first.
type driver interface {
	name() string
	// layered says that fs holds only what differs from the parent.
	layered() bool
	// home is the directory of the driver's snapshots below the root of all.
	home() string
	// prepare makes dir/fs, and what else an active snapshot on that chain needs.
	prepare(ctx context.Context, dir string, chain []string) error
	// writable are the mounts by which an active snapshot is written.
	writable(dir string, chain []string) []mount.Mount
	// view are the mounts by which a committed chain, which is not empty, is read.
	view(chain []string) []mount.Mount
	// seal takes away what only an active snapshot on that chain needs. mounted says that writable's mounts were asked for.
	seal(dir string, chain []string, mounted bool) error
	// remove removes a snapshot's directory, which tmp (an open directory) has under that name.
	remove(tmp int, name string) error
}

// Homes of drivers. Drivers with the same home read each other's snapshots. overlay and fuse-overlayfs do not: each takes
// for a mark what a command may set as an attribute, or as a file's name, on the other.
const (
	overlayHome = ""
	fuseHome    = "fuse"
	fullHome    = "full"
)

// fsDir is the name of the directory that holds a snapshot's file system.
const fsDir = "fs"
