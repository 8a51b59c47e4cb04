package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// places are the files and directories of the state that every build uses; a name that ends in a
// slash is a directory. Damage, or a user, may have replaced a file by a directory or a directory
// by a file.
var places = []string{
	"lock", "running/",
	"oci/", "oci/blobs/", "oci/blobs/sha256/", "oci/tmp/", "oci/lock",
	"cache/", "cache/tmp/", "cache/lock", "cache/syncs", "cache/usage",
	"cache/step/", "cache/chain/", "cache/sealed/", "cache/remote/",
	"cache/mounts/", "cache/mountpoints/", "cache/context/", "cache/tables/", "cache/builds/",
	"cache/blocks/", "cache/verified/", "cache/secret",
	"snapshots/", "snapshots/tmp/", "snapshots/empty/", "snapshots/lock", "snapshots/probe",
	"snapshots/fuse/", "snapshots/fuse/tmp/", "snapshots/fuse/empty/", "snapshots/fuse/lock",
	"snapshots/full/", "snapshots/full/tmp/", "snapshots/full/empty/", "snapshots/full/lock",
}

// settle renames files and directories of the state that are of the wrong type. The caller makes
// new ones: no data are lost, because the right ones were missing.
func (s *State) settle(names ...string) error {
	for _, name := range names {
		if err := s.Settle(filepath.Join(s.Root, name), strings.HasSuffix(name, "/")); err != nil {
			return err
		}
	}
	return nil
}

// Settle renames the file at path if it should be a directory, or the directory if it should be a
// file. It warns if it has done so.
func (s *State) Settle(path string, dir bool) error {
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
