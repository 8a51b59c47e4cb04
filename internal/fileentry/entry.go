package fileentry

import "golang.org/x/sys/unix"

// Entry is one file, directory, link, fifo or device that is copied. The zero Entry is for a file
// that was not digested.
type Entry struct {
	// Path is relative to the source that a COPY names or matches (source.Item); "." is the source
	// itself.
	Path string
	// Size, MtimeNs, CtimeNs, Ino and Mode are the values of the file when it was digested (see
	// Same). Size is 0 except for regular files. MtimeNs and CtimeNs are in nanoseconds since 1970.
	// CtimeNs is 0 if ctimes are not compared: in trees that do not change, and with Frozen. Ino is
	// 0 if inode numbers are not compared: also for directories, and on file systems that are not
	// trusted to keep them.
	Size    int64
	MtimeNs int64
	CtimeNs int64
	Ino     uint64
	// Mode is the mode in the result of stat(2), with the type.
	Mode uint32
	// Attrs is set if extended attributes are in the digest.
	Attrs bool
	// Frozen, if not 0, is the name of a private copy, which was digested because the file itself
	// changes. The private copy is copied instead of the file, with its mode, time and attributes.
	Frozen uint32
	// Sum is a checksum of all that the step's key has of the file: its path, mode, content and
	// attributes. It tells which files differ between two keys, and nothing else depends on it. It
	// is 0 for a file that was not digested.
	Sum uint64
}

// FromStat returns an Entry with the values that a file has now. Path, Attrs and Frozen are not
// set.
func FromStat(st *unix.Stat_t) Entry {
	return fromStat(st.Mode, st.Size, st.Ino, st.Mtim.Nano(), st.Ctim.Nano())
}

// FromStatx is FromStat for the result of statx(2).
func FromStatx(st *unix.Statx_t) Entry {
	return fromStat(uint32(st.Mode), int64(st.Size), st.Ino, nanos(st.Mtime), nanos(st.Ctime))
}

func fromStat(mode uint32, size int64, ino uint64, mtime, ctime int64) Entry {
	e := Entry{MtimeNs: mtime, CtimeNs: ctime, Mode: mode}
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Size, e.Ino = size, ino
	case unix.S_IFDIR:
	default:
		e.Ino = ino
	}
	return e
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// Known reports whether e has values of a file that was digested.
func (e *Entry) Known() bool { return e.Mode != 0 || e.MtimeNs != 0 }

// Same reports whether now, made by FromStat or FromStatx, describes the file that was digested. It
// returns true for a file that was not digested, and for one with a private copy, which does not
// change. Values of e that are 0 are not compared, except Size and MtimeNs of files and links:
//   - Files and links: all values are compared.
//   - Directories: Mode, CtimeNs and Ino are compared. The copy gets the digested MtimeNs. Same
//     also returns false if only the names in the directory have changed: this changes its ctime.
//   - Fifos and devices: Mode is compared. Reading or writing them changes their times.
func (e *Entry) Same(now Entry) bool {
	if !e.Known() || e.Frozen != 0 {
		return true
	}
	if e.Mode != 0 && e.Mode != now.Mode {
		return false
	}
	switch now.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
		if e.Size != now.Size || e.MtimeNs != now.MtimeNs {
			return false
		}
	case unix.S_IFDIR:
	default:
		return true
	}
	return (e.CtimeNs == 0 || e.CtimeNs == now.CtimeNs) && (e.Ino == 0 || e.Ino == now.Ino)
}
