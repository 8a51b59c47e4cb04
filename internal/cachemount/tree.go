package cachemount

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"os"
	"syscall"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// Tree describes the files of a cache.
type Tree struct {
	// Digest is a digest of the names, types, owners, modes, sizes and times of the files, and of
	// which names are hard links to the same file. The times of directories are not part of it: a
	// command that makes a temporary file and removes it has changed nothing. Contents are not
	// read.
	Digest string
	// Size is the size of the files in an archive, without long names and attributes.
	Size int64
	// Entries is the number of files and directories below the top.
	Entries int
	// Device is the path of a device node; "" if there is none.
	Device string
}

// block is the unit of the sizes in an archive.
const block = 512

// describe returns the description of the files in dir. Nothing may change them meanwhile.
func describe(ctx context.Context, dir string) (Tree, error) {
	top, err := os.Open(dir)
	if err != nil {
		return Tree{}, err
	}
	defer top.Close()
	w := &describer{ctx: ctx, hash: sha256.New(), links: map[inode]string{}}
	var st dirfd.Stat
	if err := dirfd.Fstat(int(top.Fd()), &st); err != nil {
		return Tree{}, err
	}
	w.add(&st)
	if err := w.directory(top); err != nil {
		return Tree{}, fmt.Errorf("%q: %w", w.path, err)
	}
	w.tree.Digest = hex.EncodeToString(w.hash.Sum(nil))
	return w.tree, nil
}

// describer makes a Tree.
type describer struct {
	ctx   context.Context // that of describe
	hash  hash.Hash
	tree  Tree
	path  []byte
	links map[inode]string // the first name of each file that has several
}

type inode struct{ dev, ino uint64 }

// directory adds the files in an open directory, whose path is w.path.
func (w *describer) directory(dir *os.File) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	var names dirfd.Names
	fd := int(dir.Fd())
	if err := names.Read(fd); err != nil {
		return err
	}
	names.Sort()
	end := len(w.path)
	for _, e := range names.Entries {
		if end > 0 {
			w.path = append(w.path, '/')
		}
		w.path = append(w.path, names.Name(e)...)
		var st dirfd.Stat
		if err := dirfd.Lstat(fd, names.CName(e), &st); err != nil {
			return err
		}
		w.tree.Entries++
		w.add(&st)
		if dirfd.Type(&st) == syscall.S_IFDIR {
			if err := w.enter(fd, names.CName(e)); err != nil {
				return err
			}
		}
		w.path = w.path[:end]
	}
	return nil
}

func (w *describer) enter(dir int, name []byte) error {
	fd, err := dirfd.OpenDir(dir, name)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), string(bytes.TrimRight(name, "\x00")))
	defer f.Close()
	return w.directory(f)
}

// add adds the file w.path.
func (w *describer) add(st *dirfd.Stat) {
	kind := dirfd.Type(st)
	size, at := st.Size, st.Mtime
	if kind == syscall.S_IFDIR {
		size, at.Sec, at.Nsec = 0, 0, 0
	}
	first := ""
	if kind != syscall.S_IFDIR && st.Nlink > 1 {
		file := inode{dirfd.Dev(st), st.Ino}
		if first = w.links[file]; first == "" {
			w.links[file] = string(w.path)
		}
	}
	w.tree.Size += block
	if kind == syscall.S_IFREG && first == "" {
		w.tree.Size += (int64(size) + block - 1) / block * block
	}
	if (kind == syscall.S_IFCHR || kind == syscall.S_IFBLK) && w.tree.Device == "" {
		w.tree.Device = string(w.path)
	}
	// Names cannot contain a zero byte, so that different trees have different bytes.
	b := append(w.path[:len(w.path):len(w.path)], 0)
	for _, n := range []uint64{uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), size,
		uint64(at.Sec), uint64(at.Nsec)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = append(append(b, first...), 0)
	w.hash.Write(b)
}
