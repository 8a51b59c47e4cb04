package copyfstest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Old is the time of the files of a source.
var Old = time.Unix(1500000000, 987654321)

// Source returns a new directory with the entries, which have the time Old.
func Source(t testing.TB, entries ...string) *os.File {
	t.Helper()
	dir := t.TempDir()
	Make(t, dir, entries...)
	// The directories above the entries keep their times: tests in a user namespace may run as
	// another user, who does not own them.
	for _, e := range entries {
		ts := unix.NsecToTimespec(Old.UnixNano())
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, strings.Fields(e)[1]),
			[]unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatalf("%s: %v", e, err)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Make makes the entries in a directory, with the missing directories above them. An entry is one
// of:
//
//	dir NAME [MODE]
//	file NAME [MODE [CONTENT]]
//	link NAME TARGET
//	hard NAME OTHER
//	fifo NAME MODE
//	sock NAME MODE
func Make(t testing.TB, dir string, entries ...string) {
	t.Helper()
	for _, e := range entries {
		if err := makeEntry(dir, strings.Fields(e)); err != nil {
			t.Fatalf("%s: %v", e, err)
		}
	}
}

func makeEntry(dir string, f []string) error {
	name := filepath.Join(dir, f[1])
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	var mode uint32
	if len(f) > 2 {
		fmt.Sscanf(f[2], "%o", &mode) // a name of a link's line, not a mode
	}
	var err error
	switch f[0] {
	case "dir":
		err = os.MkdirAll(name, 0o755)
	case "file":
		err = os.WriteFile(name, []byte(strings.Join(f[min(len(f), 3):], " ")), 0o644)
	case "link":
		return os.Symlink(f[2], name)
	case "hard":
		return os.Link(filepath.Join(dir, f[2]), name)
	case "fifo":
		err = unix.Mkfifo(name, mode)
	case "sock":
		err = unix.Mknod(name, unix.S_IFSOCK|0o755, 0)
	default:
		return fmt.Errorf("an entry of an unknown type")
	}
	if err == nil && mode != 0 {
		err = unix.Chmod(name, mode)
	}
	return err
}

// List lists a directory, one entry a line, as Make takes them. UID:GID follows if this process is
// not the file's owner, and "old" follows if the file has the time Old.
func List(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	inodes := map[uint64]string{}
	err := filepath.Walk(dir, func(name string, fi os.FileInfo, err error) error {
		if err != nil || name == dir {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(dir, name)
		line := ""
		switch fi.Mode() & os.ModeType {
		case os.ModeDir:
			line = fmt.Sprintf("dir %s %04o", rel, st.Mode&0o7777)
		case 0:
			if first, ok := inodes[st.Ino]; ok {
				line = fmt.Sprintf("hard %s %s", rel, first)
				break
			}
			inodes[st.Ino] = rel
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			line = fmt.Sprintf("file %s %04o %s", rel, st.Mode&0o7777, b)
		case os.ModeSymlink:
			to, _ := os.Readlink(name)
			line = fmt.Sprintf("link %s %s", rel, to)
		case os.ModeNamedPipe:
			line = fmt.Sprintf("fifo %s %04o", rel, st.Mode&0o7777)
		default:
			line = fmt.Sprintf("%s %s", fi.Mode().Type(), rel)
		}
		if int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid() {
			line += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
		}
		if fi.ModTime().Equal(Old) {
			line += " old"
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
