package fileentry

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSame compares entries of each type with the same file after one value has changed.
func TestSame(t *testing.T) {
	full := func(mode uint32) Entry {
		return FromStat(&unix.Stat_t{Mode: mode, Size: 1, Ino: 2,
			Mtim: unix.Timespec{Sec: 3, Nsec: 4}, Ctim: unix.Timespec{Sec: 5, Nsec: 6}})
	}
	const (
		file = unix.S_IFREG | 0o644
		link = unix.S_IFLNK | 0o777
		dir  = unix.S_IFDIR | 0o755
		fifo = unix.S_IFIFO | 0o600
		char = unix.S_IFCHR | 0o600
	)
	mode := func(e *Entry) { e.Mode ^= 0o100 }
	size := func(e *Entry) { e.Size++ }
	mtime := func(e *Entry) { e.MtimeNs++ }
	ctime := func(e *Entry) { e.CtimeNs++ }
	ino := func(e *Entry) { e.Ino++ }
	tests := []struct {
		name   string
		mode   uint32
		forget func(e *Entry) // changes the digested values; may be nil
		change func(now *Entry)
		want   bool
	}{
		{"file", file, nil, func(*Entry) {}, true},
		{"file, mode", file, nil, mode, false},
		{"file, type", file, nil, func(e *Entry) { *e = full(link) }, false},
		{"file, size", file, nil, size, false},
		{"file, mtime", file, nil, mtime, false},
		{"file, ctime", file, nil, ctime, false},
		{"file, inode", file, nil, ino, false},
		{"file, ctime unknown", file, func(e *Entry) { e.CtimeNs = 0 }, ctime, true},
		{"file, inode unknown", file, func(e *Entry) { e.Ino = 0 }, ino, true},
		{"file, mode unknown", file, func(e *Entry) { e.Mode = 0 }, mode, true},
		{"file, mode unknown, size", file, func(e *Entry) { e.Mode = 0 }, size, false},
		{"file with a private copy", file, func(e *Entry) { e.Frozen = 1 }, size, true},
		{"file that was not digested", file, func(e *Entry) { *e = Entry{} }, size, true},
		{"link", link, nil, func(*Entry) {}, true},
		{"link, mtime", link, nil, mtime, false},
		{"link, ctime", link, nil, ctime, false},
		{"link, inode", link, nil, ino, false},
		{"directory", dir, nil, func(*Entry) {}, true},
		{"directory, mode", dir, nil, mode, false},
		{"directory, mtime", dir, nil, mtime, true},
		{"directory, ctime", dir, nil, ctime, false},
		{"fifo, times", fifo, nil, func(e *Entry) { mtime(e); ctime(e) }, true},
		{"fifo, mode", fifo, nil, mode, false},
		{"device, inode", char, nil, ino, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, now := full(tt.mode), full(tt.mode)
			if tt.forget != nil {
				tt.forget(&e)
			}
			tt.change(&now)
			if got := e.Same(now); got != tt.want {
				t.Errorf("%+v.Same(%+v) = %v, want %v", e, now, got, tt.want)
			}
		})
	}
}

// TestFromStatx compares the results of FromStat and FromStatx for files of each type.
func TestFromStatx(t *testing.T) {
	dir := t.TempDir()
	names := []string{".", "file", "link", "fifo"}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o4751),
		os.Symlink("file", filepath.Join(dir, "link")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o640)); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		var st unix.Stat_t
		var stx unix.Statx_t
		path := filepath.Join(dir, name)
		if err := errors.Join(unix.Lstat(path, &st), unix.Statx(unix.AT_FDCWD, path,
			unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &stx)); err != nil {
			t.Fatal(err)
		}
		got, want := FromStatx(&stx), FromStat(&st)
		if got != want {
			t.Errorf("FromStatx(%s) = %+v, FromStat returns %+v", name, got, want)
		}
		if (want.Size != 0) != (name == "file") || (want.Ino == 0) != (name == ".") ||
			want.MtimeNs == 0 || want.CtimeNs == 0 || want.Mode != st.Mode {
			t.Errorf("FromStat(%s) = %+v", name, want)
		}
	}
}
