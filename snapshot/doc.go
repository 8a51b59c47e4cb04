// Package snapshot stores file system states as a tree of immutable directories.
//
// A snapshot is either active (being written, in ROOT/tmp, owned by one process) or committed
// (ROOT/<id>, never changed again). A committed snapshot has at most one parent. It and its
// ancestors, topmost first, are its chain. The driver determines what a snapshot's directory
// contains: with overlay and fuse-overlayfs only the difference to its parent, with copy and btrfs
// the whole tree. overlay and fuse-overlayfs have separate stores below one directory, and copy and
// btrfs share a third one: drivers with different stores cannot read each other's snapshots.
//
// There is no database. A snapshot's directory appears by rename, so that a reader sees all of it
// or nothing, and several processes can use one root without other communication.
//
// It imports atomicfile, dirfd, filedata, lock, mount, safepath, smallfile and state/ledger. It
// makes system calls and mounts, and writes only below the root that is passed to Open.
//
// To test it, run go test ./snapshot as root, or as a user who may make user namespaces. Package
// snapshottest is the conformance suite, which runs for every driver that works on the machine.
// TestBtrfs makes a file system on a loop device, as root. FuzzInfo reads damaged descriptions of
// snapshots.
package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/layerbuild/layerbuild/internal/state/ledger"
)

// ID names a committed snapshot. It is one directory name: letters, digits, '_', '.' and '-'.
type ID string

// NewID returns a new random name for a snapshot.
func NewID() ID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never returns an error
	return ID(hex.EncodeToString(b[:]))
}

var (
	// ErrNotExist is returned when there is no committed snapshot of that name, or none that can be
	// trusted (see Info.Suspect).
	ErrNotExist = errors.New("snapshot does not exist")
	// ErrInUse is returned when a snapshot cannot be removed because other snapshots, committed or
	// active, have it as their parent.
	ErrInUse = errors.New("snapshot is in use")
)

// maxID is the longest ID: it is below NAME_MAX, with room for a suffix.
const maxID = 200

// reserved are the names in a store's root that are not snapshots.
var reserved = map[ID]bool{
	".": true, "..": true, "tmp": true, "empty": true, "lock": true, fuseHome: true, fullHome: true,
	"ids": true, "ids.new": true, probeFile: true, probeFile + ".new": true,
}

// Validate returns an error when id cannot be the name of a snapshot. IDs may come from images, so
// they are not trusted.
func (id ID) Validate() error {
	if id == "" || len(id) > maxID || reserved[id] {
		return fmt.Errorf("snapshot name %q is not allowed", string(id))
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' &&
			c != '.' && c != '-' {
			return fmt.Errorf(
				"snapshot name %q has a character other than letters, digits, '_', '.' and '-'",
				string(id))
		}
	}
	return nil
}

// Info describes a committed snapshot.
type Info struct {
	ID ID `json:"-"`
	// Parent is the parent snapshot, "" if there is none.
	Parent  ID        `json:"parent,omitempty"`
	Created time.Time `json:"created"`
	Driver  string    `json:"driver"`
	// Boot is the kernel's boot_id when the snapshot was committed.
	Boot string `json:"boot"`
	// Syncs is the number of syncs that had been started in that boot when the snapshot was
	// committed.
	Syncs int `json:"syncs"`
	// Suspect is set if the machine stopped after the snapshot was committed and before a sync, so
	// that its content may be damaged. Only All returns such snapshots. All other methods treat
	// them as missing, and a Commit replaces them.
	Suspect bool `json:"-"`
}

// Changes holds the directories from which the difference between a snapshot and its parent is
// read.
type Changes struct {
	// Dir is the snapshot's own directory.
	Dir string
	// Lower are the directories below it, topmost first. With Full there is at most one, the
	// parent's whole tree.
	Lower []string
	// Full is set if Dir contains the whole tree and not only the difference.
	Full bool
	// UserXattr is set if overlay's marks are in user.overlay.* and not in trusted.overlay.*.
	UserXattr bool
	// StandIns is set if files in it may stand for device nodes, which cannot be made in a user
	// namespace (dirfd.Device).
	StandIns bool
}

// Options are the options of Open. The zero value probes for the best driver and works outside of
// user namespaces.
type Options struct {
	// Driver is the driver's name; "" selects the first one that works.
	Driver string
	// UserNS is set if the process runs in a user namespace.
	UserNS bool
	// Ledger records which snapshots of earlier boots are on the disk. If it is nil, only those of
	// this boot are trusted.
	Ledger *ledger.Ledger
	// Lease is called with the ID of a snapshot before the snapshot is looked up or committed. From
	// then on no collector may remove the snapshot or its ancestors. Lease may be called several
	// times for an ID, and waits for a running collector until the context ends. If it returns an
	// error, the snapshot is not used. If Lease is nil, no collector may run while the store is
	// open.
	Lease func(context.Context, ID) error
	// MergeAfter is the number of snapshots after which a chain is merged; 0: 64.
	MergeAfter int
}

// ProbeResult reports whether a driver works. If not, Reason is a sentence for users.
type ProbeResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}
