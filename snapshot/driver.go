package snapshot

import (
	"context"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// driver stores snapshots on disk. A snapshot's directory dir contains the file system in dir/fs.
// The driver may have other files in dir while the snapshot is active. Chains are lists of fs
// directories, topmost first.
type driver interface {
	name() string
	// layered reports whether fs contains only the difference to the parent.
	layered() bool
	// home returns the directory of the driver's snapshots, below the directory of all drivers.
	home() string
	// prepare makes dir/fs and the other files that an active snapshot on that chain needs.
	prepare(ctx context.Context, dir string, chain []string) error
	// writable returns the mounts for writing an active snapshot.
	writable(dir string, chain []string) []mount.Mount
	// view returns the mounts for reading a committed chain, which is not empty.
	view(chain []string) []mount.Mount
	// seal removes the files that only an active snapshot on that chain needs. mounted reports
	// whether the mounts of writable were requested.
	seal(dir string, chain []string, mounted bool) error
	// remove removes the snapshot's directory name in tmp, an open directory.
	remove(tmp int, name string) error
}

// Homes of drivers. Drivers with the same home read each other's snapshots. overlay and
// fuse-overlayfs do not: each has marks (attributes or file names) that a command can set on the
// other driver, where they are ordinary files.
const (
	overlayHome = ""
	fuseHome    = "fuse"
	fullHome    = "full"
)

// fsDir is the name of the directory that holds a snapshot's file system.
const fsDir = "fs"
