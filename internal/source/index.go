package source

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// index remembers what was read from files, by what stat(2) says of them: as long as a file's device, inode, size, mode,
// mtime and ctime are the same, so is its content. Names are not in it, so a renamed directory costs nothing.
//
// That holds except for one case, which git calls racy: a file may be changed once more within the same tick of the
// file system's clock, and then looks the same. So what is read from a file whose ctime is not older than a tick when
// the reading begins is not remembered (the ctime counts because no program can set it).
//
// The index file has its records in the order in which the files were met. A walk over the same files meets them in
// that order again and only goes through them: nothing is built in memory, and what was passed is given back.
type index struct {
	file   string // "": in memory only
	mapped []byte // the file
	old    []byte // the records in it, recordSize each
	state  []byte // of each: untouched, met or replaced
	next   int    // the one after the last that was met
	window int    // the part of mapped that it is in

	added   [][]byte    // records that are new, addedChunk in each slice
	before  []uint32    // for each of them the old record that it comes before
	instead map[int]int // those old records that are replaced, and the number of what replaces them
	table   []uint32    // records by inode, their numbers plus one; nil until somebody looks for one out of order

	learned int               // how many records were added
	saved   int               // how many of these are in the file
	volumes map[uint64]volume // by device number
	root    uint64            // the root directory's device
	rootFS  volume            // the same as in volumes
	trust   bool              // files never change: remember all
}

type key struct {
	ino, dev            uint64 // dev is the volume's id, since device numbers change from boot to boot
	size, mtime, ctimes int64
	mode                uint32
}

// sum is the content of a regular file, or the extended attributes of a directory.
type sum struct {
	digest [sha256.Size]byte
	xattrs bool // there are some, and they are in digest
}

// A record is a key and a sum, their fields one after the other, little endian, and its age.
const (
	indexMagic = "layerbuild source index 3\n"
	recordSize = 5*8 + 4 + sha256.Size + 2
	sumOffset  = 5*8 + 4
	ageOffset  = recordSize - 1 // in how many rewrites the record was of no use
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
	// lookAhead is how many files may be gone between two that are met before all records are searched.
	lookAhead = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openIndex loads the index. One that cannot be read, or is damaged, is an empty one.
func openIndex(file string, root int, trust bool) (*index, error) {
	x := &index{file: file, trust: trust, instead: map[int]int{}, volumes: map[uint64]volume{}}
	var st unix.Statx_t
	if err := statFD(root, &st); err != nil {
		return nil, fmt.Errorf("stat the source directory: %w", err)
	}
	x.root = device(&st)
	x.rootFS = volumeOf(root, x.root)
	x.volumes[x.root] = x.rootFS
	if file != "" {
		x.load()
	}
	return x, nil
}

// load maps the file. Nobody writes to one that has its name already, so it does not change below us.
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
	if x.mapped, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
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
	return string(body[:len(indexMagic)]) == indexMagic && crc == binary.LittleEndian.Uint32(x.mapped[len(body):])
}

// giveBack takes a part of the file out of this process's memory. It is read again if it is needed again.
func (x *index) giveBack(window int) {
	_ = unix.Madvise(x.mapped[window*indexWindow:min((window+1)*indexWindow, len(x.mapped))], unix.MADV_DONTNEED)
}

// forget lets go of all records.
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

// len is the number of records.
func (x *index) len() int { return len(x.state) + len(x.before) }

// record returns record i: the old ones come first.
func (x *index) record(i int) []byte {
	if i < len(x.state) {
		return x.old[i*recordSize : (i+1)*recordSize]
	}
	i -= len(x.state)
	return x.added[i/addedChunk][i%addedChunk*recordSize:][:recordSize]
}

func inodeOf(r []byte) uint64  { return binary.LittleEndian.Uint64(r) }
func deviceOf(r []byte) uint64 { return binary.LittleEndian.Uint64(r[8:]) }

// find returns the number of the record of a file. It looks first where a walk in the old order finds it: at the last
// one that was met (which is the file itself if it is looked for twice) and those behind it.
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

// current returns the number of the record that counts instead of record i.
func (x *index) current(i int) int {
	if i < len(x.state) {
		x.pass(i)
		if x.state[i] == replaced {
			return x.instead[i]
		}
	}
	return i
}

// pass goes on behind old record i.
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

// grow makes the table anew, with room for as many records again.
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
		ino: st.Ino, dev: device(st), size: int64(st.Size), mtime: nanos(st.Mtime), ctimes: nanos(st.Ctime),
		mode: uint32(st.Mode),
	}
	if !x.trust {
		k.dev = x.known(st).id
	}
	return k
}

// known returns the volume of the file that st describes; the zero value, if learn was not called.
func (x *index) known(st *unix.Statx_t) volume {
	if dev := device(st); dev != x.root {
		return x.volumes[dev]
	}
	return x.rootFS
}

// learn determines the volume of the file that st describes, which is name in the open directory dir, or dir itself if
// name is "".
func (x *index) learn(st *unix.Statx_t, dir int, name *byte) {
	dev := device(st)
	if dev == x.root || x.trust {
		return
	}
	if _, ok := x.volumes[dev]; ok {
		return
	}
	fd := dir
	if *name != 0 {
		var err error
		if fd, err = openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
			return
		}
		defer unix.Close(fd)
	}
	x.volumes[dev] = volumeOf(fd, dev)
}

// trusts reports whether a remembered digest of the file that st describes may be used.
func (x *index) trusts(st *unix.Statx_t) bool { return x.trust || x.known(st).id != 0 }

// lookup returns what is known of the file that st describes.
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
	return sum{digest: [sha256.Size]byte(r[sumOffset:]), xattrs: r[sumOffset+sha256.Size] != 0}, true
}

// unknown tells whether a file was surely not read before, judged by what its directory says of it, and can be read
// without asking stat(2) first: see unchanged.
func (x *index) unknown(ino uint64) bool {
	switch {
	case len(x.state) > 0: // some file systems give other numbers in directories, so that nothing would ever be known
		return false
	case !x.trust && x.rootFS.id == 0:
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

// unchanged reports whether a file has surely not been changed since began, st being what stat(2) said of it later: any
// change would have given it a ctime after that, if the clock is the same.
func (x *index) unchanged(st *unix.Statx_t, began time.Time) bool {
	v := x.known(st)
	return x.trust || v.id != 0 && !v.racy(nanos(st.Ctime), began.UnixNano())
}

// add remembers what was read from a file between began and now, st being what fstat(2) says of it before and after.
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

// save writes the index if there is something new in it. Somebody else's that was written meanwhile is replaced: what
// is lost is read again one day. From then on the file stands for the records in memory.
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
	err = errors.Join(x.encode(f), f.Close())
	if fi, err1 := os.Lstat(x.file); err == nil && err1 == nil && fi.IsDir() { // in a damaged state directory
		err = os.RemoveAll(x.file)
	}
	if err == nil {
		err = os.Rename(f.Name(), x.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// encode writes the records, the new ones where they were met among the old ones.
func (x *index) encode(w io.Writer) error {
	crc := crc32.New(castagnoli)
	out := bufio.NewWriterSize(io.MultiWriter(w, crc), 64<<10)
	out.WriteString(indexMagic)
	added := make([]uint32, len(x.before))
	for i := range added {
		added[i] = uint32(i)
	}
	slices.SortStableFunc(added, func(a, b uint32) int { return cmp.Compare(x.before[a], x.before[b]) })
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
