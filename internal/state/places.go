package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The names in the state directory. Others begin with tempPrefix.
const (
	gateName      = "lock"
	runningName   = "running"   // of package state: the leases
	storeName     = "oci"       // of package store
	cacheName     = "cache"     // of packages cache and ledger, and the names below
	snapshotsName = "snapshots" // of package snapshot
)

// Names in the cache directory.
const (
	usageName  = "usage"
	secretName = "secret"
	pointsName = "mountpoints"
	Mounts     = "mounts"  // the cache mounts
	Indexes    = "context" // the indexes of build contexts
	Explained  = "explain" // what steps were made from: package explain
)

// KeptKind is the kind of data about a blob: a directory in the cache directory, whose files are
// named by the digest of the blob.
type KeptKind string

const (
	Tables   KeptKind = "tables"   // the entries of a layer
	Builds   KeptKind = "builds"   // how the image of a configuration was built
	Blocks   KeptKind = "blocks"   // where the blocks of a compressed layer begin
	Verified KeptKind = "verified" // the file that had the right digest
)

var keptKinds = [...]KeptKind{Tables, Builds, Blocks, Verified}

// places are the files and directories of the state that every build uses; a name that ends in a
// slash is a directory. Damage, or a user, may have replaced a file by a directory or a directory
// by a file.
var places = slices.Concat(
	[]string{gateName, runningName + "/"},
	namesIn(storeName, "", "blobs/", "blobs/sha256/", "tmp/", "lock"),
	namesIn(cacheName, "", "tmp/", "lock", "syncs", "step/", "chain/", "sealed/", "remote/",
		usageName, secretName, pointsName+"/", Mounts+"/", Indexes+"/",
		Explained+"/"),
	keptPlaces(),
	namesIn(snapshotsName, "", "tmp/", "empty/", "lock", "probe",
		"fuse/", "fuse/tmp/", "fuse/empty/", "fuse/lock",
		"full/", "full/tmp/", "full/empty/", "full/lock"),
)

// namesIn returns names in the directory dir.
func namesIn(dir string, names ...string) []string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = dir + "/" + name
	}
	return list
}

func keptPlaces() []string {
	var list []string
	for _, kind := range keptKinds {
		list = append(list, cacheName+"/"+string(kind)+"/")
	}
	return list
}

// Holds reports whether a name in a state directory belongs to a file that this package makes.
func Holds(name string) bool {
	switch name {
	case gateName, runningName, storeName, cacheName, snapshotsName:
		return true
	}
	return strings.HasPrefix(name, tempPrefix)
}

// cachePath returns the path of a name in the cache directory.
func (s *State) cachePath(name ...string) string {
	return filepath.Join(append([]string{s.Root, cacheName}, name...)...)
}

// fixTypes renames files and directories of the state that are of the wrong type. The caller makes
// new ones: no data are lost, because the right ones were missing.
func (s *State) fixTypes(names ...string) error {
	for _, name := range names {
		if err := s.FixType(filepath.Join(s.Root, name), strings.HasSuffix(name, "/")); err != nil {
			return err
		}
	}
	return nil
}

// FixType renames the file at path if it should be a directory, or the directory if it should be a
// file. It warns if it has done so.
func (s *State) FixType(path string, dir bool) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil { // missing, or making it fails as well
		return nil
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir == dir || !isDir && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	what := "a file where a directory is expected"
	if isDir {
		what = "a directory where a file is expected"
	}
	to, err := setAside(path, isDir)
	if err != nil {
		return fmt.Errorf("%s is %s; move it away: %w", path, what, err)
	}
	if to != "" && s.warn != nil {
		s.warn(fmt.Sprintf("%s was %s; it is now %s", path, what, to))
	}
	return nil
}

// setAside renames a file or a directory, and returns the new name. It returns "" if another
// process has renamed it first.
func setAside(path string, isDir bool) (string, error) {
	to := path + ".damaged"
	if err := os.RemoveAll(to); err != nil {
		return "", err
	}
	// rename(2) replaces a file only by a file, and an empty directory only by a directory. So it
	// fails if another process has meanwhile made a file of the right type, such as a lock that it
	// holds.
	var err error
	if isDir {
		err = os.Mkdir(to, 0o700)
	} else {
		err = os.WriteFile(to, nil, 0o600)
	}
	if err == nil {
		err = unix.Rename(path, to)
	}
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, fs.ErrNotExist) {
		return "", os.RemoveAll(to)
	}
	return to, err
}
