// Package snapshot keeps file system states as a tree of immutable directories.
//
// A snapshot is either active (being written, in ROOT/tmp, owned by one process) or committed (ROOT/<id>, never changed
// again). A committed snapshot has at most one parent; it and its parents, topmost first, are its chain. What a snapshot
// looks like on disk is the driver's affair: with overlay and fuse-overlayfs its directory holds only what differs from
// its parent, with copy and btrfs it holds everything. overlay, fuse-overlayfs, and copy with btrfs have stores of their
// own in one directory: they cannot read each other's snapshots.
//
// There is no database: a directory appears by rename, so that a reader sees all of it or nothing, and several
// processes share one root without speaking to each other.
package snapshot

import (
	"errors"
	"fmt"
	"time"

	"github.com/layerbuild/layerbuild/internal/state/ledger"
)

// ID names a committed snapshot. It is one directory name: letters, digits, '_', '.' and '-'.
type ID string

var (
	// ErrNotExist says that there is no committed snapshot of that name, or none that can be trusted (see Info.Suspect).
	ErrNotExist = errors.New("snapshot does not exist")
	// ErrInUse says that a snapshot cannot be removed because others, committed or active, are made on top of it.
	ErrInUse = errors.New("snapshot is in use")
)

// maxID keeps an ID below NAME_MAX with room for a suffix.
const maxID = 200

// reserved are names in a store's root that are no snapshots.
var reserved = map[ID]bool{
	".": true, "..": true, "tmp": true, "empty": true, "lock": true, fuseHome: true, fullHome: true,
	"ids": true, "ids.new": true, "synced": true, "synced.new": true, "probe": true, "probe.new": true,
}

// Validate says whether id can name a snapshot. IDs may come from images, so they are not trusted.
func (id ID) Validate() error {
	if id == "" || len(id) > maxID || reserved[id] {
		return fmt.Errorf("snapshot name %q is not usable", string(id))
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return fmt.Errorf("snapshot name %q has a character other than letters, digits, '_', '.' and '-'", string(id))
		}
	}
	return nil
}

// Info is what is known of a committed snapshot.
type Info struct {
	ID ID `json:"-"`
	// Parent is the snapshot that this one was made on, "" if none.
	Parent  ID        `json:"parent,omitempty"`
	Created time.Time `json:"created"`
	Driver  string    `json:"driver"`
	// Boot is the kernel's boot_id when it was committed.
	Boot string `json:"boot"`
	// Syncs is the number of syncs that were begun in that boot when it was committed.
	Syncs int `json:"syncs"`
	// Suspect is set if the machine went down after it was committed and before a sync, so that its content may be
	// damaged. Only All shows such snapshots; for the rest of the package they do not exist and a Commit replaces them.
	Suspect bool `json:"-"`
}

// Changes is where the difference between a snapshot and its parent is read.
type Changes struct {
	// Dir is the snapshot's own directory.
	Dir string
	// Lower are the directories below it, topmost first. With Full it is at most one, the parent's whole tree.
	Lower []string
	// Full says that Dir holds the whole tree and not only what changed.
	Full bool
	// UserXattr says that overlay's marks are in user.overlay.* and not in trusted.overlay.*.
	UserXattr bool
	// StandIns is set if files in it may stand for device nodes, which a user namespace cannot make (rawfs.Device).
	StandIns bool
}

// Options say how a store is opened. The zero value probes for the best driver and works outside of user namespaces.
type Options struct {
	// Driver is the driver's name; "" takes the first one that works.
	Driver string
	// UserNS says that the process runs in a user namespace.
	UserNS bool
	// Ledger tells which snapshots of earlier boots are on the disk; nil: only those of this boot are trusted.
	Ledger *ledger.Ledger
	// Lease is called with the ID of a snapshot before the snapshot is looked up or gets its name: from then on no
	// collector may remove it or those that it is made on. It may be called several times, and waits for a collector; nil:
	// nobody collects while the store is open.
	Lease func(ID)
}

// ProbeResult says whether a driver works, and if not, why, in a sentence for users.
type ProbeResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}
