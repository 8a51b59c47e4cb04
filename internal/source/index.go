package source

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// index remembers what was read from files, by what stat(2) says of them: as long as a file's device, inode, size, mode,
// mtime and ctime are the same, so is its content. Names are not in it, so a renamed directory costs nothing.
//
// That holds except for one case, which git calls racy: a file may be changed once more within the same tick of the
// file system's clock, and then looks the same. So what is read from a file whose ctime is not older than a tick when
// the reading begins is not remembered (the ctime counts because no program can set it).
type index struct {
	file   string // "": in memory only
	old    []byte // the records of the file, recordSize each
	seen   []bool // which of them were of use
	table  []uint32
	count  int      // records in table
	added  []record // these come after the old ones
	dirty  bool
	rootFS tick
	root   uint64 // the root directory's device
	trust  bool   // files never change: remember all
}

// record is what is known of one file. In the index file its fields follow one another, little endian.
type record struct {
	key key
	sum sum
}

type key struct {
	ino, dev            uint64 // dev is 0 for the root directory's own device, whose number changes from boot to boot
	size, mtime, ctimes int64
	mode                uint32
}

// sum is the content of a regular file, or the extended attributes of a directory.
type sum struct {
	digest [sha256.Size]byte
	xattrs bool // there are some, and they are in digest
}

const (
	indexMagic = "layerbuild source index 1\n"
	recordSize = 5*8 + 4 + sha256.Size + 2
	ageOffset  = recordSize - 1 // in how many rewrites the record was of no use
	maxAge     = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openIndex loads the index. One that cannot be read, or is damaged, is an empty one.
func openIndex(file string, root int, trust bool) (*index, error) {
	x := &index{file: file, trust: trust}
	var st unix.Statx_t
	if err := statFD(root, &st); err != nil {
		return nil, fmt.Errorf("stat the source directory: %w", err)
	}
	x.root = device(&st)
	x.rootFS = tickOf(root)
	if file != "" {
		if b, err := os.ReadFile(file); err == nil {
			x.load(b)
		}
	}
	return x, nil
}

func (x *index) load(b []byte) {
	n := len(b) - len(indexMagic) - 4
	if n < 0 || n%recordSize != 0 || string(b[:len(indexMagic)]) != indexMagic {
		return
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return
	}
	x.old = body[len(indexMagic):]
	x.seen = make([]bool, n/recordSize)
	x.grow(n / recordSize)
	for i := range n / recordSize {
		r := x.old[i*recordSize:]
		x.insert(i, binary.LittleEndian.Uint64(r), binary.LittleEndian.Uint64(r[8:]))
	}
}

// grow makes room for n records more in the hash table, at most half full.
func (x *index) grow(n int) {
	if want := 2 * (x.count + n); want > len(x.table) {
		size := 1024
		for size < want {
			size *= 2
		}
		old := x.table
		x.table = make([]uint32, size)
		x.count = 0
		for _, i := range old {
			if i != 0 {
				k := x.keyAt(int(i - 1))
				x.insert(int(i-1), k.ino, k.dev)
			}
		}
	}
}

func (x *index) slot(ino, dev uint64) uint64 {
	h := (ino ^ dev<<32) * 0x9e3779b97f4a7c15
	return (h >> 32) & uint64(len(x.table)-1)
}

// insert puts record i into the table; one for the same file is replaced.
func (x *index) insert(i int, ino, dev uint64) {
	s := x.slot(ino, dev)
	for ; x.table[s] != 0; s = (s + 1) & uint64(len(x.table)-1) {
		if k := x.keyAt(int(x.table[s] - 1)); k.ino == ino && k.dev == dev {
			x.table[s] = uint32(i + 1)
			return
		}
	}
	x.table[s] = uint32(i + 1)
	x.count++
}

func (x *index) keyAt(i int) key {
	if n := len(x.seen); i >= n {
		return x.added[i-n].key
	}
	return decodeKey(x.old[i*recordSize:])
}

func (x *index) keyOf(st *unix.Statx_t) key {
	k := key{
		ino: st.Ino, dev: device(st), size: int64(st.Size), mtime: nanos(st.Mtime), ctimes: nanos(st.Ctime),
		mode: uint32(st.Mode),
	}
	if k.dev == x.root {
		k.dev = 0
	}
	return k
}

// lookup returns what is known of the file that st describes.
func (x *index) lookup(st *unix.Statx_t) (sum, bool) {
	if len(x.table) == 0 {
		return sum{}, false
	}
	want := x.keyOf(st)
	for s := x.slot(want.ino, want.dev); x.table[s] != 0; s = (s + 1) & uint64(len(x.table)-1) {
		i := int(x.table[s] - 1)
		k := x.keyAt(i)
		if k.ino != want.ino || k.dev != want.dev {
			continue
		}
		if k != want {
			return sum{}, false
		}
		if i >= len(x.seen) {
			return x.added[i-len(x.seen)].sum, true
		}
		x.seen[i] = true
		r := x.old[i*recordSize:]
		return sum{digest: [sha256.Size]byte(r[44:]), xattrs: r[44+sha256.Size] != 0}, true
	}
	return sum{}, false
}

// add remembers what was read from a file between began and now, st being what fstat(2) said at both times.
func (x *index) add(st *unix.Statx_t, fd int, began time.Time, s sum) {
	k := x.keyOf(st)
	if !x.trust {
		fs := x.rootFS
		if k.dev != 0 {
			fs = tickOf(fd)
		}
		if fs.racy(k.ctimes, began.UnixNano()) {
			return
		}
	}
	x.grow(1)
	x.added = append(x.added, record{k, s})
	x.insert(len(x.seen)+len(x.added)-1, k.ino, k.dev)
	x.dirty = true
}

// save writes the index if there is something new in it. Somebody else's that was written meanwhile is replaced: what
// is lost is read again one day.
func (x *index) save() error {
	if !x.dirty || x.file == "" {
		return nil
	}
	if err := x.write(x.encode()); err != nil {
		return fmt.Errorf("write the index of the build context: %w", err)
	}
	x.dirty = false
	return nil
}

func (x *index) encode() []byte {
	b := make([]byte, 0, len(indexMagic)+(len(x.seen)+len(x.added))*recordSize+4)
	b = append(b, indexMagic...)
	live := make([]bool, len(x.seen)+len(x.added))
	for _, i := range x.table {
		if i != 0 {
			live[i-1] = true
		}
	}
	for i := range x.seen {
		r := x.old[i*recordSize : (i+1)*recordSize]
		switch {
		case !live[i] || !x.seen[i] && r[ageOffset] >= maxAge:
		case x.seen[i]:
			b = append(append(b, r[:ageOffset]...), 0)
		default:
			b = append(append(b, r[:ageOffset]...), r[ageOffset]+1)
		}
	}
	for i := range x.added {
		if live[len(x.seen)+i] {
			b = appendRecord(b, &x.added[i])
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (x *index) write(b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(x.file), ".index-*")
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(x.file), 0o700); err != nil {
			return err
		}
		f, err = os.CreateTemp(filepath.Dir(x.file), ".index-*")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), x.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func appendRecord(b []byte, r *record) []byte {
	b = binary.LittleEndian.AppendUint64(b, r.key.ino)
	b = binary.LittleEndian.AppendUint64(b, r.key.dev)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.key.size))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.key.mtime))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.key.ctimes))
	b = binary.LittleEndian.AppendUint32(b, r.key.mode)
	b = append(b, r.sum.digest[:]...)
	flag := byte(0)
	if r.sum.xattrs {
		flag = 1
	}
	return append(b, flag, 0)
}

func decodeKey(r []byte) key {
	return key{
		ino:    binary.LittleEndian.Uint64(r),
		dev:    binary.LittleEndian.Uint64(r[8:]),
		size:   int64(binary.LittleEndian.Uint64(r[16:])),
		mtime:  int64(binary.LittleEndian.Uint64(r[24:])),
		ctimes: int64(binary.LittleEndian.Uint64(r[32:])),
		mode:   binary.LittleEndian.Uint32(r[40:]),
	}
}

// tick is how far apart two changes can be and still get the same ctime.
type tick struct{ fine, coarse time.Duration }

// tickOf returns the tick of the file system that fd is on. A ctime with a fraction of a second comes from a clock that
// moves with the kernel's timer, at least 100 times a second. Others may be whole seconds, or two (FAT). And on file
// systems from elsewhere, or that programs serve, the clock is not ours: leave time for it to be wrong.
func tickOf(fd int) tick {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return tick{time.Minute, time.Minute}
	}
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.F2FS_SUPER_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC:
		return tick{25 * time.Millisecond, 2500 * time.Millisecond}
	}
	return tick{time.Minute, time.Minute}
}

// racy tells whether a file with this ctime may still be changed without its ctime moving on.
func (t tick) racy(ctime, now int64) bool {
	slack := t.fine
	if ctime%1e9 == 0 {
		slack = t.coarse
	}
	return ctime >= now-int64(slack)
}
