package diff

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/fileentry"
)

// seenEntry returns the entry of a file with its current values, as a digest would record them.
func seenEntry(t *testing.T, dir, name string) fileentry.Entry {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
		t.Fatal(err)
	}
	e := fileentry.FromStat(&st)
	e.Path = name
	return e
}

// TestExternalChanged changes files after they were digested. Writing them returns ErrExternal,
// even if size and time are unchanged.
func TestExternalChanged(t *testing.T) {
	old := time.Unix(1_500_000_000, 5)
	back := func(p string) error { return os.Chtimes(p, old, old) }
	tests := []struct {
		name, file string
		do         func(p string) error
		fine       bool
	}{
		{"nothing", "d/f", func(string) error { return nil }, true},
		{"content", "d/f", func(p string) error {
			return errors.Join(os.WriteFile(p, []byte("y"), 0), back(p))
		}, false},
		{"another file", "d/f", func(p string) error {
			return errors.Join(os.WriteFile(p+".new", []byte("y"), 0o644), back(p+".new"),
				os.Rename(p+".new", p))
		}, false},
		{"mode", "d/f", func(p string) error { return errors.Join(os.Chmod(p, 0o600), back(p)) },
			false},
		{"attribute", "d/f", func(p string) error {
			return unix.Setxattr(p, "user.a", []byte("v"), 0)
		}, false},
		{"link", "d/l", func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink("too", p))
		}, false},
		{"mode of a directory", "d", func(p string) error {
			return errors.Join(os.Chmod(p, 0o700), back(p))
		}, false},
		{"attribute of a directory", "d", func(p string) error {
			return unix.Setxattr(p, "user.a", []byte("v"), 0)
		}, false},
		// It could be copied, but the warning must then come from the copy.
		{"a new name in a directory", "d", func(p string) error {
			return os.WriteFile(p+"/new", nil, 0o644)
		}, false},
		{"gone", "d/f", os.Remove, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := t.TempDir()
			if err := errors.Join(os.Mkdir(src+"/d", 0o755),
				os.WriteFile(src+"/d/f", []byte("x"), 0o644), os.Symlink("to", src+"/d/l"),
				back(src+"/d/f"), back(src+"/d")); err != nil {
				t.Fatal(err)
			}
			dir, err := os.Open(src)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			list := []fileentry.Entry{seenEntry(t, src, "d"), seenEntry(t, src, "d/f"),
				seenEntry(t, src, "d/l")}
			if err := tt.do(filepath.Join(src, tt.file)); err != nil {
				t.Skip(err)
			}
			g := &External{
				Dir: dir, Entries: list,
				Owner: func(uid, gid uint32) (uint32, uint32) { return uid, gid },
				Mode:  func(mode uint32, _ bool) uint32 { return mode },
			}
			var b bytes.Buffer
			_, err = Write(t.Context(), io.Writer(&b),
				Tree{Dir: t.TempDir(), External: g}, Options{})
			if tt.fine && err != nil || !tt.fine && !errors.Is(err, ErrExternal) {
				t.Errorf("error %v, want ErrExternal: %v", err, !tt.fine)
			}
		})
	}
}

// TestExternalStream checks that an error of the stream to which a layer is written is not an
// ErrExternal, which is about the files.
func TestExternalStream(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(src+"/f", make([]byte, 2*chunkSize), 0o644); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	g := &External{
		Dir: dir, Entries: []fileentry.Entry{seenEntry(t, src, "f")},
		Owner: func(uid, gid uint32) (uint32, uint32) { return uid, gid },
		Mode:  func(mode uint32, _ bool) uint32 { return mode },
	}
	_, err = Write(t.Context(), full{}, Tree{Dir: t.TempDir(), External: g}, Options{})
	if !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrExternal) {
		t.Errorf("error %v, want ENOSPC", err)
	}
}

// full is a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, unix.ENOSPC }
