package dirfd

import "golang.org/x/sys/unix"

// RemoveTree removes a directory and everything in it. It returns EXDEV for a mount below the
// directory, which it does not enter.
func RemoveTree(dir int, name []byte) error { return removeTree(dir, name, nil) }

// RemoveDirs is like RemoveTree. It calls removed with the path of each directory that it removes:
// path for the directory itself, and longer paths for those in it.
func RemoveDirs(dir int, name []byte, path string, removed func(path []byte)) error {
	return removeTree(dir, name, &removal{[]byte(path), removed})
}

// removal is a call of RemoveDirs.
type removal struct {
	path    []byte
	removed func(path []byte)
}

func removeTree(dir int, name []byte, r *removal) error {
	fd, err := OpenSame(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var names Names
	if err := names.Read(fd); err != nil {
		return err
	}
	opened := false
	for _, e := range names.Entries {
		child := names.CName(e)
		err := remove(fd, child, e.Type, r)
		if err == unix.EACCES && !opened { // its mode does not permit its owner to remove entries
			opened = true
			if err := unix.Fchmod(fd, 0o700); err != nil {
				return err
			}
			err = remove(fd, child, e.Type, r)
		}
		if err != nil {
			return err
		}
	}
	if err := Unlink(dir, name, unix.AT_REMOVEDIR); err != nil {
		return err
	}
	if r != nil {
		r.removed(r.path)
	}
	return nil
}

// remove removes the entry name of dir. typ is its type in the result of getdents64(2). r is nil or
// has the path of dir.
func remove(dir int, name []byte, typ byte, r *removal) error {
	if typ != unix.DT_DIR {
		if err := Unlink(dir, name, 0); err != unix.EISDIR && err != unix.EPERM {
			return err
		}
	}
	if r == nil {
		return removeTree(dir, name, nil)
	}
	end := len(r.path)
	r.path = append(append(r.path, '/'), name[:len(name)-1]...)
	err := removeTree(dir, name, r)
	r.path = r.path[:end]
	return err
}

// OpenSame opens a directory in dir that is on the same mount, even if its mode does not permit its
// owner to read it.
func OpenSame(dir int, name []byte) (int, error) {
	base := string(name[:len(name)-1])
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(dir, base, &how)
	if err == unix.EACCES {
		if err := Chmod(dir, name, 0o700); err != nil {
			return -1, err
		}
		fd, err = unix.Openat2(dir, base, &how)
	}
	return fd, err
}
