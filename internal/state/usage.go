package state

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/smallfile"
	"github.com/layerbuild/layerbuild/snapshot"
)

// usage contains the sizes on disk of the parts of the state. Snapshots and blobs do not change, so
// each is measured once and recorded in cache/usage, to which a line "kind name bytes" is appended.
// Cache mounts that were used are measured again, but at most once an hour. Lines that cannot be
// read are ignored, and the file can be removed at any time: the parts are then measured again.
type usage struct {
	s     *State
	known map[string]int64 // sizes by "kind name"
	added bytes.Buffer     // lines that are not in the file yet

	// after and cache are the sizes in bytes after the last collection: of the whole state, and of
	// the cache, which can be collected.
	after, cache int64
}

func (s *State) usageFile() string { return s.cachePath(usageName) }

// readUsage reads the file. If that fails, no sizes are known.
func (s *State) readUsage() *usage {
	u := &usage{s: s, known: map[string]int64{}}
	data, err := smallfile.Read(s.usageFile())
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(data)) {
		line, whole := strings.CutSuffix(line, "\n")
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || !whole {
			continue
		}
		n, err := strconv.ParseInt(line[i+1:], 10, 64)
		if err == nil && n >= 0 {
			u.known[line[:i]] = n
		}
	}
	u.after, u.cache = u.known["after collection"], u.known["cache collection"]
	return u
}

func (u *usage) note(name string, n int64) int64 {
	u.known[name] = n
	fmt.Fprintf(&u.added, "%s %d\n", name, n)
	return n
}

// save appends new sizes to the file. It ignores errors: the parts are then measured again.
func (u *usage) save() {
	if u.added.Len() == 0 {
		return
	}
	f, err := os.OpenFile(u.s.usageFile(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	_, _ = f.Write(u.added.Bytes())
	u.added.Reset()
	_ = f.Close()
}

// snapshot returns the size of a snapshot.
func (u *usage) snapshot(in *snapshot.Store, id snapshot.ID) int64 {
	name := snapshotName(in, id)
	if n, ok := u.known[name]; ok {
		return n
	}
	return u.note(name, treeSize(in.Dir(id)))
}

// snapshotName returns the name of a snapshot in the file. It includes the store, since the stores
// of several drivers may each have a snapshot of the same ID, and whether the snapshot has a merged
// directory, which is added later.
func snapshotName(in *snapshot.Store, id snapshot.ID) string {
	name := "snapshot " + string(id)
	if home := in.Home(); home != "" {
		name = home + " " + string(id)
	}
	if in.Merged(id) {
		name += " merged"
	}
	return name
}

// blob returns the size of a blob; name is its digest without the algorithm.
func (u *usage) blob(dir, name string) int64 {
	if n, ok := u.known["blob "+name]; ok {
		return n
	}
	fi, err := os.Lstat(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	return u.note("blob "+name, fi.Size())
}

// mountsEvery is the shortest time between two measurements of a cache mount.
const mountsEvery = time.Hour

// mount returns the size of a cache mount when it was last measured.
func (u *usage) mount(name string) int64 {
	dir := u.s.cachePath(Mounts, name)
	measured, ok := u.known["measured "+name]
	if at := time.Unix(measured, 0); ok &&
		(time.Since(at) < mountsEvery || mountUsed(dir).Before(at)) {
		return u.known["mount "+name]
	}
	u.note("measured "+name, time.Now().Unix())
	return u.note("mount "+name, treeSize(dir))
}

// blobsDir returns the directory of the store's blobs.
func (s *State) blobsDir() string { return filepath.Join(s.Root, storeName, "blobs", "sha256") }

// total returns the size of the whole state. It measures only new parts.
func (u *usage) total() int64 {
	var n int64
	for _, in := range u.s.snapshotStores() {
		for _, id := range in.IDs() {
			n += u.snapshot(in, id)
		}
	}
	blobs := u.s.blobsDir()
	for _, name := range names(blobs) {
		n += u.blob(blobs, name)
	}
	for _, name := range names(u.s.cachePath(Mounts)) {
		n += u.mount(name)
	}
	return n
}

// names returns the names in a directory; nil if the directory cannot be read.
func names(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	list, _ := f.Readdirnames(-1)
	return list
}

// collected rewrites the file after a collection, without the removed parts.
func (u *usage) collected() {
	known := u.known
	u.known = map[string]int64{}
	keep := func(name string) {
		if n, ok := known[name]; ok {
			u.note(name, n)
		}
	}
	u.added.Reset()
	for _, in := range u.s.snapshotStores() {
		for _, id := range in.IDs() {
			keep(snapshotName(in, id))
		}
	}
	for _, name := range names(u.s.blobsDir()) {
		keep("blob " + name)
	}
	for _, name := range names(u.s.cachePath(Mounts)) {
		keep("measured " + name)
		keep("mount " + name)
	}
	u.note("after collection", u.total())
	u.note("cache collection", u.cache)
	// Another process may write the file at the same time. The later version replaces the earlier
	// one, and lost sizes are measured again.
	_ = u.s.Cache.Temp().ReplaceFile(u.s.usageFile(), u.added.Bytes())
	u.added.Reset()
}

// treeSize returns the size on disk of the files and directories below dir, hard links counted
// once. Files that cannot be read count 0.
func treeSize(dir string) int64 {
	s := sizer{links: map[inode]bool{}}
	s.add(dir)
	s.below(dir)
	return s.size
}

type inode struct{ dev, ino uint64 }

// sizer adds up the sizes of files.
type sizer struct {
	size  int64
	links map[inode]bool // files that were added and have other names
}

// add adds a file, and reports whether it is a directory.
func (s *sizer) add(path string) (isDir bool) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return false
	}
	isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	if st.Nlink > 1 && !isDir {
		if s.links[inode{st.Dev, st.Ino}] {
			return false
		}
		s.links[inode{st.Dev, st.Ino}] = true
	}
	s.size += st.Blocks * 512
	return isDir
}

// below adds the files below a directory. It reads a part of the names at a time, since a directory
// of a hostile image may have millions of them.
func (s *sizer) below(dir string) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			if path := filepath.Join(dir, name); s.add(path) {
				s.below(path)
			}
		}
		if err != nil {
			return
		}
	}
}
