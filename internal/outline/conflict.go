package outline

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// list adds a file to the list: its type as in archive/tar, mode, size and path, and a zero byte. A
// file with attributes has the type hasAttributes.
func (n *node) list(b *bytes.Buffer, at string) {
	kind := n.kind
	if len(n.xattrs) > 0 {
		kind = hasAttributes
	}
	fmt.Fprintf(b, "%c %o %d %s\x00", kind, n.mode, n.size, at)
}

// hasAttributes is the type of a file with extended attributes. An access control list may change
// the mode.
const hasAttributes = 'x'

// Files are the files of an image that are not in its outline.
type Files struct {
	files map[string]file // by name
	dirs  map[string]*Files
}

type file struct {
	kind byte
	mode uint32
	size int64
}

// Parse parses the list of an outline.
func Parse(text []byte) (*Files, error) {
	top := &Files{}
	for len(text) > 0 {
		line, rest, ok := bytes.Cut(text, []byte{0})
		if !ok {
			return nil, errors.New("the last file has no end")
		}
		text = rest
		fields := strings.SplitN(string(line), " ", 4)
		if len(fields) != 4 || len(fields[0]) != 1 {
			return nil, fmt.Errorf("%q is not a file", line)
		}
		f := file{kind: fields[0][0]}
		mode, err := strconv.ParseUint(fields[1], 8, 12)
		f.mode = uint32(mode)
		if err == nil {
			f.size, err = strconv.ParseInt(fields[2], 10, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("%q is not a file: %w", line, err)
		}
		top.add(fields[3], f)
	}
	return top, nil
}

func (f *Files) add(name string, add file) {
	for {
		dir, rest, ok := strings.Cut(name, "/")
		if !ok {
			break
		}
		if f.dirs == nil {
			f.dirs = map[string]*Files{}
		}
		if f.dirs[dir] == nil {
			f.dirs[dir] = &Files{}
		}
		f, name = f.dirs[dir], rest
	}
	if f.files == nil {
		f.files = map[string]file{}
	}
	f.files[name] = add
}

// In reports whether the outline lacks a file in the directory dir, or below it. "" is the root.
func (f *Files) In(dir string) bool {
	for part := range strings.SplitSeq(path.Clean("/" + dir)[1:], "/") {
		if part == "" {
			continue
		}
		if f = f.dirs[part]; f == nil {
			return false
		}
	}
	return true
}

// Conflict returns the path of a file that a step has made in place of a file that the outline
// lacks, if the layer of the step depends on the latter. It returns "" if the layer is the same as
// on the unpacked image. upper is the directory with the changes of the step, and lower are those
// of the steps between it and the outline, topmost first.
//
// The layer depends on a replaced file if the new one may be equal to it: Conflict returns the path
// of a file of the same permissions and size, of one that has attributes, and of one that is not
// regular. It also returns the path of a directory in place of a file, which a COPY refuses to
// replace on the unpacked image, and of a directory that hides the files because the step made it
// again. If the step ran on an empty file system (alone), its directories hide nothing:
// fuse-overlayfs marks all of them.
func (f *Files) Conflict(upper string, lower []string, alone bool) (string, error) {
	return f.conflict(upper, lower, alone, "")
}

// conflict looks for files and directories of f that the step has made, too. It lists what the step
// has made, which is often much less.
func (f *Files) conflict(upper string, lower []string, alone bool, at string) (string, error) {
	dir, err := os.Open(filepath.Join(upper, at))
	if err != nil {
		return "", err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close() // it was only read
	if err != nil {
		return "", err
	}
	for _, name := range names {
		was, isFile := f.files[name]
		sub := f.dirs[name]
		if !isFile && sub == nil {
			continue
		}
		here := path.Join(at, name)
		now, err := os.Lstat(filepath.Join(upper, here))
		if err != nil {
			return "", err
		}
		if isFile && !isIn(lower, here) && !was.differs(now) {
			return here, nil
		}
		if sub == nil {
			continue
		}
		if !now.IsDir() {
			return here, nil
		}
		if !alone {
			if marked, err := isMarked(filepath.Join(upper, here)); marked || err != nil {
				return here, err
			}
		}
		if found, err := sub.conflict(upper, lower, alone, here); found != "" || err != nil {
			return found, err
		}
	}
	return "", nil
}

// differs reports whether a file differs from the one in its place, as far as the layer is
// concerned. It does not compare owners, which may be lost in a user namespace.
func (f file) differs(now fs.FileInfo) bool {
	switch now.Mode().Type() {
	case fs.ModeSymlink:
		return true
	case 0: // it may stand for a device
		return f.kind == tar.TypeReg &&
			(uint32(now.Mode().Perm()) != f.mode&0o777 || now.Size() != f.size)
	}
	return false
}

// isMarked reports whether a directory hides those of the layers below, for overlayfs or for
// fuse-overlayfs.
func isMarked(dir string) (bool, error) {
	marks, err := dirfd.XattrsOf(dir, func(name []byte) bool {
		s := string(name)
		return s == dirfd.OverlayXattrs+"opaque" || s == dirfd.OverlayUserXattrs+"opaque" ||
			s == dirfd.FuseOverlayfsXattrs+"opaque"
	})
	if err != nil {
		return false, &fs.PathError{Op: "read xattrs", Path: dir, Err: err}
	}
	st, err := lstat(dir, opaque)
	return len(marks) > 0 || st != nil, err
}

// Users reports whether the names of users and groups are those of the unpacked image. They may
// not be if a step has replaced one of the files, or the directory above them, by a link. dirs are
// the directories of the steps on the outline.
func Users(dirs []string) (bool, error) {
	for _, dir := range dirs {
		etc, err := lstat(dir, "etc")
		if err != nil {
			return false, err
		}
		if etc == nil {
			continue
		}
		marked, err := isMarked(filepath.Join(dir, "etc"))
		if !etc.IsDir() || marked || err != nil {
			return false, err
		}
		for _, name := range users {
			if st, err := lstat(dir, name); err != nil || st != nil && !st.Mode().IsRegular() {
				return false, err
			}
		}
	}
	return true, nil
}

// isIn reports whether one of the directories has a file at the path. A character device may be a
// whiteout.
func isIn(dirs []string, at string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		st, err := lstat(dir, at)
		return err == nil && st != nil && st.Mode()&fs.ModeCharDevice == 0
	})
}

// lstat describes a file in dir; nil if there is none.
func lstat(dir, at string) (fs.FileInfo, error) {
	st, err := os.Lstat(filepath.Join(dir, at))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return st, err
}
