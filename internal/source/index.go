package source

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/volume"
	"golang.org/x/sys/unix"
)

// index stores the digests of files. The key of a file is the result of stat(2): as long as its
// device, inode, size, mode, mtime and ctime are the same, so is its content. Names are not part of
// the key, so a renamed directory need not be read again.
//
// There is one exception, which git calls racy: a file may be changed again within the same tick of
// the file system's clock, and then has the same key. So the digest of a file is not stored if its
// ctime is less than a tick older than the beginning of the reading (the ctime is used because no
// program can set it).
//
// The records in the index file are in the order in which a walk found the files. The next walk
// over the same files finds them in that order and reads the records one after the other: no
// table is built in memory, and the pages that were read are released.
type index struct {
	file   string // "": in memory only
	temp   atomicfile.Own
	mapped []byte // the file
	old    []byte // its records, recordSize bytes each
	state  []byte // of each old record: untouched, met or replaced
	next   int    // the number after the last old record that was met
	window int    // the part of mapped that contains next

	added   [][]byte    // new records, addedChunk in each slice
	before  []uint32    // for each new record, the old record before which it is placed
	instead map[int]int // for each replaced old record, the number of the new one
	// record numbers plus one, by inode; nil until a file is looked up out of order
	table []uint32

	learned int                      // the number of records that were added
	saved   int                      // how many of these are in the file
	volumes map[uint64]volume.Volume // by device number
	root    uint64                   // the root directory's device
	rootFS  volume.Volume            // the same as in volumes
	trust   bool                     // files never change: store all digests
}

type key struct {
	// dev is the volume's id, since device numbers change from boot to boot
	ino, dev            uint64
	size, mtime, ctimes int64
	mode                uint32
}

// sum is the digest of a regular file, or of the extended attributes of a directory.
type sum struct {
	digest [sha256.Size]byte
	xattrs bool // there are extended attributes, and digest includes them
}

// A record is a key and a sum, their fields one after the other in little endian, followed by
// its age.
const (
	indexMagic = "layerbuild source index 3\n"
	recordSize = 5*8 + 4 + sha256.Size + 2
	sumOffset  = 5*8 + 4
	ageOffset  = recordSize - 1 // the number of rewrites since the record was last used
	maxAge     = 16
)

const (
	untouched = iota
	met
	replaced
)

const (
	addedChunk  = 512
	indexWindow = 1 << 20
	// lookAhead is the number of missing files that are skipped before all records are searched.
	lookAhead = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openIndex loads the index. A missing or damaged index file is treated as an empty one.
func openIndex(o TreeOptions, root int) (*index, error) {
	x := &index{file: o.IndexFile, temp: o.IndexTemp, trust: o.Immutable,
		instead: map[int]int{}, volumes: map[uint64]volume.Volume{}}
	var st unix.Statx_t
	if err := dirfd.Fstat(root, &st); err != nil {
		return nil, fmt.Errorf("stat the source directory: %w", err)
	}
	x.root = dirfd.Dev(&st)
	x.rootFS = volume.Of(root, x.root)
	x.volumes[x.root] = x.rootFS
	if x.file != "" {
		x.load()
	}
	return x, nil
}

// load maps the file. A file that has its final name is never written to, so the mapped bytes do
// not change.
func (x *index) load() {
	f, err := os.Open(x.file)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return
	}
	n := info.Size() - int64(len(indexMagic)) - 4
	if n <= 0 || n%recordSize != 0 || n/recordSize >= 1<<31 {
		return
	}
	if x.mapped, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ,
		unix.MAP_PRIVATE); err != nil {
		return
	}
	if !x.intact() {
		_ = x.forget()
		return
	}
	x.old = x.mapped[len(indexMagic) : len(x.mapped)-4]
	x.state = make([]byte, n/recordSize)
}

func (x *index) intact() bool {
	body := x.mapped[:len(x.mapped)-4]
	var crc uint32
	for w := 0; w*indexWindow < len(body); w++ {
		crc = crc32.Update(crc, castagnoli, body[w*indexWindow:min((w+1)*indexWindow, len(body))])
		x.giveBack(w)
	}
	return string(body[:len(indexMagic)]) == indexMagic &&
		crc == binary.LittleEndian.Uint32(x.mapped[len(body):])
}

// giveBack releases the memory of a part of the file. The kernel reads it from the disk again when
// it is needed.
func (x *index) giveBack(window int) {
	_ = unix.Madvise(x.mapped[window*indexWindow:min((window+1)*indexWindow, len(x.mapped))],
		unix.MADV_DONTNEED)
}

// forget releases all records.
func (x *index) forget() error {
	mapped := x.mapped
	x.mapped, x.old, x.state, x.next, x.window = nil, nil, nil, 0, 0
	x.added, x.before, x.table = nil, nil, nil
	clear(x.instead)
	if mapped == nil {
		return nil
	}
	return unix.Munmap(mapped)
}

// len returns the number of records.
func (x *index) len() int { return len(x.state) + len(x.before) }

// record returns record i. The old records come first.
func (x *index) record(i int) []byte {
	if i < len(x.state) {
		return x.old[i*recordSize : (i+1)*recordSize]
	}
	i -= len(x.state)
	return x.added[i/addedChunk][i%addedChunk*recordSize:][:recordSize]
}

func inodeOf(r []byte) uint64  { return binary.LittleEndian.Uint64(r) }
func deviceOf(r []byte) uint64 { return binary.LittleEndian.Uint64(r[8:]) }

// find returns the number of the record of a file. It first compares the records that a walk in the
// old order would use: the last record that was met (if the file is looked up twice), and the next
// ones.
func (x *index) find(ino, dev uint64) (int, bool) {
	for i := max(x.next-1, 0); i < min(x.next+lookAhead, len(x.state)); i++ {
		if r := x.record(i); inodeOf(r) == ino && deviceOf(r) == dev {
			return x.current(i), true
		}
	}
	if x.len() == 0 {
		return 0, false
	}
	if x.table == nil {
		x.grow()
	}
	for s := x.slot(ino); x.table[s] != 0; s = x.after(s) {
		i := int(x.table[s] - 1)
		if r := x.record(i); inodeOf(r) == ino && deviceOf(r) == dev {
			return x.current(i), true
		}
	}
	return 0, false
}

// current returns the number of the record that replaces record i, or i.
func (x *index) current(i int) int {
	if i < len(x.state) {
		x.pass(i)
		if x.state[i] == replaced {
			return x.instead[i]
		}
	}
	return i
}

// pass marks old record i as the last one that was met.
func (x *index) pass(i int) {
	x.next = i + 1
	switch w := (len(indexMagic) + i*recordSize) / indexWindow; w {
	case x.window:
	case x.window + 1:
		x.giveBack(x.window)
		fallthrough
	default:
		x.window = w
	}
}

// grow makes a new table with twice the size.
func (x *index) grow() {
	size := 1024
	for size < 2*x.len() {
		size *= 2
	}
	x.table = make([]uint32, size)
	for i := range x.len() {
		x.insert(i)
	}
}

func (x *index) insert(i int) {
	s := x.slot(inodeOf(x.record(i)))
	for x.table[s] != 0 {
		s = x.after(s)
	}
	x.table[s] = uint32(i + 1)
}

func (x *index) slot(ino uint64) int {
	return int(ino * 0x9e3779b97f4a7c15 >> 32 & uint64(len(x.table)-1))
}

func (x *index) after(slot int) int { return (slot + 1) & (len(x.table) - 1) }

func (x *index) keyOf(st *unix.Statx_t) key {
	k := key{
		ino: st.Ino, dev: dirfd.Dev(st), size: int64(st.Size), mtime: nanos(st.Mtime),
		ctimes: nanos(st.Ctime),
		mode:   uint32(st.Mode),
	}
	if !x.trust {
		k.dev = x.known(st).ID
	}
	return k
}

// known returns the volume of the file that st describes, or the zero value if learn was not called
// for it.
func (x *index) known(st *unix.Statx_t) volume.Volume {
	if dev := dirfd.Dev(st); dev != x.root {
		return x.volumes[dev]
	}
	return x.rootFS
}

// learn determines the volume of the file that st describes, which is name in the open directory
// dir, or dir itself if name is "".
func (x *index) learn(st *unix.Statx_t, dir int, name []byte) {
	dev := dirfd.Dev(st)
	if dev == x.root || x.trust {
		return
	}
	if _, ok := x.volumes[dev]; ok {
		return
	}
	fd := dir
	if name[0] != 0 {
		var err error
		if fd, err = openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
			return
		}
		defer unix.Close(fd)
	}
	x.volumes[dev] = volume.Of(fd, dev)
}

// trusts reports whether a stored digest of the file that st describes may be used.
func (x *index) trusts(st *unix.Statx_t) bool { return x.trust || x.known(st).ID != 0 }

// lookup returns the stored digest of the file that st describes.
func (x *index) lookup(st *unix.Statx_t) (sum, bool) {
	if !x.trusts(st) {
		return sum{}, false
	}
	want := x.keyOf(st)
	i, ok := x.find(want.ino, want.dev)
	if !ok {
		return sum{}, false
	}
	r := x.record(i)
	if decodeKey(r) != want {
		return sum{}, false
	}
	if i < len(x.state) {
		x.state[i] = met
	}
	return sum{digest: [sha256.Size]byte(r[sumOffset:]), xattrs: r[sumOffset+sha256.Size] != 0},
		true
}

// unknown reports whether a file with this inode number, from its directory entry, has certainly
// not been read before. Such a file can be read without calling stat(2) first: see unchanged.
func (x *index) unknown(ino uint64) bool {
	switch {
	case len(x.state) > 0:
		// on some file systems, directory entries have other inode numbers, so that no file would
		// be found
		return false
	case !x.trust && x.rootFS.ID == 0:
		return false
	case x.table == nil:
		return x.len() == 0
	}
	for s := x.slot(ino); x.table[s] != 0; s = x.after(s) {
		if inodeOf(x.record(int(x.table[s]-1))) == ino {
			return false
		}
	}
	return true
}

// unchanged reports whether a file has certainly not been changed since began. st is the result of
// a later stat(2): a change after began would have set a later ctime, provided that both clocks are
// the same.
func (x *index) unchanged(st *unix.Statx_t, began time.Time) bool {
	v := x.known(st)
	return x.trust || v.ID != 0 && !v.Racy(nanos(st.Ctime), began.UnixNano())
}

// add stores the digest of a file that was read between began and now. st is the result of fstat(2)
// before and after.
func (x *index) add(st *unix.Statx_t, began time.Time, s sum) {
	if !x.unchanged(st, began) {
		return
	}
	x.learned++
	k := x.keyOf(st)
	i, known := x.find(k.ino, k.dev)
	if known && i >= len(x.state) {
		appendRecord(x.record(i)[:0], k, s)
		return
	}
	n := x.len()
	at := x.next
	if known {
		at = i
		x.state[i], x.instead[i] = replaced, n
	}
	if len(x.before)%addedChunk == 0 {
		x.added = append(x.added, make([]byte, 0, addedChunk*recordSize))
	}
	last := &x.added[len(x.added)-1]
	*last = appendRecord(*last, k, s)
	x.before = append(x.before, uint32(at))
	switch {
	case known || x.table == nil:
	case 3*n > 2*len(x.table):
		x.grow()
	default:
		x.insert(n)
	}
}

// save writes the index if it has new records. It replaces an index that another process has
// written meanwhile: files whose records are lost are read again later. Afterwards the file holds
// all records of the memory.
func (x *index) save() error {
	if x.learned == x.saved || x.file == "" {
		return nil
	}
	if err := x.write(); err != nil {
		return fmt.Errorf("write the index of the build context: %w", err)
	}
	x.saved = x.learned
	if err := x.forget(); err != nil {
		return err
	}
	x.load()
	for i := range x.state {
		if x.record(i)[ageOffset] == 0 {
			x.state[i] = met
		}
		x.pass(i)
	}
	x.next, x.window = 0, 0
	return nil
}

func (x *index) write() error {
	if err := os.MkdirAll(filepath.Dir(x.file), 0o700); err != nil {
		return err
	}
	return x.temp.Replace(x.file, func(f *os.File) error { return x.encode(f) })
}

// encode writes the records. New records are placed between the old ones, in the order in which
// they were met.
func (x *index) encode(w io.Writer) error {
	crc := crc32.New(castagnoli)
	out := bufio.NewWriterSize(io.MultiWriter(w, crc), 64<<10)
	out.WriteString(indexMagic)
	added := make([]uint32, len(x.before))
	for i := range added {
		added[i] = uint32(i)
	}
	slices.SortStableFunc(added, func(a, b uint32) int {
		return cmp.Compare(x.before[a], x.before[b])
	})
	for i := range len(x.state) + 1 {
		for ; len(added) > 0 && int(x.before[added[0]]) == i; added = added[1:] {
			out.Write(x.record(len(x.state) + int(added[0])))
		}
		if i == len(x.state) {
			break
		}
		r := x.record(i)
		age := r[ageOffset] + 1
		if x.state[i] == met {
			age = 0
		}
		if x.state[i] != replaced && age <= maxAge {
			out.Write(r[:ageOffset])
			out.WriteByte(age)
		}
		x.pass(i)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := w.Write(binary.LittleEndian.AppendUint32(nil, crc.Sum32()))
	return err
}

func appendRecord(b []byte, k key, s sum) []byte {
	b = binary.LittleEndian.AppendUint64(b, k.ino)
	b = binary.LittleEndian.AppendUint64(b, k.dev)
	b = binary.LittleEndian.AppendUint64(b, uint64(k.size))
	b = binary.LittleEndian.AppendUint64(b, uint64(k.mtime))
	b = binary.LittleEndian.AppendUint64(b, uint64(k.ctimes))
	b = binary.LittleEndian.AppendUint32(b, k.mode)
	b = append(b, s.digest[:]...)
	flag := byte(0)
	if s.xattrs {
		flag = 1
	}
	return append(b, flag, 0)
}

func decodeKey(r []byte) key {
	return key{
		ino:    inodeOf(r),
		dev:    deviceOf(r),
		size:   int64(binary.LittleEndian.Uint64(r[16:])),
		mtime:  int64(binary.LittleEndian.Uint64(r[24:])),
		ctimes: int64(binary.LittleEndian.Uint64(r[32:])),
		mode:   binary.LittleEndian.Uint32(r[40:]),
	}
}
